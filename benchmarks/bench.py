"""Phases of load on a system: closed loop for throughput and cost, open loop for latency. Figures or a reason."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.accounting import Accounts, shares
from benchmarks.cores import Cores
from benchmarks.generator import Done, Job
from benchmarks.judging import arrived, delivery_times, reached
from benchmarks.processes import Failed, Running
from benchmarks.result import MICRO, MILLI, Phase, Quantiles
from benchmarks.shapes import Shape
from benchmarks.sink import Stats
from benchmarks.sinks import SinkClient, generator_process, get
from benchmarks.systems import Place, System
from engine.bench.load import MOST_REQUESTS
from engine.bench.machine import cpu_seconds

STAYING = 400
"""What speaks no HTTP is never told that there is no more, and may keep its last incomplete lists."""

DRAIN_SECONDS = 60.0
IDLE_WINDOW_SECONDS, IDLE_SHARE, IDLE_SECONDS = 0.2, 0.1, 10.0
POLL_SECONDS = 0.025


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it. `seconds` is the length of every phase."""

    seconds: float = 2.5
    warm_up_seconds: float = 1.0
    repeats: int = 3
    loads: tuple[float, ...] = (0.3, 0.6, 0.9)
    connections: int = 32
    size: int = 0  # of what has one (events, profiles, destinations); 0: its own
    peers: bool = True
    directory: str | None = None  # where the data goes; None: where the system keeps temporary files


QUICK = Options(seconds=0.8, warm_up_seconds=0.3, repeats=1, loads=(0.6,))
"""For a smoke test: no figure worth keeping."""


class Bench:
    """The instrument: a sink, a generator, and the cores they run on."""

    def __init__(
        self,
        options: Options,
        session: aiohttp.ClientSession,
        directory: Path,
        cores: Cores,
        sink: Running,
        generator: Running,
    ) -> None:
        self.options, self.session, self.directory, self.cores = options, session, directory, cores
        self.sink = SinkClient(session, sink)
        self._generator = generator

    def place(self, name: str) -> Place:
        """A new folder, the sink, the cores of the system."""
        directory = self.directory / f"{name}-{secrets.token_hex(3)}"
        directory.mkdir()
        return Place(directory, self.sink.url, self.cores)

    async def warm_up(self, system: System, shape: Shape, latency_ms: float = 0.0) -> None:
        """Raises Failed when nothing comes through."""
        phase = await self.saturate(system, shape, self.options.warm_up_seconds, latency_ms)
        if phase.status != "ok":
            raise Failed(f"it did not warm up: {phase.reason}")

    # -- closed loop ----------------------------------------------------------------------------------------------

    async def saturate(
        self, system: System, shape: Shape, seconds: float = 0.0, latency_ms: float = 0.0, requests: int = MOST_REQUESTS
    ) -> Phase:
        """As fast as it goes, until the last event is stored; CPU until the system has nothing left to do."""
        await self.sink.reset(latency_ms)
        job = self.job(system, fresh(shape), seconds=seconds or self.options.seconds, requests=requests)
        if system.delivers:
            job.sink = self.sink.url
        with self._measured(system) as measured:
            done = await self.generate(job)
            await self._delivered(system, done)
            measured.delivered()
            await self.settle(system)
        stats = await self.sink.stats()
        ran = stats.last_at - done.started_at if system.delivers else done.seconds
        return arrived(_phase(done, max(ran, 1e-9), measured, stats), shape, system, stats)

    # -- open loop ------------------------------------------------------------------------------------------------

    async def offer(
        self,
        system: System,
        shape: Shape,
        events_per_second: float,
        seconds: float = 0.0,
        latency_ms: float = 0.0,
        same_people: bool = False,
        away_seconds: float = 0.0,
    ) -> Phase:
        """Requests at fixed times; the sink may be away at first. Without figures when they were not taken."""
        await self.sink.reset(latency_ms)
        if away_seconds:
            await self.sink.down(away_seconds)
        shape = shape if same_people else fresh(shape)
        job = self.job(system, shape, seconds=seconds or self.options.seconds)
        job.per_second = events_per_second / shape.events_per_request
        with self._measured(system) as measured:
            done = await self.generate(job)
            await self._delivered(system, done)
            measured.delivered()
            await self.settle(system)
        stats, records = await self.sink.stats(), await self.sink.records()
        phase = _phase(done, job.seconds, measured, stats)
        phase.offered_per_second = round(events_per_second, 1)
        phase.sent_late_p99_ms = round(done.late_p99 * MILLI, 3)
        phase.delivered = Quantiles.of(delivery_times(shape, records, done.started_at, job.per_second))
        return arrived(reached(phase, done), shape, system, stats)

    # -- parts ----------------------------------------------------------------------------------------------------

    async def generate(self, job: Job, generator: Running | None = None) -> Done:
        """By another generator than the usual one, if it is to run beside it. Raises Failed."""
        said = await asyncio.to_thread((generator or self._generator).ask, msgspec.json.encode(job))
        try:
            return msgspec.json.decode(said, type=Done)
        except msgspec.ValidationError:
            raise Failed(str(msgspec.json.decode(said).get("error", said[:200]))) from None

    def job(
        self, system: System, shape: Shape, *, seconds: float, requests: int = MOST_REQUESTS, path: str = ""
    ) -> Job:
        return Job(
            url=system.url,
            path=path or system.path,
            shape=lines_of(shape) if system.lines else shape,
            connections=self.options.connections,
            seconds=seconds,
            requests=requests,
            lines=system.lines,
        )

    def second_generator(self) -> AbstractContextManager[Running]:
        return generator_process(self.directory, self.cores.instrument)

    async def _delivered(self, system: System, done: Done) -> None:
        """Wait until everything that was accepted is at the sink, if that is where it goes."""
        if not system.delivers:
            return
        if system.engine:
            await settled(self.session, system.url)
        else:
            await self.sink.until(done.events - (STAYING if system.lines else 0), DRAIN_SECONDS)

    async def settle(self, system: System) -> None:
        for pid in system.pids:
            await idle(pid)

    @contextmanager
    def _measured(self, system: System) -> Iterator[Measured]:
        measured = Measured(Accounts(system.pids, self.sink.pid, self._generator.pid))
        yield measured
        measured.end()


