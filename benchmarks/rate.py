"""``python -m benchmarks.rate``: how much of a rate limit is used, and whether it is ever exceeded, at the sandbox."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from benchmarks.feed import feed
from benchmarks.processes import config_text, engine, folder, run_async, sandbox
from benchmarks.watch import Sink, get
from engine.bench.machine import cpu_seconds, machine
from engine.bench.report import console, plain_table

RATES = (10.0, 100.0, 1_000.0)
SECONDS = 10.0
USED_GOAL, CPU_GOAL = 0.99, 0.10


class Found(msgspec.Struct, frozen=True):
    """`used`: share of rate x time. `over`: windows of 1 s and 10 s with more than rate x window + burst."""

    rate: float
    burst: int
    requests: int
    used: float
    most_in_1_second: int
    over: int
    cpu_share: float  # of one core, all that the engine did meanwhile


async def measure(directory: Path, rate: float, seconds: float) -> Found:
    """One engine with a backlog that lasts longer than the measurement, single-profile requests."""
    burst = max(2, math.ceil(rate / 100))
    with sandbox(directory) as sink:
        config = config_text(sink.url, rate=rate, burst=burst, ledger=True)
        with engine(directory / f"rate-{rate:g}", config) as process:
            async with aiohttp.ClientSession() as session:
                await feed(process.url, max(50, math.ceil(rate * (seconds + 3) * 1.2)))
                await Sink(session, sink.url).reset()
                started, cpu = time.monotonic(), cpu_seconds(process.pid)
                await asyncio.sleep(seconds)
                cpu, elapsed = cpu_seconds(process.pid) - cpu, time.monotonic() - started
                seen = await get(session, f"{sink.url}/_sandbox/rate?rate={rate}&burst={burst}")
    return _found(seen, rate, burst, cpu / elapsed)


def _found(seen: dict[str, Any], rate: float, burst: int, cpu_share: float) -> Found:
    windows = seen["windows"]
    return Found(
        rate=rate,
        burst=burst,
        requests=seen["requests"],
        used=max(0, seen["measured"] - 1) / (rate * seen["span_seconds"]) if seen["span_seconds"] else 0.0,
        most_in_1_second=windows[0]["max"],
        over=sum(window["over"] for window in windows),
        cpu_share=cpu_share,
    )


def table(found: list[Found]) -> object:
    headers = ("requests/s", "burst", "requests", "used", f">= {USED_GOAL:.0%}", "most in 1 s", "windows over", "CPU")
    rows = [
        (
            f"{it.rate:g}",
            str(it.burst),
            f"{it.requests:,}",
            f"{it.used:.2%}",
            "✔" if it.used >= USED_GOAL else "✘",
            f"{it.most_in_1_second:,}",
            f"{it.over} {'✘' if it.over else '✔'}",
            f"{it.cpu_share:.1%}",
        )
        for it in found
    ]
    return plain_table("Use of the rate limit, seen from the sandbox", headers, rows)


async def run(directory: Path, rates: list[float], seconds: float) -> list[Found]:
    found = []
    for rate in rates:
        print(f"  {rate:g} requests/s for {seconds:g} s ...", file=sys.stderr, flush=True)
        found.append(await measure(directory, rate, seconds))
    return found


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.rate", description=__doc__)
    add = arguments.add_argument
    add("--rates", type=float, nargs="+", default=list(RATES), metavar="N", help="requests a second (10 100 1000)")
    add("--seconds", type=float, default=SECONDS, help=f"for each ({SECONDS:g})")
    add("--dir", metavar="PATH", help="where the data goes (default: the temporary folder)")
    add("--json", metavar="FILE", type=Path, help="write what was found there as well")
    return arguments


def main() -> int:
    options = parser().parse_args()
    with folder(options.dir) as directory:
        named = machine(directory).line()
        found = run_async(run(directory, options.rates, options.seconds))
    console().print(named, table(found), sep="\n")
    if options.json:
        options.json.write_bytes(msgspec.json.encode(found) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
