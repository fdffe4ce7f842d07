"""The pace of a backfill: it is let in as fast as what is too much of it in memory can be put on disk.

The journal is read in order, so a live event waits for all backfill ahead of it. A request of backfill therefore waits
before its commit, in the order of arrival, while copies to disk are behind; one that cannot be let in soon is refused.
However many connections there are, live events find room in memory. Nobody else waits here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio

from engine.errors import Overloaded
from engine.pipeline.reader import Reader

LONGEST_SECONDS = 1.0
"""From the moment a request was handed in: with the commit itself it has to stay below what a producer waits for."""

AT_ONCE_EVENTS = 5_000
"""So much backfill at most is on its way into the journal: a live event waits for the commit ahead of it."""

WAITING_EVENTS = 50_000
"""Backfill that may wait here, in memory; beyond that it is refused at once."""

UNKNOWN_RETRY_SECONDS, SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 1.0, 60.0


class BackfillPace:
    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._turn = anyio.Lock()  # the one that holds it is the next
        self._changed = asyncio.Event()
        self._committing = 0
        self._waiting = 0
        self._waits_since = 0.0
        self._let_in = 0  # events, since somebody had to wait
        self._closed = False

    def look_again(self) -> None:
        """Copies may have become durable, or backfill may have been committed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Nobody waits here any more: the commit stage says why nothing is accepted."""
        self._closed = True
        self.look_again()

    async def enter(self, events: int) -> None:
        """Before the commit of an append of backfill; `leave` comes after it, however it ends. Raises Overloaded when
        it cannot be let in soon."""
        if self._waiting + events > WAITING_EVENTS and self._waiting:
            raise self._refusal(events)
        if not self._waiting:
            self._waits_since, self._let_in = anyio.current_time(), 0
        self._waiting += events
        let_in = False
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + LONGEST_SECONDS):
                async with self._turn:
                    while not self._may_go():
                        await self._changed.wait()
                    self._committing += events
                    let_in = True
        finally:
            self._waiting -= events
        if not let_in:
            raise self._refusal(events)
        self._let_in += events

    def leave(self, events: int) -> None:
        self._committing -= events
        self.look_again()

    def _may_go(self) -> bool:
        committing = self._committing
        if self._closed:
            return True
        return committing < AT_ONCE_EVENTS and not any(it.has_enough_backfill(committing) for it in self._readers)

    def _refusal(self, events: int) -> Overloaded:
        """Come back when those that wait now have been let in, at the pace at which others were."""
        detail = "backfill comes faster than what is too much for memory can be put on disk"
        return Overloaded("backfill-behind", detail, self._retry_after_seconds(self._waiting + events))

    def _retry_after_seconds(self, events: int) -> float:
        elapsed = anyio.current_time() - self._waits_since
        if not self._let_in or elapsed <= 0:
            return UNKNOWN_RETRY_SECONDS
        return min(LONGEST_RETRY_SECONDS, max(SHORTEST_RETRY_SECONDS, events * elapsed / self._let_in))
