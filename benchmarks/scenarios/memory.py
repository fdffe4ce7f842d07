"""What a pending profile costs in memory beside its content: in the coalescer alone, and in a whole engine.

``python -m benchmarks.scenarios.memory PROFILES`` is the child that measures the coalescer alone.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Sequence

import msgspec

from benchmarks.bench import Bench, fresh
from benchmarks.processes import Failed, running
from benchmarks.result import Subject
from benchmarks.scenarios.traffic import out
from benchmarks.shapes import Shape
from benchmarks.sinks import get
from benchmarks.systems import System, engine_running
from benchmarks.variant import Config, Variant, engine_config
from engine.bench.machine import memory_bytes
from engine.core.coalescer import Coalescer
from engine.model import Lane
from engine.profiles.formats import Reader
from engine.profiles.mapping import merge_contents

PROFILES = 1_000_000
WARM_UP = 5_000
PER_REQUEST = 500
FEED_SECONDS = 300.0
ROOM_BYTES = 2_000
"""For a profile, far more than it takes."""


async def memory(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    profiles = bench.options.size or PROFILES
    found = [alone(bench, profiles)]
    for variant in variants:
        config = roomy_config(bench.sink.url, profiles + WARM_UP)
        with engine_running(variant, config, bench.place("memory")) as system:
            figures = await _paused(bench, system, profiles)
        found.append(Subject(scenario="memory", system=f"{variant.name}, destination paused", figures=figures))
    return found


def roomy_config(sink: str, profiles: int) -> Config:
    """A buffer that has room for so many profiles, whole requests of them and more."""
    config = engine_config(sink, ledger=True)
    room = profiles + 2 * PER_REQUEST
    config["buffer"] = {"max_profiles": room, "max_bytes": room * ROOM_BYTES}
    return config


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
    await feed(bench, system, WARM_UP)
    warm, before = await _waiting(bench, system), memory_bytes(system.pids[0])
    accepted = await feed(bench, system, profiles)
    grown = memory_bytes(system.pids[0]) - before
    added = await _waiting(bench, system) - warm
    if added < accepted:
        raise Failed(f"{added:,} profiles wait, not {accepted:,}")
    return _figures(added, len(Shape().record(0)), grown / added)


async def _waiting(bench: Bench, system: System) -> int:
    return int((await get(bench.session, f"{system.url}/v1/destinations"))["destinations"][0]["waiting"])


async def feed(bench: Bench, system: System, events: int, n: int = PER_REQUEST) -> int:
    """Hand in so many, rounded up to whole requests; how many. What is refused comes again, as other people. Raises
    Failed when requests fail, or it takes too long."""
    size = min(n, events)
    requests, deadline = -(-events // size), time.monotonic() + FEED_SECONDS
    accepted = 0
    while accepted < requests and (left := deadline - time.monotonic()) > 0:
        job = bench.job(system, fresh(Shape(sizes=(size,))), seconds=left, requests=requests - accepted)
        done = await bench.generate(job)
        accepted += done.requests
        if done.failed:
            raise Failed(f"of {requests:,} requests {done.failed:,} failed")
    if accepted < requests:
        raise Failed(f"of {requests:,} requests {accepted:,} were accepted within {FEED_SECONDS:.0f} s")
    return accepted * size


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
