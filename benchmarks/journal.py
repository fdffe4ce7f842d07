"""``python -m benchmarks.journal``: both journals on this disk, turn about, through the real commit stage.

Closed loop: each of so many producers hands in an append and waits for it to be durable. CPU is the kernel's account of
this process. Also: bytes written per byte of a body, what packing costs, and how fast a journal is read again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.parts import fdatasync
from benchmarks.processes import run_async
from engine.adapters.clock import SystemClock
from engine.adapters.segments import SegmentJournal
from engine.adapters.segments.layout import pack_append
from engine.adapters.sqlite import SqliteJournal
from engine.bench.events import Workload
from engine.bench.histogram import Histogram
from engine.bench.report import console, plain_table
from engine.core.codec import pack_events
from engine.core.drain_rate import DrainRate
from engine.metrics import Metrics
from engine.model import Append, Event, Trait
from engine.pipeline.commit import CommitStage
from engine.ports import Journal

SETTINGS = ((1, 32), (1, 256), (10, 64), (100, 32), (1_000, 8))
READ_EVENTS = 2_000
BODIES = 64


class Figure(msgspec.Struct, frozen=True):
    kind: str
    events_per_request: int
    producers: int
    events_per_second: float
    cpu_us_per_event: float
    p50_ms: float
    p99_ms: float


def journal_of(kind: str, directory: Path) -> Journal:
    if kind == "segments":
        return SegmentJournal(directory, max_bytes=1 << 40)
    return SqliteJournal(directory / "journal.db", max_bytes=1 << 40)


def events_of(number: int, request: int) -> list[Event]:
    workload = Workload("bench", number)
    contents = (
        [workload.body(request)] if number == 1 else msgspec.json.decode(workload.body(request), type=list[msgspec.Raw])
    )
    return [Event(hashlib.sha256(bytes(it)).digest(), bytes(it), int(Trait.EMAIL)) for it in contents]


@contextmanager
def folder(kind: str, parent: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"journal-{kind}-", dir=parent) as made:
        yield Path(made)


async def measure(kind: str, number: int, producers: int, seconds: float, parent: Path | None) -> Figure:
    requests = [events_of(number, request) for request in range(BODIES)]
    acknowledged, waits = 0, Histogram()
    with folder(kind, parent) as directory:
        journal = journal_of(kind, directory)
        await journal.open()
        stage = CommitStage(journal, lambda append: None, clock=SystemClock(), metrics=Metrics(), drain=DrainRate())
        running = asyncio.ensure_future(stage.run())
        started, cpu, ends = time.perf_counter(), time.process_time(), time.perf_counter() + seconds

        async def produce(nth: int) -> None:
            nonlocal acknowledged
            while (begun := time.perf_counter()) < ends:
                first = await stage.submit(Append(requests[nth % BODIES]))
                waits.add(time.perf_counter() - begun)
                acknowledged += number
                if first % 64 == 0:
                    journal.release(first - 200_000)

        await asyncio.gather(*(produce(nth) for nth in range(producers)))
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.close()
    return Figure(
        kind,
        number,
        producers,
        acknowledged / elapsed,
        cpu / acknowledged * 1e6,
        waits.quantile(0.5) * 1e3,
        waits.quantile(0.99) * 1e3,
    )


async def volume(kind: str, number: int, parent: Path | None) -> float:
    """Bytes stored per byte of a body. (What of that is written to the disk, and how often, is the file system's to
    say; the kernel's account of this process counts whole folios of the page cache.)"""
    requests = [events_of(number, request) for request in range(BODIES)]
    bodies = sum(len(event.content) for events in requests for event in events)
    if kind == "segments":
        return sum(pack_append(Append(events)).bytes for events in requests) / bodies
    with folder(kind, parent) as directory:
        journal = journal_of(kind, directory)
        await journal.open()
        before = journal.size().bytes
        for _ in range(max(1, 10_000_000 // bodies)):
            await journal.append([Append(events) for events in requests])
        await journal.probe()
        stored = journal.size().bytes - before
        await journal.close()
    return stored / (bodies * max(1, 10_000_000 // bodies))


async def recovery(kind: str, events: int, parent: Path | None) -> tuple[float, float]:
    """Seconds to open a journal of so many events, and to read and decode all of them."""
    requests = [events_of(100, request) for request in range(BODIES)]
    with folder(kind, parent) as directory:
        journal = journal_of(kind, directory)
        await journal.open()
        for _ in range(events // 5_000):
            await journal.append([Append(requests[nth % BODIES]) for nth in range(50)])
        await journal.close()
        started = time.perf_counter()
        journal = journal_of(kind, directory)
        tail = await journal.open()
        opened, position = time.perf_counter() - started, tail.first
        while appends := await journal.read(position, READ_EVENTS):
            position = appends[-1].first + len(appends[-1].events)
        read = time.perf_counter() - started - opened
        await journal.close()
    assert position == tail.next == events // 5_000 * 5_000
    return opened, read


def packing() -> dict[int, float]:
    """Microseconds of packing per event, by events per request."""
    found = {}
    for number in (1, 10, 100, 1_000):
        events, times = events_of(number, 0), max(1, 20_000 // number)
        rounds = []
        for _ in range(5):
            started = time.process_time()
            for _ in range(times):
                pack_events(events)
            rounds.append((time.process_time() - started) / times / number * 1e6)
        found[number] = min(rounds)
    return found


async def run(options: argparse.Namespace) -> None:
    out = console()
    floor = fdatasync(options.dir or Path(tempfile.gettempdir()))
    p50, p99 = (floor.quantile(share) * 1e3 for share in (0.5, 0.99))
    out.print(f"fdatasync of an appended 4 KiB block: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    out.print("packing, us per event: " + ", ".join(f"n={n}: {us:.2f}" for n, us in packing().items()))
    rows = []
    for number, producers in SETTINGS:
        pairs = [
            [await measure(kind, number, producers, options.seconds, options.dir) for kind in ("sqlite", "segments")]
            for _ in range(options.rounds)
        ]
        for nth in range(2):
            mine = [pair[nth] for pair in pairs]
            speed, cpu = median(it.events_per_second for it in mine), median(it.cpu_us_per_event for it in mine)
            rows.append(
                (
                    mine[0].kind,
                    str(number),
                    str(producers),
                    f"{speed:,.0f}",
                    f"{cpu:.2f}",
                    f"{median(it.p50_ms for it in mine):.2f}",
                    f"{median(it.p99_ms for it in mine):.2f}",
                )
            )
        faster = median(pair[1].events_per_second / pair[0].events_per_second for pair in pairs)
        cheaper = median(pair[0].cpu_us_per_event / pair[1].cpu_us_per_event for pair in pairs)
        rows.append(("ratio", str(number), str(producers), f"x {faster:.2f}", f"x {cheaper:.2f}", "", ""))
    heads = ("journal", "events a request", "producers", "events/s", "CPU us/event", "ack p50 ms", "p99 ms")
    out.print(plain_table("group commits, closed loop", heads, rows))
    for kind in ("sqlite", "segments"):
        parts = [f"n={number}: {await volume(kind, number, options.dir):.3f}" for number in (1, 10, 100)]
        out.print(f"{kind}, bytes stored per byte of a body: " + "; ".join(parts))
        opened, read = await recovery(kind, options.events, options.dir)
        out.print(
            f"{kind}, {options.events:,} events again: opened in {opened:.2f} s, read and decoded in {read:.2f} s"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    arguments.add_argument("--seconds", type=float, default=2.0, help="each measurement")
    arguments.add_argument("--rounds", type=int, default=3, help="of both journals, turn about")
    arguments.add_argument("--events", type=int, default=1_000_000, help="in the journal that is read again")
    arguments.add_argument("--dir", type=Path, help="where the data goes; choose a real disk")
    run_async(run(arguments.parse_args()))


if __name__ == "__main__":
    main()
