"""What would become of a file of records: mapped, judged and encoded for each destination, and sent nowhere."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from engine.assembly.outward import mapper_of, policy_of
from engine.assembly.readers import readers_of
from engine.config import Config, DestinationConfig
from engine.core.handover import exclusion, flag
from engine.model import Event, Lane, Membership, Profile, Rejection
from engine.profiles.explain import Explained, explain
from engine.profiles.records import HASH, RECORD_KEYS


class Field(msgspec.Struct):
    """One value on its way. `given`: path -> value where it was found."""

    field: str
    origin: str
    given: dict[str, object]
    value: str  # "" when it was dropped


class Sent(msgspec.Struct):
    """What one destination would be sent: `record`, or why nothing. `renamed`: target field -> its name there."""

    record: dict[str, object]
    excluded: str = ""
    renamed: dict[str, str] = {}


class Tried(msgspec.Struct):
    """One record of the sample. `unused`: path -> value of what nobody asked for."""

    index: int
    accepted: bool
    fields: list[Field]
    audiences: dict[str, Membership]
    unused: dict[str, object]
    destinations: dict[str, Sent]
    rejected: list[Rejection]
    dropped: list[Rejection]


def try_sample(config: Config, source: str, body: bytes, media_type: str, now: float) -> list[Tried]:
    """`now`: epoch seconds. Raises KeyError for an unknown source, and BodyUnreadable and TooManyEvents."""
    reader, _ = readers_of(config, lambda: now)[source]
    parsed, explained = explain(reader, body, media_type)
    events = dict(zip(parsed.indexes, parsed.events, strict=True))
    rejected, dropped = _by_index(parsed.rejected), _by_index(parsed.dropped)
    return [
        _tried(config, source, index, one, events.get(index), rejected[index], dropped[index])
        for index, one in enumerate(explained)
    ]


def _by_index(rejections: list[Rejection]) -> defaultdict[int, list[Rejection]]:
    found: defaultdict[int, list[Rejection]] = defaultdict(list)
    for one in rejections:
        found[one.index].append(one)
    return found


def _tried(
    config: Config,
    source: str,
    index: int,
    one: Explained,
    event: Event | None,
    rejected: list[Rejection],
    dropped: list[Rejection],
) -> Tried:
    content: dict[str, str] = msgspec.json.decode(event.content) if event else {}
    audiences = (event.audiences if event else None) or {}
    found = [_field(name, origin, one, content.get(name, "")) for name, origin in one.origins.items()]
    used = {path for field in found for path in field.given}
    fields = [field for field in found if field.field not in RECORD_KEYS or field.field == HASH]
    unused = {path: value for path, value in one.given.items() if path not in used}
    destinations = {it.name: _sent(config, it, source, event) for it in config.destinations} if event else {}
    return Tried(index, event is not None, fields, audiences, unused, destinations, rejected, dropped)


def _field(name: str, origin: str, one: Explained, value: str) -> Field:
    places = [place for it in origin.split(" + ") for place in it.split(" | ")]
    given = {
        path: it for path, it in one.given.items() for place in places if path == place or path.startswith(f"{place}.")
    }
    return Field(name, origin, given, value)


def _sent(config: Config, destination: DestinationConfig, source: str, event: Event) -> Sent:
    if "*" not in destination.sources and source not in destination.sources:
        return Sent({}, "source")
    profile = Profile(event.key, event.content, event.traits, Lane.LIVE, 0, 0, 0, 1, 0.0, event.audiences)
    policy = policy_of(destination, config.account_of(destination))
    if reason := exclusion(profile, policy):
        return Sent({}, reason)
    record = mapper_of(destination).encode(event.content, event.traits, flag(profile, policy))
    return Sent(msgspec.json.decode(record), renamed=destination.rename)
