"""The pace of a backfill: its acknowledgement waits while readers are busy putting backfill on disk.

The journal is read in order, so a live event waits for all backfill ahead of it that was not read yet. A producer that
sends the next request when it has its answer is slowed down to what can be read; nothing is refused by this.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from engine.callbacks import call
from engine.pipeline.commit import Told
from engine.pipeline.reader import Reader

LONGEST_SECONDS = 1.0
"""From the moment a request was handed in: with the commit itself it has to stay below what a producer waits for."""


class BackfillPace:
    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._waiting: deque[tuple[float, Told, int]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    def paced(self, told: Told) -> Told:
        """To be told instead, of a commit that is handed in now: passes it on once no reader is behind because of
        backfill, or after so long that an answer has to come."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LONGEST_SECONDS

        def committed(result: int | Exception) -> None:
            if isinstance(result, Exception) or not self._is_behind():
                told(result)
                return
            self._waiting.append((until, told, result))
            if self._alarm is None:
                self._alarm = loop.call_at(until, self._ring)

        return committed

    def settled(self) -> None:
        """Copies may have become durable: whoever waits may go on."""
        if self._waiting and not self._is_behind():
            self._release(float("inf"))

    def _is_behind(self) -> bool:
        return any(reader.is_behind_for_backfill() for reader in self._readers)

    def _ring(self) -> None:
        self._alarm = None
        loop = asyncio.get_running_loop()
        self._release(loop.time())
        if self._waiting:
            self._alarm = loop.call_at(self._waiting[0][0], self._ring)

    def _release(self, now: float) -> None:
        """Those whose time is over; they wait in the order in which they were handed in."""
        while self._waiting and self._waiting[0][0] <= now:
            _, told, first = self._waiting.popleft()
            call(told, first)
