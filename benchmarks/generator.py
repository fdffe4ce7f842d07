"""The load generator as a process: ``python -m benchmarks.generator``; a job a line on stdin, what came on stdout.

Requests leave when they are due, whatever the answers do (open loop), or as soon as a connection is free (closed loop).
A closed loop stays a little ahead of what the sink has stored, no more: an acknowledgement comes before the delivery,
so that it would only measure how fast a journal fills.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from benchmarks.lines import Lines
from benchmarks.processes import run_async
from benchmarks.shapes import Shape
from benchmarks.sink import Stats
from engine.bench.histogram import Histogram
from engine.bench.load import MOST_REQUESTS, Load, LoadResult
from engine.bench.pacing import Schedule
from engine.bench.wire import Site

POLL_SECONDS = 0.02
AHEAD_SECONDS, LEAST_AHEAD_EVENTS, LEAST_AHEAD_REQUESTS = 0.4, 1_000, 20


class Job(msgspec.Struct, kw_only=True):
    """One phase. `per_second`: requests, 0 for a closed loop. `sink` "": a closed loop need not wait for deliveries."""

    url: str
    shape: Shape
    connections: int
    seconds: float
    path: str = "/v1/profiles"
    per_second: float = 0.0
    requests: int = MOST_REQUESTS
    sink: str = ""
    lines: bool = False  # over plain TCP, for what has no HTTP source


class Done(msgspec.Struct, kw_only=True):
    """`started_at`: CLOCK_MONOTONIC. `late`: how long after it was due a request left, seconds."""

    started_at: float
    seconds: float
    requests: int
    events: int  # accepted
    sent: int
    refused: int
    failed: int
    unsent: int
    cpu_seconds: float
    ack_counts: dict[int, int]
    ack_total: float
    ack_longest: float
    late_p99: float
    error: str = ""

    @property
    def acks(self) -> Histogram:
        return Histogram.of(self.ack_counts, self.ack_total, self.ack_longest)


class Ahead:
    """How far a closed loop may run ahead of the sink."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._least = max(LEAST_AHEAD_EVENTS, LEAST_AHEAD_REQUESTS * job.shape.events_per_request)
        self._allowed, self._stored = self._least, 0
        self.result: LoadResult | None = None

    def may_send(self) -> bool:
        if not self._job.sink or self.result is None:
            return True
        return self.result.sent * self._job.shape.events_per_request - self._stored < self._allowed

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        if not self._job.sink:
            yield
            return
        async with aiohttp.ClientSession() as session:
            task = asyncio.create_task(self._watch(session))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait({task})

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            async with session.get(f"{self._job.sink}/_sink/stats") as response:
                self._stored = self._covered(msgspec.json.decode(await response.read(), type=Stats))
            per_second = self._stored / (loop.time() - started + 0.1)
            self._allowed = max(self._least, AHEAD_SECONDS * per_second)
            await asyncio.sleep(POLL_SECONDS)

    def _covered(self, stats: Stats) -> int:
        """Events that are delivered, by themselves or in a newer one of their person."""
        return stats.newest + 1 if self._job.shape.repeated else stats.records


async def run(job: Job) -> Done:
    """Raises OSError when nobody listens."""
    before = _cpu_seconds()
    schedule = Schedule(job.per_second, job.seconds) if job.per_second else None
    ahead = Ahead(job)
    load = _load(job, schedule, ahead)
    ahead.result = load.result
    async with ahead.watched():
        result = await load.run()
    return _done(job, result, _cpu_seconds() - before)


def _load(job: Job, schedule: Schedule | None, ahead: Ahead) -> Load | Lines:
    options = {"connections": job.connections, "seconds": job.seconds, "schedule": schedule}
    site = Site.of(job.url, job.path, headers=job.shape.headers)
    if job.lines:
        return Lines(site, job.shape.body, job.shape.size_of, may_send=ahead.may_send, **options)  # type: ignore[arg-type]
    return Load(
        site,
        job.shape.body,
        job.shape.size_of,
        requests=job.requests,
        may_send=ahead.may_send,
        **options,  # type: ignore[arg-type]
    )


def _done(job: Job, result: LoadResult, cpu: float) -> Done:
    return Done(
        started_at=result.started_monotonic,
        seconds=result.seconds,
        requests=result.accepted,
        events=result.accepted_events,
        sent=result.sent,
        refused=result.refused,
        failed=result.failed,
        unsent=result.unsent,
        cpu_seconds=cpu,
        ack_counts=result.acks.counts(),
        ack_total=result.acks.total_seconds,
        ack_longest=result.acks.longest_seconds,
        late_p99=result.late.quantile(0.99),
    )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def serve() -> None:
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    sys.stdout.write('{"ready":true}\n')
    sys.stdout.flush()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        try:
            said = msgspec.json.encode(await run(msgspec.json.decode(line, type=Job)))
        except OSError as error:
            said = msgspec.json.encode({"error": f"nobody answers there ({error.strerror or error})"})
        sys.stdout.buffer.write(said + b"\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run_async(serve())
