"""What the attendee store has to hold after a file was delivered: computed from the file, without the engine's core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.config import Config, DestinationConfig
from engine.errors import EngineError
from engine.model import Event, Trait
from engine.profiles.formats import CSV, JSON, Reader
from engine.profiles.mapping import Mapper

Fields = dict[str, Any]
MEDIA_TYPES = {".csv": CSV, ".json": JSON, ".ndjson": "application/x-ndjson", ".jsonl": "application/jsonl"}


class Expected(msgspec.Struct):
    """`states[e-mail]`: the acceptable folds, see `_states`."""

    events: int
    states: dict[str, list[Fields]]

    def compare(self, stored: dict[str, Fields]) -> tuple[int, list[str]]:
        """(attendees that are as they have to be, what is wrong with the others)."""
        wrong = [f"{len(stored.keys() - self.states.keys())} attendees that nobody sent"]
        wrong += [f"{len(self.states.keys() - stored.keys())} attendees are missing"]
        same = [email for email, states in self.states.items() if stored.get(email) in states]
        differ = len(self.states.keys() & stored.keys()) - len(same)
        wrong += [f"{differ} attendees hold something else than the fold of their events"]
        return len(same), [text for text in wrong if not text.startswith("0 ")]


def expected_of(file: Path, config: Config) -> Expected:
    """Fold every accepted event of the file, in order; the last event that carries a field wins."""
    media_type = MEDIA_TYPES.get(file.suffix.lower())
    if media_type is None:
        raise EngineError(f"{file}: the demo reads CSV, JSON and NDJSON files")
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=1_000_000)
    events = reader.read(file.read_bytes(), media_type).events
    people: dict[bytes, list[Event]] = {}
    for event in events:
        people.setdefault(event.key, []).append(event)
    mapper = _mapper(config.destinations[0])
    states = {}
    for mine in people.values():
        with_address = [event for event in mine if event.traits & Trait.EMAIL]
        if not with_address:
            continue
        states[str(msgspec.json.decode(with_address[0].content)["email"])] = _states(mine, mapper)
    return Expected(len(events), states)


def _states(events: list[Event], mapper: Mapper) -> list[Fields]:
    """What the store can hold at the end: events that wait together leave as one request, and a field that a request
    does not carry stays as it is. So it can matter how many came before the first was sent: a state goes with one
    country and not with the next, and a record that knew a hash only counts if it waited beside a plain address."""
    after: list[list[Fields]] = [[{}]]
    for end in range(1, len(events) + 1):
        reached: list[Fields] = []
        for begin in range(end):
            sent = _sent(events[begin:end], mapper)
            reached += [found for it in after[begin] if (found := it | sent) not in reached]
        after.append(reached)
    return after[-1]


def _sent(events: list[Event], mapper: Mapper) -> Fields:
    """Of one request; nothing without a plain address."""
    if not any(event.traits & Trait.EMAIL for event in events):
        return {}
    fields: Fields = {}
    for event in events:
        fields |= msgspec.json.decode(event.content)
    sent: Fields = msgspec.json.decode(
        mapper.encode(msgspec.json.encode(fields), Trait.EMAIL | Trait.FOREIGN_STATE, None)
    )
    return {name: value for name, value in sent.items() if name != "email"}


def _mapper(destination: DestinationConfig) -> Mapper:
    return Mapper(
        fields=destination.fields,
        rename=destination.rename,
        state_policy=destination.state_policy,
        apply_transformation=destination.apply_transformation,
    )
