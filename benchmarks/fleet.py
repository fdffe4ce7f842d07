"""``python -m benchmarks.fleet``: what an event costs with 1, 10 and 100 destinations on one account.

Every destination gets every event, so the work grows with their number: CPU is shown by event and destination, and
memory is what the process has at most, beside what it has with nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.feed import feed
from benchmarks.processes import Failed, engine, folder, run_async, sandbox
from benchmarks.watch import get, idle
from engine.bench.machine import cpu_seconds, machine, memory_bytes, peak_memory_bytes
from engine.bench.report import console, plain_table

DELIVERIES, SIZES = 100_000, (1, 10, 100)
POLL_SECONDS, LONGEST_SECONDS = 0.1, 300.0

HEAD = """\
[ingress]
port = 0

[[account]]
name = "fleet"
environment = "sandbox"
base_url = "{sandbox}"

[account.rate]
requests_per_second = 50_000
burst = 500
max_concurrency = 32

[log]
level = "warning"
"""

ONE = """
[[destination]]
name = "city{number}"
event_code = "show{number}"
encoding = "array"
"""


class Found(msgspec.Struct, frozen=True):
    """CPU is of the engine's process, microseconds by event and destination."""

    destinations: int
    events: int
    cpu_us: float
    deliveries_per_second: float
    idle_mb: float
    peak_mb: float


async def measure(directory: Path, destinations: int, deliveries: int) -> Found:
    events = deliveries // destinations
    with sandbox(directory) as target:
        config = HEAD.format(sandbox=target.url) + "".join(ONE.format(number=it) for it in range(destinations))
        with engine(directory / f"engine-{destinations}", config) as process:
            async with aiohttp.ClientSession() as session:
                await idle(process.pid)
                at_rest, cpu, started = memory_bytes(process.pid), cpu_seconds(process.pid), time.monotonic()
                accepted = await feed(process.url, events)
                await _settled(session, process.url)
                seconds = time.monotonic() - started
                await idle(process.pid)
                cpu = cpu_seconds(process.pid) - cpu
                if not (audit := await get(session, f"{process.url}/v1/audit"))["ok"]:
                    raise Failed(f"the audit found: {audit['problems']}")
                done = accepted * destinations
                peak = peak_memory_bytes(process.pid)
                return Found(destinations, accepted, cpu / done * 1e6, done / seconds, at_rest / 1e6, peak / 1e6)


async def _settled(session: aiohttp.ClientSession, url: str) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while any(one["counts"]["pending"] for one in (await get(session, f"{url}/v1/destinations"))["destinations"]):
        if time.monotonic() > deadline:
            raise Failed(f"events are still pending after {LONGEST_SECONDS:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


def table(found: list[Found]) -> object:
    headers = ("destinations", "events", "CPU us / event and destination", "deliveries/s", "idle MB", "peak MB")
    rows = [
        (
            str(it.destinations),
            f"{it.events:,}",
            f"{it.cpu_us:.1f}",
            f"{it.deliveries_per_second:,.0f}",
            f"{it.idle_mb:.0f}",
            f"{it.peak_mb:.0f}",
        )
        for it in found
    ]
    return plain_table("One account, every event to every destination", headers, rows)


async def run(directory: Path, deliveries: int) -> list[Found]:
    return [await measure(directory, size, deliveries) for size in SIZES]


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    add = arguments.add_argument
    add("--deliveries", type=int, default=DELIVERIES, metavar="N", help=f"of each run ({DELIVERIES:,})")
    add("--dir", metavar="PATH", help="where the data goes (default: the temporary folder)")
    add("--json", metavar="FILE", type=Path, help="write what was found there as well")
    return arguments


def main() -> int:
    options = parser().parse_args()
    try:
        with folder(options.dir) as directory:
            named = machine(directory).line()
            found = run_async(run(directory, options.deliveries))
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console().print(named, table(found), sep="\n")
    if options.json:
        options.json.write_bytes(msgspec.json.encode(found) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
