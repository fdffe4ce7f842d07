"""The pace of a backfill: it is let in as fast as what is too much of it in memory can be put on disk.

The journal is read in order, so a live event waits for all backfill ahead of it. A request of backfill therefore waits
before its commit, in the order of arrival, while copies to disk are behind; one that cannot be let in soon is refused.
However many connections there are, live events find room in memory. Nobody else waits here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from engine.callbacks import call
from engine.errors import EngineError, Overloaded
from engine.model import Append
from engine.pipeline.commit import Told
from engine.pipeline.reader import Reader

LONGEST_SECONDS = 1.0
"""From the moment a request was handed in: with the commit itself it has to stay below what a producer waits for."""

AT_ONCE_EVENTS = 5_000
"""So much backfill at most is on its way into the journal: a live event waits for the commit ahead of it."""

WAITING_EVENTS = 50_000
"""Backfill that may wait here, in memory; beyond that it is refused at once."""

UNKNOWN_RETRY_SECONDS, SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 1.0, 60.0


class _Waiting(msgspec.Struct, eq=False):
    append: Append
    told: Told
    until: float


class BackfillPace:
    """`commit`: see `CommitStage.hand_in`."""

    def __init__(self, readers: Sequence[Reader], commit: Callable[[Append, Told], None]) -> None:
        self._readers, self._commit = readers, commit
        self._waiting: deque[_Waiting] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._committing = 0
        self._waiting_events = 0
        self._waits_since = 0.0
        self._let_in = 0  # events, since somebody had to wait
        self._closed = False

    def hand_in(self, append: Append, told: Told) -> None:
        """As `CommitStage.hand_in`, of backfill: it waits for its turn first, and is told Overloaded when that does not
        come soon."""
        if not self._waiting and self._may_go():
            self._let(append, told)
            return
        events, loop = len(append.events), asyncio.get_running_loop()
        if self._waiting and self._waiting_events + events > WAITING_EVENTS:
            raise self._refusal(events)
        if not self._waiting:
            self._waits_since, self._let_in = loop.time(), 0
        self._waiting.append(_Waiting(append, told, loop.time() + LONGEST_SECONDS))
        self._waiting_events += events
        self._set_alarm(loop)

    def look_again(self) -> None:
        """Copies may have become durable, or backfill may have been committed."""
        while self._waiting and self._may_go():
            waiting = self._next()
            try:
                self._let(waiting.append, waiting.told)
            except EngineError as error:
                call(waiting.told, error)

    def close(self) -> None:
        """Nobody waits here any more: the commit stage says why nothing is accepted."""
        self._closed = True
        self.look_again()

    def _let(self, append: Append, told: Told) -> None:
        events = len(append.events)

        def committed(result: int | Exception) -> None:
            self._committing -= events
            call(told, result)
            self.look_again()

        self._committing += events
        try:
            self._commit(append, committed)
        except EngineError:
            self._committing -= events
            raise
        self._let_in += events

    def _next(self) -> _Waiting:
        waiting = self._waiting.popleft()
        self._waiting_events -= len(waiting.append.events)
        return waiting

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._alarm is None and self._waiting:
            self._alarm = loop.call_at(self._waiting[0].until, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Whoever has waited for too long is refused."""
        self._alarm, now = None, loop.time()
        while self._waiting and self._waiting[0].until <= now:
            waiting = self._next()
            call(waiting.told, self._refusal(len(waiting.append.events)))
        self._set_alarm(loop)

    def _may_go(self) -> bool:
        committing = self._committing
        if self._closed:
            return True
        return committing < AT_ONCE_EVENTS and not any(it.has_enough_backfill(committing) for it in self._readers)

    def _refusal(self, events: int) -> Overloaded:
        """Come back when those that wait now have been let in, at the pace at which others were."""
        detail = "backfill comes faster than what is too much for memory can be put on disk"
        return Overloaded("backfill-behind", detail, self._retry_after_seconds(self._waiting_events + events))

    def _retry_after_seconds(self, events: int) -> float:
        elapsed = asyncio.get_running_loop().time() - self._waits_since
        if not self._let_in or elapsed <= 0:
            return UNKNOWN_RETRY_SECONDS
        return min(LONGEST_RETRY_SECONDS, max(SHORTEST_RETRY_SECONDS, events * elapsed / self._let_in))
