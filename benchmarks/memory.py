"""``python -m benchmarks.memory``: what a pending profile costs in memory beside its content.

Once in the coalescer alone, once in an engine whose destination is paused, so that all it accepts stays pending.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.feed import feed, workload
from benchmarks.processes import Failed, config_text, engine, folder, run_async, running, sandbox
from benchmarks.watch import get
from engine.bench.machine import machine, memory_bytes
from engine.bench.report import console, plain_table
from engine.core.coalescer import Coalescer
from engine.model import Lane
from engine.profiles.formats import Reader
from engine.profiles.mapping import merge_contents

FIRST_BYTES, GOAL_BYTES = 600, 300
PROFILES, PROFILES_END_TO_END = 1_000_000, 200_000
WARM_UP = 5_000


class Found(msgspec.Struct, frozen=True):
    """Bytes a profile."""

    where: str
    profiles: int
    content: float
    resident: float

    @property
    def overhead(self) -> float:
        return self.resident - self.content


def in_coalescer(profiles: int) -> Found:
    """Resident memory of this process before and after `profiles` different people have been added."""
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10_000)
    coalescer, people = Coalescer(merge_contents), workload()
    content = offset = added = 0
    before = _resident()
    for request in range(-(-profiles // people.events_per_request)):
        for event in reader.read(people.body(request), "application/json").events:
            coalescer.add(event, offset, Lane.LIVE, float(request))
            content += len(event.content)
            offset += 1
    added = len(coalescer)
    return Found("coalescer alone", added, content / added, (_resident() - before) / added)


def _resident() -> int:
    gc.collect()
    return memory_bytes(os.getpid())


async def end_to_end(directory: Path, profiles: int) -> Found:
    """Resident memory of an engine with a paused destination."""
    with sandbox(directory) as sink, engine(directory / "engine", config_text(sink.url, ledger=True)) as process:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{process.url}/v1/destinations/bench/pause", json={}):
                pass
            warm = await feed(process.url, WARM_UP)
            before = memory_bytes(process.pid)
            added = await feed(process.url, profiles)
            grown = memory_bytes(process.pid) - before
            waiting = (await get(session, f"{process.url}/v1/destinations"))["destinations"][0]["waiting"]
    if waiting != warm + added:
        raise Failed(f"{waiting:,} profiles wait, not {warm + added:,}")
    content = len(workload(1).body(0)) - 1
    return Found("engine, destination paused", added, content, grown / added)


def table(found: list[Found]) -> object:
    headers = ("where", "pending profiles", "content B", "resident B", "overhead B", f"<= {FIRST_BYTES}")
    rows = [
        (
            it.where,
            f"{it.profiles:,}",
            f"{it.content:.0f}",
            f"{it.resident:.0f}",
            f"{it.overhead:.0f}",
            "✔" if it.overhead <= FIRST_BYTES else "✘",
        )
        for it in found
    ]
    return plain_table(
        f"Memory a pending profile (first target content + {FIRST_BYTES} B, goal + {GOAL_BYTES})", headers, rows
    )


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    add = arguments.add_argument
    add("--profiles", type=int, default=PROFILES, metavar="N", help=f"in the coalescer alone ({PROFILES:,})")
    add(
        "--end-to-end",
        type=int,
        default=PROFILES_END_TO_END,
        metavar="N",
        help=f"in an engine ({PROFILES_END_TO_END:,})",
    )
    add("--dir", metavar="PATH", help="where the data goes (default: the temporary folder)")
    add("--json", metavar="FILE", type=Path, help="write what was found there as well")
    add("--coalescer-only", action="store_true", help=argparse.SUPPRESS)  # how this starts its own child
    return arguments


def main() -> int:
    options = parser().parse_args()
    if options.coalescer_only:
        sys.stdout.buffer.write(msgspec.json.encode(in_coalescer(options.profiles)) + b"\n")
        return 0
    with folder(options.dir) as directory:
        arguments = ["-m", "benchmarks.memory", "--coalescer-only", "--profiles", str(options.profiles)]
        with running(arguments, directory / "coalescer.log") as process:
            alone = msgspec.convert(process.said, Found)
        found = [alone, run_async(end_to_end(directory, options.end_to_end))]
        console().print(machine(directory).line(), table(found), sep="\n")
    if options.json:
        options.json.write_bytes(msgspec.json.encode(found) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
