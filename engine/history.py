"""What the state file tells about the past: hourly runs, and the last outcome of every key. Part of the ports.

A run is one hour of one destination, as AEP has it for streaming destinations (domain reference §2.10). What became
durable within the hour counts in it, in events: a run that is over does not change, and the runs of a destination add
up to its counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from engine.model import LedgerEntry

HOUR_SECONDS = 3_600
BEFORE = -1
"""The hour of what was counted before there were runs, or in runs that are not kept any more."""
OTHER = "other"
"""The audience of events whose own is beyond the limit. No audience is named so: ids are ``namespace/id``."""
REMOVED = "delivered:removed"
"""The fate of events that were delivered for somebody who has left the audience."""


class Run(msgspec.Struct):
    """`hour`: hours since the epoch. `audience`: "" for all of the destination. `fates`: what became of events, those
    that were merged into a newer one under what became of that: "delivered", "delivered:removed", "suppressed",
    "excluded:no_email", … `counts`: the same events by their own outcome, as in `ConsumerState.counts`; only where
    `audience` is ""."""

    consumer: str
    hour: int
    audience: str = ""
    fates: dict[str, int] = msgspec.field(default_factory=dict)
    counts: dict[str, int] = msgspec.field(default_factory=dict)


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs: every condition that is set has to hold. `audience`: "" for whole destinations, an id, or None for
    everything. `since`, `until`: epoch seconds; the hours that begin in [since, until). `below`: only what comes behind
    this one (hour, consumer, audience) in the order of `History.runs`."""

    consumer: str | None = None
    among: frozenset[str] | None = None  # consumers; None: all
    audience: str | None = ""
    since: float | None = None
    until: float | None = None
    below: tuple[int, str, str] | None = None


class OutcomeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which last outcomes. `since`, `until`: epoch seconds, [since, until)."""

    consumer: str
    outcome: str | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, entry: LedgerEntry) -> bool:
        return (
            (self.outcome is None or entry.outcome == self.outcome)
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
        )


class HistoryControl(Protocol):
    """Part of `ports.Control`."""

    async def runs(self, which: RunFilter, limit: int, /, *, cursor: str = "", flow: bool = False) -> dict[str, object]:
        """{"runs": [run], "next": cursor | None}, newest first; what a run holds: `core.runs`. `flow`: in the shape of
        AEP's Flow Service; with `which.audience` None each holds its audiences. Raises ValueError for a cursor that
        was not given out here."""

    def outcomes(self, which: OutcomeFilter, /) -> AsyncIterator[list[dict[str, object]]]:
        """Page by page the last outcome of every key, then the dead letters, of one destination; rows as
        `core.exports` makes them. Pages may be empty. Raises KeyError for an unknown destination."""


class History(Protocol):
    """Part of `ports.State`."""

    async def runs(self, which: RunFilter, limit: int, /) -> Sequence[Run]:
        """The newest hour first, in it by consumer and audience; at most `limit`. Of an hour in which nothing was
        settled there is no run."""

    async def outcomes(self, which: OutcomeFilter, after: bytes | None, /) -> tuple[list[LedgerEntry], bytes | None]:
        """One page of the ledger in the order of its keys: what matches in it, and the key to go on after, None at the
        end. A page reads a bounded number of rows, however few of them match. The first one (`after` None) sees to it
        that whatever was settled before is in the pages."""
