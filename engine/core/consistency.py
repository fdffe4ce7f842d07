"""Do journal and state agree with each other? Rules over offsets and counts; each problem is one sentence. Pure.

What an audit finds beside uneven sums. Offsets that a consumer's state names were given by the journal, so all of them
lie below its end; one that does not says that events were lost which had been acknowledged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from engine.core.fold import events_of
from engine.model import NOTHING, Held, Outcome
from engine.ports import ConsumerState, Inspection

LONGEST_PAUSE_SECONDS = 3_600.0
CLOCK_SECONDS = 60.0
"""What clocks may differ by."""


def problems_of_offsets(one: ConsumerState, found: Inspection, following: int) -> Iterator[str]:
    """`following`: where the journal ends. That a watermark lies beyond it, `reconcile.disagreements` tells."""
    if not 0 <= one.start <= one.watermark:
        yield f"its watermark {one.watermark} is below its start {one.start}"
    if one.watermark > one.read_to:
        yield f"its watermark {one.watermark} is beyond read_to {one.read_to}: more is settled than was ever read"
    known = max(found.settled_through, found.confirmed_through)
    if known >= following:
        yield f"its ledger knows offset {known}, and the journal ends before {following}: acknowledged events were lost"
    elif known >= one.read_to:
        yield f"its ledger knows offset {known}, and only what is below {one.read_to} was ever read"
    yield from found.problems


def problems_of_counts(one: ConsumerState) -> Iterator[str]:
    if not 0 <= one.not_addressed <= max(0, one.watermark - one.start):
        span = one.watermark - one.start
        yield f"{one.not_addressed} of the {span} events below its watermark are said not to be for it"
    outcomes = {str(outcome) for outcome in Outcome}
    for name, events in one.counts.items():
        if events < 0:
            yield f"its count of {name} is negative: {events}"
        if name.partition(":")[0] not in outcomes:
            yield f"its count {name!r} is of no outcome that there is"


class HeldCheck:
    """Fed with every profile that is held for a consumer. `accounted`: see `State.accounted`."""

    def __init__(self, one: ConsumerState, accounted: Mapping[bytes, int], following: int) -> None:
        self._one, self._accounted, self._following = one, accounted, following
        self._profiles = self._events = self._beyond = self._unaccounted = self._backwards = 0

    def add(self, found: Iterable[Held]) -> None:
        for held in found:
            profile, last = held.profile, held.profile.last
            self._profiles += 1
            self._events += events_of(profile)
            self._beyond += last >= min(self._following, self._one.read_to)
            self._backwards += profile.through > last
            known = self._accounted.get(profile.key, NOTHING)
            self._unaccounted += last >= self._one.watermark and known < last

    def problems(self) -> Iterator[str]:
        one = self._one
        if (self._profiles, self._events) != (one.held_profiles, one.held_events):
            yield (
                f"{one.held_profiles} held profiles with {one.held_events} events are counted, "
                f"{self._profiles} with {self._events} are there"
            )
        if self._beyond:
            yield f"{self._beyond} held profiles hold events from beyond what is in the journal, or was read of it"
        if self._backwards:
            yield f"{self._backwards} held profiles hold more than they account for"
        if self._unaccounted:
            yield f"{self._unaccounted} held profiles would be read again from the journal after a restart"


def problems_of_pauses(pauses: Mapping[str, float], now: float) -> Iterator[str]:
    """`pauses`: account -> epoch seconds."""
    for account, until in pauses.items():
        if not math.isfinite(until) or not 0 <= until <= now + LONGEST_PAUSE_SECONDS + CLOCK_SECONDS:
            yield f"account {account!r} is paused until {until:.0f}: no Retry-After lasts so long, or the clock is back"


def problems_of_memory(one: ConsumerState, counts: Mapping[str, int], watermark: int) -> Iterator[str]:
    """A running engine's own view of what is durable, against what is stored."""
    stored = {name: events for name, events in one.counts.items() if events}
    if stored != {name: events for name, events in counts.items() if events}:
        yield "what the engine has counted and what it has stored differ"
    if one.watermark != watermark:
        yield f"the engine takes {watermark} for its durable watermark, and {one.watermark} is stored"


def of_destination(name: str, problems: Iterable[str]) -> list[str]:
    return [f"destination {name!r}: {problem}" for problem in problems]
