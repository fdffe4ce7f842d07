"""Sink or sandbox: what each costs per event, and how much of a core the engine leaves it with."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench, settled
from benchmarks.processes import running
from benchmarks.result import MICRO, Subject
from benchmarks.scenarios.memory import feed
from benchmarks.systems import engine_running
from benchmarks.variant import Variant, engine_config
from engine.bench.machine import cpu_seconds

EVENTS, PER_REQUEST = 60_000, 100


async def sink_cost(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    """The same events by the same engine (the first variant) into both."""
    place = bench.place("sandbox")
    arguments = ["-m", "engine.sandbox", "--port", "0", "--json", "--log-size", "100", "--no-array-results"]
    await bench.sink.reset()
    with running(arguments, place.directory / "sandbox.log", cores=bench.cores.instrument) as sandbox:
        return [
            await _measured(bench, variants[0], name, pid, url)
            for name, pid, url in (("sink", bench.sink.pid, bench.sink.url), ("sandbox", sandbox.pid, sandbox.url))
        ]


async def _measured(bench: Bench, variant: Variant, name: str, pid: int, url: str) -> Subject:
    with engine_running(variant, engine_config(url), bench.place(f"into-{name}")) as system:
        await feed(bench, system, EVENTS // 10, PER_REQUEST)
        await settled(bench.session, system.url)
        before, engine_before, started = cpu_seconds(pid), cpu_seconds(system.pids[0]), time.monotonic()
        events = await feed(bench, system, bench.options.size or EVENTS, PER_REQUEST)
        await settled(bench.session, system.url)
        seconds, used = time.monotonic() - started, cpu_seconds(pid) - before
        engine_used = cpu_seconds(system.pids[0]) - engine_before
    figures = {
        "store_cpu_us_per_event": round(used / events * MICRO, 2),
        "store_share_of_a_core": round(used / seconds, 3),
        "engine_share_of_a_core": round(engine_used / seconds, 3),
        "events_per_second": round(events / seconds),
    }
    return Subject(scenario="sink", system=name, figures=figures)
