"""A whole audience through the log beside live updates of other people: what it costs them.

The same live load runs alone first and then beside the backfill, until that is delivered; one half of the backfill
comes under ``?lane=backfill``, the other from a source of that lane. At the end the audit has to be even.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from benchmarks.bench import Bench, fresh, settled, tell
from benchmarks.judging import APART, delivery_times
from benchmarks.processes import Failed, Running
from benchmarks.result import MICRO, MILLI, Subject
from benchmarks.scenarios.growth import audited
from benchmarks.shapes import Shape
from benchmarks.sinks import get
from benchmarks.systems import System, engine_running
from benchmarks.variant import Config, Variant, engine_config
from engine.bench.histogram import Histogram
from engine.bench.machine import cpu_seconds, peak_memory_bytes

PROFILES, BUFFER = 1_000_000, 100_000
RATE, BATCH, BURST = 30.0, 100, 10
LIVE_PER_SECOND = 50.0
EVENTS_PER_REQUEST = 500
PHASE_SECONDS, POLL_SECONDS, LONGEST_SECONDS = 10.0, 0.5, 1_800.0


def config(sink: str, profiles: int) -> Config:
    """A buffer that is far too small for the audience."""
    made = engine_config(sink, ledger=True, rate=RATE, burst=BURST, batch=BATCH)
    made["buffer"] = {"max_profiles": min(BUFFER, max(1_000, profiles // 10))}
    made["source"] = [{"name": "default"}, {"name": "audience", "lane": "backfill"}]
    return made


class Fed(msgspec.Struct):
    """How the backfill was handed in, as fast as it was taken."""

    events: int = 0
    refused: int = 0
    seconds: float = 0.0


class Watch(msgspec.Struct):
    """What the engine says of itself meanwhile, at its most."""

    held: int = 0
    in_memory: int = 0
    delivered_at: float = 0.0


async def backfill(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    profiles, found = bench.options.size or PROFILES, []
    for variant in variants:
        tell(f"backfill: {profiles:,} profiles, about {profiles / RATE / BATCH + 15:.0f} s")
        with engine_running(variant, config(bench.sink.url, profiles), bench.place("backfill")) as system:
            figures = await _measure(bench, system, profiles)
        found.append(Subject(scenario="backfill", system=variant.name, figures=figures))
    return found


async def _measure(bench: Bench, system: System, profiles: int) -> dict[str, float]:
    await bench.sink.reset()
    await _live(bench, system, 2.0)
    seconds = PHASE_SECONDS if profiles >= 200_000 else 2.0
    alone = Histogram()
    alone.merge(await _live(bench, system, seconds))
    pid, before, started = system.pids[0], cpu_seconds(system.pids[0]), time.monotonic()
    handed_in, watch, beside = asyncio.Event(), Watch(), Histogram()
    with bench.second_generator() as generator:
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(_feed(bench, system, generator, profiles, handed_in))
            watching = tasks.create_task(_watch(bench, system, watch, handed_in))
            while not watching.done():
                beside.merge(await _live(bench, system, seconds))
    await settled(bench.session, system.url)
    await audited(bench, system)
    fed, cpu = feeding.result(), cpu_seconds(pid) - before
    return {
        "profiles": fed.events,
        "alone_p50_ms": _ms(alone, 0.5),
        "alone_p99_ms": _ms(alone, 0.99),
        "beside_p50_ms": _ms(beside, 0.5),
        "beside_p99_ms": _ms(beside, 0.99),
        "p99_beside_over_alone": round(beside.quantile(0.99) / max(alone.quantile(0.99), 1e-9), 3),
        "live_events_beside": beside.count,
        "refused_requests": fed.refused,
        "handed_in_seconds": round(fed.seconds, 1),
        "delivered_seconds": round(watch.delivered_at - started, 1),
        "most_held_profiles": watch.held,
        "most_profiles_in_memory": watch.in_memory,
        "peak_memory_mb": round(peak_memory_bytes(pid) / 1e6, 1),
        "cpu_us_per_event": round(cpu / (fed.events + beside.count) * MICRO, 1),
    }


def _ms(seconds: Histogram, share: float) -> float:
    return round(seconds.quantile(share) * MILLI, 2)


_lives = iter(range(1, 1 << 30))


async def _live(bench: Bench, system: System, seconds: float) -> Histogram:
    """One event a request at a steady rate; from the due moment to the sink. Each phase has numbers of its own."""
    shape = fresh(Shape(format="object", base=next(_lives) * APART))
    job = bench.job(system, shape, seconds=seconds)
    job.per_second = LIVE_PER_SECOND
    done = await bench.generate(job)
    if done.failed or done.unsent:
        raise Failed(f"live: {done.failed} failed, {done.unsent} not sent")
    await asyncio.sleep(1.0)
    return delivery_times(shape, await bench.sink.records(), done.started_at, job.per_second)


async def _feed(bench: Bench, system: System, generator: Running, profiles: int, handed_in: asyncio.Event) -> Fed:
    fed, started = Fed(), time.monotonic()
    for query, until in (("lane=backfill", profiles // 2), ("source=audience", profiles)):
        while fed.events < until:
            n = min(until - fed.events, EVENTS_PER_REQUEST)
            path = f"{system.path}?{query}"
            shape, requests = fresh(Shape(sizes=(n,))), (until - fed.events) // n
            job = bench.job(system, shape, seconds=LONGEST_SECONDS, requests=requests, path=path)
            done = await bench.generate(job, generator)
            if done.failed:
                raise Failed(f"backfill: {done.failed:,} requests failed")
            fed.events += done.events
            fed.refused += done.refused
    handed_in.set()
    fed.seconds = time.monotonic() - started
    return fed


async def _watch(bench: Bench, system: System, watch: Watch, handed_in: asyncio.Event) -> None:
    """Until nothing is pending any more once all is handed in. Raises Failed when that takes too long."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        (one,) = (await get(bench.session, f"{system.url}/v1/destinations"))["destinations"]
        watch.held = max(watch.held, one["held"])
        watch.in_memory = max(watch.in_memory, one["waiting"] + one["leased"])
        if handed_in.is_set() and one["counts"]["pending"] <= BATCH:
            watch.delivered_at = time.monotonic()
            return
        await asyncio.sleep(POLL_SECONDS)
    raise Failed(f"not delivered within {LONGEST_SECONDS:.0f} s")
