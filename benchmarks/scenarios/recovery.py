"""A restart with a backlog in the journal: until it accepts, until it has recovered, until the first dispatch."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench, tell
from benchmarks.processes import Failed, Running
from benchmarks.result import Subject
from benchmarks.scenarios.memory import feed
from benchmarks.sinks import get
from benchmarks.systems import Place, System, serve
from benchmarks.variant import Variant, engine_config
from engine.adapters.segments import SegmentJournal
from engine.adapters.sqlite import SqliteJournal
from engine.ports import Journal

EVENTS = 1_000_000
STANDSTILL = 0.001  # requests a second while the backlog is made: none, for practical purposes
POLL_SECONDS = 0.005
READ_EVENTS = 2_000
DISPATCH_SECONDS = 120.0


async def recovery(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    """Seconds from the start of the process, the interpreter and all imports included, except the scan."""
    events, found = bench.options.size or EVENTS, []
    for variant in variants:
        for backlog, kill in ((0, False), (events, False), (events, True)):
            how = f"{backlog:,} events, predecessor {'killed' if kill else 'stopped'}"
            tell(f"recovery: {how}")
            figures = await _measure(bench, variant, backlog, kill=kill)
            found.append(Subject(scenario="recovery", system=f"{variant.name}, {how}", figures=figures))
    return found


async def _measure(bench: Bench, variant: Variant, events: int, *, kill: bool) -> dict[str, float]:
    """`kill`: the predecessor is killed, so that attempts of its own might still be travelling."""
    place = bench.place("recovery")
    backlog = await _backlog(bench, variant, place, events, kill=kill)
    figures: dict[str, float] = {"backlog_events": backlog}
    data = place.directory / variant.name / "var"
    if backlog and not kill and data.is_dir():
        figures["scan_alone_seconds"] = round(await scanned(data), 3)
    await bench.sink.reset()
    started = time.monotonic()
    with serve(variant, engine_config(bench.sink.url), place) as process:
        return figures | await _watch(bench, process, started)


async def _backlog(bench: Bench, variant: Variant, place: Place, events: int, *, kill: bool) -> int:
    made = 0
    with serve(variant, engine_config(bench.sink.url, rate=STANDSTILL, burst=2), place) as process:
        if events:
            made = await feed(bench, _system(process), events)
        if kill:
            os.kill(process.pid, signal.SIGKILL)
    return made


def _system(process: Running) -> System:
    return System(name="engine", url=process.url, pids=[process.pid], engine=True)


async def _watch(bench: Bench, process: Running, started: float) -> dict[str, float]:
    await feed(bench, _system(process), 1)
    found = {"accepting_seconds": _since(started)}
    while len(found) < 3:
        if _since(started) > DISPATCH_SECONDS:
            raise Failed(f"nothing was dispatched within {DISPATCH_SECONDS:.0f} s")
        status = await get(bench.session, f"{process.url}/v1/status")
        if "recovered_seconds" not in found and not status["recovering"]:
            found["recovered_seconds"] = _since(started)
        if "first_dispatch_seconds" not in found and (await bench.sink.stats()).requests:
            found["first_dispatch_seconds"] = _since(started)
        await asyncio.sleep(POLL_SECONDS)
    return found


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


async def scanned(data: Path) -> float:
    """Seconds to read every event of the journal in a data directory that nobody has open."""
    database = data / "journal.db"
    journal: Journal = (
        SqliteJournal(database, max_bytes=1 << 40) if database.exists() else SegmentJournal(data, max_bytes=1 << 40)
    )
    started = time.monotonic()
    tail = await journal.open()
    position = tail.first
    while appends := await journal.read(position, READ_EVENTS):
        position = appends[-1].first + len(appends[-1].events)
    seconds = time.monotonic() - started
    await journal.close()
    return seconds
