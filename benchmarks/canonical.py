"""The canonical workload: sandbox, engine and generator as three processes, every combination end to end.

For each encoding, ledger off and on, and 1, 10 and 100 events a request: a closed loop that says how fast it goes and
what it costs, then open loops at shares of that speed that say how long it takes.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec

from benchmarks import floors, peers
from benchmarks.processes import Running, config_text, engine, folder, running, sandbox
from benchmarks.watch import Backlog, Sink, idle, settled
from engine.bench.events import Workload
from engine.bench.load import Load, LoadResult
from engine.bench.machine import cpu_seconds, machine, peak_memory_bytes, reset_peak
from engine.bench.pacing import Schedule
from engine.bench.results import MICRO, Cell, Floors, Latency, Peer, Quantiles, Report
from engine.bench.targets import STEADY_LOAD
from engine.bench.wire import Site

SITE_PATH = "/v1/profiles"
STEADY_EVENTS_PER_SECOND, STEADY_EVENTS_PER_REQUEST = 2_000.0, 10
LINGER_MS = 20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it. `seconds` is the length of every phase."""

    encodings: tuple[str, ...] = ("single", "array")
    ledgers: tuple[bool, ...] = (False, True)
    events_per_request: tuple[int, ...] = (1, 10, 100)
    loads: tuple[float, ...] = (0.3, 0.6)
    peers: tuple[str, ...] = peers.KINDS
    seconds: float = 2.5
    warm_up_seconds: float = 0.5
    connections: int = 32
    directory: str | None = None  # where the data goes; None: where the system keeps temporary files


QUICK = Options(ledgers=(False,), loads=(0.6,), peers=("post-per-event",), seconds=0.8, warm_up_seconds=0.3)
"""For a smoke test: every part once, no figure worth keeping."""


