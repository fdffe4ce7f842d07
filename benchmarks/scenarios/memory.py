"""What a pending profile costs in memory beside its content: in the coalescer alone, and in a whole engine.

``python -m benchmarks.scenarios.memory PROFILES`` is the child that measures the coalescer alone.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

import msgspec

from benchmarks.bench import Bench, fresh
from benchmarks.processes import Failed, running
from benchmarks.result import Subject
from benchmarks.scenarios.traffic import out
from benchmarks.shapes import Shape
from benchmarks.sinks import get
from benchmarks.systems import System, engine_running
from benchmarks.variant import Variant, engine_config
from engine.bench.machine import memory_bytes
from engine.core.coalescer import Coalescer
from engine.model import Lane
from engine.profiles.formats import Reader
from engine.profiles.mapping import merge_contents

PROFILES = 1_000_000
WARM_UP = 5_000
PER_REQUEST = 500
FEED_SECONDS = 300.0


async def memory(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    profiles = bench.options.size or PROFILES
    found = [alone(bench, profiles)]
    for variant in variants:
        config = engine_config(bench.sink.url, ledger=True)
        with engine_running(variant, config, bench.place("memory")) as system:
            figures = await _paused(bench, system, profiles)
        found.append(Subject(scenario="memory", system=f"{variant.name}, destination paused", figures=figures))
    return found


def alone(bench: Bench, profiles: int) -> Subject:
    found = Subject(scenario="memory", system="coalescer alone")
    log = bench.place("coalescer").directory / "coalescer.log"
    try:
        with running(["-m", "benchmarks.scenarios.memory", str(profiles)], log, cores=bench.cores.system) as process:
            found.figures = process.said
    except Failed as error:
        out(found, error)
    return found


async def _paused(bench: Bench, system: System, profiles: int) -> dict[str, float]:
    """Resident memory of an engine with a paused destination, before and after."""
    async with bench.session.post(f"{system.url}/v1/destinations/bench/pause", json={}):
        pass
    warm = await feed(bench, system, WARM_UP)
    before = memory_bytes(system.pids[0])
    added = await feed(bench, system, profiles)
    grown = memory_bytes(system.pids[0]) - before
    waiting = (await get(bench.session, f"{system.url}/v1/destinations"))["destinations"][0]["waiting"]
    if waiting != warm + added:
        raise Failed(f"{waiting:,} profiles wait, not {warm + added:,}")
    return _figures(added, len(Shape().record(0)), grown / added)


async def feed(bench: Bench, system: System, events: int, n: int = PER_REQUEST) -> int:
    """Hand in so many, rounded up to whole requests; how many. Raises Failed unless all are accepted."""
    shape = fresh(Shape(sizes=(min(n, events),)))
    requests = -(-events // shape.sizes[0])
    done = await bench.generate(bench.job(system, shape, seconds=FEED_SECONDS, requests=requests))
    if done.requests != requests:
        raise Failed(f"of {requests:,} requests {done.refused:,} were refused and {done.failed:,} failed")
    return done.events


def in_coalescer(profiles: int) -> dict[str, float]:
    """Resident memory of this process before and after so many different people have been added."""
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10_000)
    coalescer, shape = Coalescer(merge_contents), Shape(sizes=(PER_REQUEST,))
    content = offset = 0
    shape.body(0)
    before = _resident()
    for request in range(-(-profiles // PER_REQUEST)):
        for event in reader.read(shape.body(request), "application/json").events:
            coalescer.add(event, offset, Lane.LIVE, float(request))
            content += len(event.content)
            offset += 1
    added = len(coalescer)
    return _figures(added, content / added, (_resident() - before) / added)


def _figures(profiles: int, content: float, resident: float) -> dict[str, float]:
    return {
        "profiles": profiles,
        "content_bytes_per_profile": round(content, 1),
        "resident_bytes_per_profile": round(resident, 1),
        "overhead_bytes_per_profile": round(resident - content, 1),
    }


def _resident() -> int:
    gc.collect()
    return memory_bytes(os.getpid())


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(in_coalescer(int(sys.argv[1]))) + b"\n")
