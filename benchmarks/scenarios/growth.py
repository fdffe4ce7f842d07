"""How cost grows with size: with events, and with destinations. The exponent of the total is 1 where it is linear."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench, idle, settled, tell
from benchmarks.growth import exponent
from benchmarks.processes import Failed
from benchmarks.result import MICRO, Subject
from benchmarks.scenarios.memory import feed
from benchmarks.shapes import Shape
from benchmarks.sinks import get
from benchmarks.systems import System, engine_running
from benchmarks.variant import Config, Variant, engine_config
from engine.bench.machine import cpu_seconds, memory_bytes, peak_memory_bytes

EVENTS = (10_000, 100_000, 1_000_000)
DESTINATIONS, DELIVERIES = (1, 10, 100), 200_000
SETTLE_SECONDS = 300.0
PHASE_SECONDS = 300.0


async def events(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    """One engine an amount, from an empty folder, ledger on, 100 events a request."""
    amounts, found = amounts_to(bench.options.size or EVENTS[-1]), []
    for variant in variants:
        subjects = [await _events(bench, variant, it) for it in amounts]
        found += with_exponent(subjects, variant.name, "cpu_seconds")
    return found


def amounts_to(largest: int) -> list[int]:
    """The usual ones up to the largest, and that itself."""
    return [*(it for it in EVENTS if it < largest), largest]


async def _events(bench: Bench, variant: Variant, amount: int) -> Subject:
    tell(f"growth: {amount:,} events")
    shape = Shape(sizes=(100,))
    with engine_running(variant, engine_config(bench.sink.url, ledger=True), bench.place("growth")) as system:
        await bench.warm_up(system, shape)
        phase = await bench.saturate(system, shape, PHASE_SECONDS, requests=amount // 100)
    cost = phase.cpu_us_per_event or 0.0
    figures = {
        "size": float(phase.events),
        "cpu_us_per_event": cost,
        "peak_memory_mb": round(phase.peak_memory_bytes / 1e6, 1),
        "cpu_seconds": round(cost * phase.events / MICRO, 3),
    }
    return Subject(scenario="growth", system=f"{variant.name}, {amount:,} events", figures=figures)


def with_exponent(subjects: list[Subject], name: str, cost: str) -> list[Subject]:
    """And one more, which says how `cost` grows with the size."""
    sizes, costs = ([it.figures[figure] for it in subjects] for figure in ("size", cost))
    found = exponent(sizes, costs)
    if found is None:
        return subjects
    figures = {f"exponent_of_{cost}": round(found, 3)}
    return [*subjects, Subject(scenario=subjects[0].scenario, system=f"{name}, growth", figures=figures)]


# -- destinations -----------------------------------------------------------------------------------------------------


async def fleet(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    """The same number of deliveries by 1, 10 and 100 destinations of one account; each gets every event."""
    deliveries, found = bench.options.size or DELIVERIES, []
    for variant in variants:
        subjects = [await _fleet(bench, variant, it, deliveries) for it in DESTINATIONS]
        found += with_exponent(subjects, variant.name, "cpu_us_per_event")
    return found


def fleet_config(sink: str, destinations: int) -> Config:
    config = engine_config(sink)
    config["destination"] = [
        {"name": f"city{it}", "event_code": f"show{it}", "encoding": "array"} for it in range(destinations)
    ]
    return config


async def _fleet(bench: Bench, variant: Variant, destinations: int, deliveries: int) -> Subject:
    tell(f"fleet: {destinations} destinations")
    await bench.sink.reset()
    with engine_running(variant, fleet_config(bench.sink.url, destinations), bench.place("fleet")) as system:
        await idle(system.pids[0])
        figures = await _delivered(bench, system, destinations, deliveries)
    return Subject(scenario="fleet", system=f"{variant.name}, {destinations} destinations", figures=figures)


async def _delivered(bench: Bench, system: System, destinations: int, deliveries: int) -> dict[str, float]:
    pid = system.pids[0]
    at_rest, cpu, started = memory_bytes(pid), cpu_seconds(pid), time.monotonic()
    accepted = await feed(bench, system, deliveries // destinations)
    await settled(bench.session, system.url, SETTLE_SECONDS)
    seconds = time.monotonic() - started
    await idle(pid)
    cpu, done = cpu_seconds(pid) - cpu, accepted * destinations
    await audited(bench, system)
    return {
        "size": destinations,
        "cpu_us_per_delivery": round(cpu / done * MICRO, 2),
        "idle_memory_mb": round(at_rest / 1e6, 1),
        "peak_memory_mb": round(peak_memory_bytes(pid) / 1e6, 1),
        "events": accepted,
        "deliveries_per_second": round(done / seconds),
        "cpu_us_per_event": round(cpu / accepted * MICRO, 2),
    }


async def audited(bench: Bench, system: System) -> None:
    """Raises Failed unless the sums of the engine are even."""
    audit = await get(bench.session, f"{system.url}/v1/audit")
    if not audit["ok"]:
        raise Failed(f"the audit found: {audit['problems']}")
