"""Load over plain TCP, one event a line, for peers that have no HTTP source. Nothing comes back: there are no acks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.bench.load import CLOSED_TICK_SECONDS, GRACE_SECONDS, LoadResult
from engine.bench.pacing import Schedule
from engine.bench.wire import Site

TAKEN = 200


class Lines:
    """As `Load`: due by a schedule, or as long as `may_send()`. What the kernel took counts as accepted."""

    def __init__(
        self,
        site: Site,
        body: Callable[[int], bytes],
        size_of: Callable[[int], int],
        *,
        connections: int,
        seconds: float,
        schedule: Schedule | None,
        may_send: Callable[[], bool],
    ) -> None:
        self.result = LoadResult()
        self._site, self._body, self._size_of = site, body, size_of
        self._connections, self._seconds, self._schedule, self._may_send = connections, seconds, schedule, may_send

    async def run(self) -> LoadResult:
        """Raises OSError when nobody listens."""
        streams = [await asyncio.open_connection(self._site.host, self._site.port) for _ in range(self._connections)]
        self._start = time.perf_counter()
        self.result.started_monotonic = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds + GRACE_SECONDS):
                await asyncio.gather(*(self._write(writer) for _, writer in streams))
        except TimeoutError:
            pass
        self.result.seconds = time.perf_counter() - self._start
        for _, writer in streams:
            writer.close()
        return self.result

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        while not self._finished():
            if not self._is_due():
                await asyncio.sleep(CLOSED_TICK_SECONDS / 20)
                continue
            index = self.result.sent
            self.result.sent += 1
            writer.write(self._body(index))
            await writer.drain()
            self.result.statuses[TAKEN] += 1
            self.result.accepted_events += self._size_of(index)

    def _is_due(self) -> bool:
        now = time.perf_counter() - self._start
        return self.result.sent < self._schedule.due_by(now) if self._schedule else self._may_send()

    def _finished(self) -> bool:
        if self._schedule is not None:
            return self.result.sent >= self._schedule.total
        return time.perf_counter() - self._start >= self._seconds