class Canonical:
    """One run. `tell` hears what is being done."""

    def __init__(self, options: Options, session: aiohttp.ClientSession, directory: Path, sink: Running) -> None:
        self.options, self._session, self._directory = options, session, directory
        self._sink_process, self._sink = sink, Sink(session, sink.url)

    async def engine_cells(self, encoding: str, ledger: bool) -> list[Cell]:
        """All cells of one engine: it starts with an empty folder and goes with it."""
        name = f"{encoding}-{'ledger' if ledger else 'plain'}"
        config = config_text(self._sink_process.url, encoding=encoding, ledger=ledger, linger_ms=LINGER_MS)
        with engine(self._directory / name, config) as process:
            return [await self._cell(process, encoding, ledger, n) for n in self.options.events_per_request]

    async def _cell(self, process: Running, encoding: str, ledger: bool, n: int) -> Cell:
        _tell(f"{encoding}, ledger {'on' if ledger else 'off'}, {n} events a request")
        await self._closed(process.url, n, self.options.warm_up_seconds)
        await self._all_done(process)
        reset_peak(process.pid)
        before = cpu_seconds(process.pid)
        result, seconds = await self._closed(process.url, n, self.options.seconds)
        await self._all_done(process)
        events = result.accepted_events
        cell = Cell(
            encoding=encoding,
            ledger=ledger,
            events_per_request=n,
            events=events,
            seconds=round(seconds, 3),
            events_per_second=round(events / seconds, 1),
            cpu_us_per_event=_per_event(cpu_seconds(process.pid) - before, events),
            ack=Quantiles.of(result.acks),
            refused=result.refused,
            failed=result.failed,
        )
        cell.latencies = await self._latencies(process, cell)
        cell.peak_memory_bytes = peak_memory_bytes(process.pid)
        return cell

    async def _closed(self, url: str, n: int, seconds: float) -> tuple[LoadResult, float]:
        """As fast as it goes; the time until the last event was stored."""
        await self._sink.reset()
        workload, backlog = _workload(n), Backlog(self._sink, n)
        load = self._load(url, workload, seconds, may_send=backlog.may_send)
        backlog.result = load.result
        started = time.perf_counter()
        async with backlog.watched():
            result = await load.run()
        await self._sink.until(result.accepted_events)
        return result, time.perf_counter() - started

    async def _all_done(self, process: Running) -> None:
        await settled(self._session, process.url)
        await idle(process.pid)

    # -- open loop ------------------------------------------------------------------------------------------------

    async def _latencies(self, process: Running, cell: Cell) -> list[Latency]:
        loads = [(f"{share * 100:.0f} %", share * cell.events_per_second) for share in self.options.loads]
        if cell.events_per_request == STEADY_EVENTS_PER_REQUEST:
            loads.append((STEADY_LOAD, STEADY_EVENTS_PER_SECOND))
        return [await self._latency(process, cell.events_per_request, *load) for load in loads]

    async def _latency(self, process: Running, n: int, name: str, events_per_second: float) -> Latency:
        await self._sink.reset()
        workload, schedule = _workload(n), Schedule(events_per_second / n, self.options.seconds)
        result = await self._load(process.url, workload, self.options.seconds, schedule=schedule).run()
        await self._sink.until(result.accepted_events)
        delivered = await self._sink.delivered(workload, result, schedule)
        await self._all_done(process)
        late = result.refused + result.failed + result.unsent
        ack = Quantiles.of(result.acks)
        return Latency(name, round(events_per_second, 1), ack, Quantiles.of(delivered), late)

    def _load(self, url: str, workload: Workload, seconds: float, **options: object) -> Load:
        n, connections = workload.events_per_request, self.options.connections
        return Load(Site.of(url, SITE_PATH), workload.body, n, connections=connections, seconds=seconds, **options)  # type: ignore[arg-type]

    # -- beside it ------------------------------------------------------------------------------------------------

    async def peer(self, kind: str) -> list[Peer]:
        return [await self._peer(kind, n) for n in self.options.events_per_request]

    async def _peer(self, kind: str, n: int) -> Peer:
        _tell(f"peer {kind}, {n} events a request")
        directory = self._directory / f"{kind}-{n}"
        directory.mkdir()
        arguments = ["-m", "benchmarks.peers", kind, self._sink_process.url]
        with running(arguments, directory / "peer.log") as process:
            await self._closed(process.url, n, self.options.warm_up_seconds)
            await idle(process.pid)
            before = cpu_seconds(process.pid)
            result, seconds = await self._closed(process.url, n, self.options.seconds)
            events = result.accepted_events
            cpu = _per_event(cpu_seconds(process.pid) - before, events)
        return Peer(kind, n, round(events / seconds, 1), cpu, Quantiles.of(result.acks))

    async def floors(self) -> Floors:
        _tell("floors")
        found = await _floors_of_posts(self._sink_process.url, self.options.seconds, self._directory)
        return msgspec.structs.replace(found, fdatasync=floors.fdatasync(self._directory))


async def _floors_of_posts(url: str, seconds: float, directory: Path) -> Floors:
    """In a process of its own, so that its CPU time is nobody else's."""
    arguments = ["-m", "benchmarks.floors", url, str(seconds)]
    with running(arguments, directory / "floors.log") as process:
        return msgspec.convert(process.said, Floors)


def _workload(events_per_request: int) -> Workload:
    """People that no phase has met before."""
    return Workload(f"w{secrets.token_hex(6)}", events_per_request)


def _per_event(cpu: float, events: int) -> float | None:
    return round(cpu / events * MICRO, 2) if cpu and events else None


def _tell(what: str) -> None:
    print(f"  {what} ...", file=sys.stderr, flush=True)


async def run(options: Options) -> Report:
    """Raises Failed when a part does not start or does not finish."""
    started = time.monotonic()
    with folder(options.directory) as directory, sandbox(directory) as sink:
        report = Report(
            machine=machine(directory),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=_version(),
            settings={"linger_ms": LINGER_MS, "seconds": options.seconds, "connections": options.connections},
        )
        async with aiohttp.ClientSession() as session:
            canonical = Canonical(options, session, directory, sink)
            report.floors = await canonical.floors()
            for encoding, ledger in _engines(options):
                report.cells += await canonical.engine_cells(encoding, ledger)
            for kind in options.peers:
                report.peers += await canonical.peer(kind)
    report.seconds = round(time.monotonic() - started, 1)
    return report


def _engines(options: Options) -> Iterator[tuple[str, bool]]:
    for encoding in options.encodings:
        for ledger in options.ledgers:
            yield encoding, ledger


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rainfocus-engine")
    except PackageNotFoundError:
        return "0"
