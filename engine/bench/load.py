"""The load generator: closed loop for throughput, open loop for latency, both bounded in count and time."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from engine.bench.histogram import Histogram
from engine.bench.pacing import Schedule
from engine.bench.ticker import ticking
from engine.bench.wire import LOST, Answer, Connection, Site, connect

ACCEPTED = (200, 201, 202)
BUSY = (429, 503)
CLOSED_TICK_SECONDS = 0.02
GRACE_SECONDS = 5.0
"""How long answers may take after the last request is due."""

SHORTEST_REST_SECONDS, LONGEST_REST_SECONDS = 0.1, 5.0
RECONNECTS = 100
MOST_REQUESTS = 10_000_000


class LoadResult(msgspec.Struct):
    """What came of one phase. `acks`: from the moment a request was due to its answer, accepted ones only."""

    seconds: float = 0.0  # from the first request to the last answer
    started_at: float = 0.0  # epoch seconds of the first request
    started_monotonic: float = 0.0  # the same moment by the clock that all processes of a machine share
    sent: int = 0
    unsent: int = 0  # due, but no connection was free in time
    statuses: Counter[int] = msgspec.field(default_factory=Counter)
    accepted_events: int = 0
    acks: Histogram = msgspec.field(default_factory=Histogram)
    late: Histogram = msgspec.field(default_factory=Histogram)  # open loop: from due to sent

    @property
    def accepted(self) -> int:
        """Requests that were taken."""
        return sum(self.statuses[status] for status in ACCEPTED)

    @property
    def refused(self) -> int:
        """Requests that were asked to come again later."""
        return sum(self.statuses[status] for status in BUSY)

    @property
    def failed(self) -> int:
        """Requests with any other answer, or none."""
        return sum(self.statuses.values()) - self.accepted - self.refused

    @property
    def events_per_second(self) -> float:
        return self.accepted_events / self.seconds if self.seconds else 0.0


class Load:
    """One phase of load.

    With a `schedule` requests are due whatever the answers do (open loop); without one every connection sends its next
    request as soon as it has its answer (closed loop), for `seconds`, at most `requests` of them, and only while
    `may_send()`. Who is told 429 or 503 in the closed loop rests as long as it was asked to. `events_per_request` may
    say it for each request by its number.
    """

    def __init__(
        self,
        site: Site,
        body: Callable[[int], bytes],
        events_per_request: int | Callable[[int], int],
        *,
        connections: int,
        seconds: float,
        schedule: Schedule | None = None,
        requests: int = MOST_REQUESTS,
        may_send: Callable[[], bool] = lambda: True,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.result = LoadResult()
        self._events = events_per_request
        self._site, self._body, self._trust = site, body, trust
        self._wanted, self._seconds, self._schedule = connections, seconds, schedule
        self._requests, self._may_send = requests, may_send
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._due: dict[Connection, tuple[float, int]] = {}  # when it was due, and which one it is
        self._resting: set[asyncio.TimerHandle] = set()
        self._reconnects = 0
        self._start = 0.0
        self._last = 0.0
        self._over = asyncio.Event()

    async def run(self) -> LoadResult:
        """Raises OSError when the first connections cannot be made."""
        tick_seconds = self._schedule.tick_seconds() if self._schedule else CLOSED_TICK_SECONDS
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._all.update(await asyncio.gather(*(connect(self._site, self._trust) for _ in range(self._wanted))))
                self._idle.extend(self._all)
                self._begin()
                with ticking(tick_seconds, self._pump):
                    self._pump()
                    await self._until_over()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._close()
        self._sum_up()
        return self.result

    def _begin(self) -> None:
        self._start, self.result.started_at = time.perf_counter(), time.time()
        self.result.started_monotonic = time.monotonic()

    async def _until_over(self) -> None:
        try:
            async with asyncio.timeout(self._seconds + GRACE_SECONDS):
                await self._over.wait()
        except TimeoutError:
            self._over.set()

    def _sum_up(self) -> None:
        result = self.result
        result.seconds = max(self._last, 1e-9)
        result.statuses[LOST] += len(self._due)  # no answer within the grace
        if self._schedule is not None:
            result.unsent = self._schedule.total - result.sent

    def _close(self) -> None:
        self._over.set()
        for handle in self._resting:
            handle.cancel()
        for connection in list(self._all):
            connection.close()

    # -- sending --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send whatever may be sent now."""
        now = time.perf_counter() - self._start
        while self._idle and not self._over.is_set() and (due := self._next_due(now)) is not None:
            self._send(self._idle.pop(), due)
        if self._finished(now):
            self._over.set()

    def _next_due(self, now: float) -> float | None:
        """When the next request was due, None if none is yet."""
        schedule = self._schedule
        if schedule is not None:
            return schedule.due_at(self.result.sent) if self.result.sent < schedule.due_by(now) else None
        free = now < self._seconds and self.result.sent < self._requests and self._may_send()
        return time.perf_counter() - self._start if free else None

    def _finished(self, now: float) -> bool:
        if self._due:
            return False
        if self._schedule is not None:
            return self.result.sent >= self._schedule.total
        return now >= self._seconds or self.result.sent >= self._requests

    def _send(self, connection: Connection, due: float) -> None:
        index = self.result.sent
        self.result.sent += 1
        self._due[connection] = due, index
        if self._schedule is not None:
            self.result.late.add(time.perf_counter() - self._start - due)
        connection.post(self._body(index), self._done)

    def _done(self, connection: Connection, answer: Answer) -> None:
        self._last = time.perf_counter() - self._start
        due, index = self._due.pop(connection)
        if not self._over.is_set():
            self._count(answer.status, due, index)
        self._free(connection, answer)
        self._pump()

    def _count(self, status: int, due: float, index: int) -> None:
        self.result.statuses[status] += 1
        if status in ACCEPTED:
            self.result.acks.add(self._last - due)
            self.result.accepted_events += self._events if isinstance(self._events, int) else self._events(index)

    def _free(self, connection: Connection, answer: Answer) -> None:
        if self._over.is_set():
            return
        if not connection.open:
            self._all.discard(connection)
            self._tasks.create_task(self._reconnect())
        elif answer.status in BUSY and self._schedule is None:
            self._rest(connection, answer.retry_after_seconds)
        else:
            self._idle.append(connection)

    def _rest(self, connection: Connection, seconds: float) -> None:
        def back() -> None:
            self._resting.discard(handle)
            self._idle.append(connection)
            self._pump()

        rest = min(LONGEST_REST_SECONDS, max(SHORTEST_REST_SECONDS, seconds))
        handle = asyncio.get_running_loop().call_later(rest, back)
        self._resting.add(handle)

    async def _reconnect(self) -> None:
        """A connection that broke is replaced, a bounded number of times; a server that is gone ends the phase."""
        self._reconnects += 1
        try:
            connection = await connect(self._site, self._trust) if self._reconnects <= RECONNECTS else None
        except OSError:
            connection = None
        if connection is None:
            if not self._due and not self._idle and not self._resting:
                self._over.set()
            return
        self._all.add(connection)
        if self._over.is_set():
            connection.close()
            return
        self._idle.append(connection)
        self._pump()