class Measured:
    """CPU and memory of one phase."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        accounts.watch_peak()
        self._before = self._last_event = self._after = accounts.now()
        self.peak_bytes = 0

    def delivered(self) -> None:
        self._last_event = self._accounts.now()

    def end(self) -> None:
        self._after = self._accounts.now()
        self.peak_bytes = self._accounts.peak_bytes()

    @property
    def cpu_seconds(self) -> float:
        return self._after.system - self._before.system

    @property
    def shares(self) -> dict[str, float]:
        return shares(self._before, self._last_event)


def _phase(done: Done, seconds: float, measured: Measured, stats: Stats) -> Phase:
    phase = Phase(
        events=done.events,
        requests=done.requests,
        seconds=round(seconds, 3),
        events_per_second=round(done.events / seconds, 1),
        cpu_share=measured.shares,
        peak_memory_bytes=measured.peak_bytes,
        ack=Quantiles.of(done.acks),
        refused=done.refused,
        failed=done.failed,
        unsent=done.unsent,
        stored_profiles=stats.records,
        store_requests=stats.requests,
    )
    if not done.events:
        phase.status, phase.reason = "not measured", "no event was accepted"
    elif measured.cpu_seconds:
        phase.cpu_us_per_event = round(measured.cpu_seconds / done.events * MICRO, 2)
    return phase


def fresh(shape: Shape) -> Shape:
    """Of people that no phase has met before."""
    return msgspec.structs.replace(shape, run=f"w{secrets.token_hex(6)}")


def lines_of(shape: Shape) -> Shape:
    """The same events for what takes a line each."""
    return msgspec.structs.replace(shape, format="ndjson", compression="")


async def settled(session: aiohttp.ClientSession, engine_url: str, within_seconds: float = DRAIN_SECONDS) -> None:
    """Wait until every event has its outcome. Raises Failed when that takes too long."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer = await get(session, f"{engine_url}/v1/destinations")
        pending = sum(it["counts"]["pending"] for it in answer["destinations"])
        if not pending:
            return
        if time.monotonic() > deadline:
            raise Failed(f"{pending:,} events still pending after {within_seconds:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


async def idle(pid: int) -> None:
    """Wait until a process has no work left in the background, within bounds."""
    deadline, used = time.monotonic() + IDLE_SECONDS, cpu_seconds(pid)
    while time.monotonic() < deadline:
        await asyncio.sleep(IDLE_WINDOW_SECONDS)
        before, used = used, cpu_seconds(pid)
        if used - before <= IDLE_SHARE * IDLE_WINDOW_SECONDS:
            return


def tell(what: str) -> None:
    print(f"  {what} ...", file=sys.stderr, flush=True)
