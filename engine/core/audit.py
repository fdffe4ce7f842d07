"""The conservation sums, recomputed: accepted = outcomes + pending, in events, per destination. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from engine.model import NOTHING, Append, Event, Kind, Outcome


class Addressed(msgspec.Struct, frozen=True):
    """Which events of the journal are for one consumer. `sources` None: all. `takes`: the kind that it delivers."""

    sources: frozenset[str] | None = None
    takes: int = Kind.PROFILE

    def holds(self, name: str, source: str, event: Event) -> bool:
        if event.kind == Kind.REPLAY:
            return event.destination == name
        return event.kind == self.takes and (not source or self.sources is None or source in self.sources)


class Backlog:
    """Counts, from the journal itself, what one consumer still owes at or above its watermark."""

    def __init__(self, name: str, watermark: int, addressed: Addressed, accounted: Mapping[bytes, int]) -> None:
        self._name, self._watermark, self._addressed, self._accounted = name, watermark, addressed, accounted
        self.pending = 0
        self.not_addressed = 0

    def add(self, append: Append) -> None:
        for offset, event in enumerate(append.events, append.first):
            if offset < self._watermark:
                continue
            if not self._addressed.holds(self._name, append.source, event):
                self.not_addressed += 1
            elif self._accounted.get(event.key, NOTHING) < offset:
                self.pending += 1


class Sums(msgspec.Struct):
    """One destination's sums, in events."""

    accepted: int
    outcomes: dict[str, int]
    pending: int

    @property
    def residual(self) -> int:
        return self.accepted - sum(self.outcomes.values()) - self.pending

    def report(self) -> dict[str, object]:
        return {"accepted": self.accepted, **self.outcomes, "pending": self.pending, "residual": self.residual}


def outcomes_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by outcome and reason, reasons added up."""
    sums: Counter[str] = Counter(dict.fromkeys((str(outcome) for outcome in Outcome), 0))
    for name, events in counts.items():
        sums[name.partition(":")[0]] += events
    return dict(sums)


def problems_of(sums: Mapping[str, Sums]) -> list[str]:
    return [
        f"destination {name!r}: {abs(one.residual)} events "
        + ("have no outcome and are not pending" if one.residual > 0 else "are counted more than once")
        for name, one in sums.items()
        if one.residual
    ]


def report(sums: Mapping[str, Sums], problems: Iterable[str] = ()) -> dict[str, object]:
    found = [*problems, *problems_of(sums)]
    return {"ok": not found, "destinations": {name: one.report() for name, one in sums.items()}, "problems": found}
