"""``python -m benchmarks.recovery``: from start to accepting and to the first dispatch, with a backlog."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.feed import feed
from benchmarks.processes import Failed, Running, config_text, engine, folder, run_async, sandbox
from benchmarks.watch import get
from engine.adapters.sqlite import SqliteJournal
from engine.bench.machine import machine
from engine.bench.report import console, plain_table

EVENTS = 100_000
STANDSTILL = 0.001  # requests a second while the backlog is made: none, for practical purposes
POLL_SECONDS = 0.005
READ_EVENTS = 2_000
DISPATCH_SECONDS = 120.0


class Found(msgspec.Struct, frozen=True):
    """Seconds from the start of the process, the interpreter and all imports included, except `scan`."""

    events: int
    after: str  # how its predecessor ended
    accepting: float
    recovered: float
    first_dispatch: float
    scan: float  # reading and decoding the same journal and nothing else


async def measure(directory: Path, events: int, *, kill: bool) -> Found:
    """`kill`: the predecessor is killed, so that attempts of its own might still be travelling."""
    home = directory / f"{'killed' if kill else 'stopped'}-{events}"
    with sandbox(directory) as sink:
        backlog = 0
        with engine(home, config_text(sink.url, rate=STANDSTILL, burst=2, encoding="array")) as process:
            if events:
                backlog = await feed(process.url, events)
            if kill:
                os.kill(process.pid, signal.SIGKILL)
        scan = await scanned(home / "var" / "journal.db") if not kill else 0.0
        started = time.monotonic()
        with engine(home, config_text(sink.url, encoding="array")) as process:
            async with aiohttp.ClientSession() as session:
                return await _watch(session, process, sink.url, started, backlog, scan, kill)


async def _watch(
    session: aiohttp.ClientSession, process: Running, sink: str, started: float, events: int, scan: float, kill: bool
) -> Found:
    await feed(process.url, 1)
    accepting = time.monotonic() - started
    recovered = first_dispatch = 0.0
    while not (recovered and first_dispatch):
        elapsed = time.monotonic() - started
        if elapsed > DISPATCH_SECONDS:
            raise Failed(f"nothing was dispatched within {DISPATCH_SECONDS:.0f} s")
        if not recovered and not (await get(session, f"{process.url}/v1/status"))["recovering"]:
            recovered = time.monotonic() - started
        if not first_dispatch and (await get(session, f"{sink}/_sandbox/stats"))["store_requests"]:
            first_dispatch = time.monotonic() - started
        await asyncio.sleep(POLL_SECONDS)
    return Found(events, "kill -9" if kill else "stop", accepting, recovered, first_dispatch, scan)


async def scanned(file: Path) -> float:
    """Seconds to read every event of a journal that nobody has open."""
    journal = SqliteJournal(file, max_bytes=1 << 40)
    started = time.monotonic()
    tail = await journal.open()
    position = tail.first
    while appends := await journal.read(position, READ_EVENTS):
        position = appends[-1].first + len(appends[-1].events)
    seconds = time.monotonic() - started
    await journal.close()
    return seconds


def table(found: list[Found]) -> object:
    headers = ("backlog", "predecessor", "accepting s", "recovered s", "first dispatch s", "scan alone s")
    rows = [
        (
            f"{it.events:,}",
            it.after,
            f"{it.accepting:.2f}",
            f"{it.recovered:.2f}",
            f"{it.first_dispatch:.2f}",
            f"{it.scan:.2f}" if it.scan else "-",
        )
        for it in found
    ]
    return plain_table("From the start of the process", headers, rows)


async def run(directory: Path, events: int) -> list[Found]:
    found = []
    for backlog, kill in ((0, False), (events, False), (events, True)):
        print(f"  {backlog:,} events, predecessor {'killed' if kill else 'stopped'} ...", file=sys.stderr, flush=True)
        found.append(await measure(directory, backlog, kill=kill))
    return found


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    add = arguments.add_argument
    add("--events", type=int, default=EVENTS, metavar="N", help=f"backlog ({EVENTS:,})")
    add("--dir", metavar="PATH", help="where the data goes (default: the temporary folder)")
    add("--json", metavar="FILE", type=Path, help="write what was found there as well")
    return arguments


def main() -> int:
    options = parser().parse_args()
    with folder(options.dir) as directory:
        named = machine(directory).line()
        found = run_async(run(directory, options.events))
    console().print(named, table(found), sep="\n")
    if options.json:
        options.json.write_bytes(msgspec.json.encode(found) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
