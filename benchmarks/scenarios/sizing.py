"""A rule for sizing, made from three measurements, and whether it foretells others.

CPU per event = per event + per request / events a request. Saturation of one core = 1 / that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.bench import Bench, settled, tell
from benchmarks.processes import Failed
from benchmarks.result import MICRO, Phase, Subject, median
from benchmarks.scenarios.memory import feed
from benchmarks.scenarios.traffic import note_limits
from benchmarks.shapes import Shape
from benchmarks.systems import System, engine_running
from benchmarks.variant import Variant, engine_config

KNOWN = (1, 10, 100)
FORETOLD = (3, 30)
DISK_EVENTS = 100_000

_journal_bytes = re.compile(r"^engine_journal_bytes ([\d.e+]+)$", re.MULTILINE).search


class Rule(msgspec.Struct, frozen=True):
    """CPU microseconds."""

    per_event: float
    per_request: float

    def cpu_us(self, events_per_request: float) -> float:
        return self.per_event + self.per_request / events_per_request

    def events_per_second(self, events_per_request: float) -> float:
        """Of one core that does nothing else."""
        return MICRO / self.cpu_us(events_per_request)


def rule(known: Sequence[tuple[int, float]]) -> Rule:
    """From pairs of events a request and CPU per event; the sum of squared relative errors is the least."""
    rows = [(1 / cost, 1 / (n * cost)) for n, cost in known]
    aa, ab, bb = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = (sum(row[i] for row in rows) for i in (0, 1))
    scale = aa * bb - ab * ab
    return Rule((a * bb - b * ab) / scale, (b * aa - a * ab) / scale)


async def sizing(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    found = []
    for variant in variants:
        place = bench.place("sizing")
        with engine_running(variant, engine_config(bench.sink.url, ledger=True), place) as system:
            found += await _of(bench, variant.name, system)
        found.append(await _disk(bench, variant))
    return found


async def _of(bench: Bench, name: str, system: System) -> list[Subject]:
    measured = await _measured(bench, system)
    made = rule([(n, _cost(measured[n])) for n in KNOWN])
    figures = {"cpu_us_per_event": round(made.per_event, 2), "cpu_us_per_request": round(made.per_request, 2)}
    return [
        Subject(scenario="sizing", system=f"{name}, the rule", figures=figures),
        *(foretold(name, made, n, measured[n]) for n in FORETOLD),
    ]


def foretold(name: str, made: Rule, n: int, phases: Sequence[Phase]) -> Subject:
    found = Subject(scenario="sizing", system=f"{name}, n={n}", figures=compared(made, n, phases))
    for phase in phases:
        note_limits(found, phase.cpu_share)
    return found


async def _disk(bench: Bench, variant: Variant) -> Subject:
    """What an event takes in the journal while it waits, and in the ledger afterwards."""
    place = bench.place("disk")
    data = place.directory / variant.name / "var"
    with engine_running(variant, engine_config(bench.sink.url, ledger=True), place) as system:
        async with bench.session.post(f"{system.url}/v1/destinations/bench/pause", json={}):
            pass
        before = await journal_bytes(bench, system)
        events = await feed(bench, system, DISK_EVENTS, 100)
        journal = await journal_bytes(bench, system) - before
        state = size_of(data, "state*")
        async with bench.session.post(f"{system.url}/v1/destinations/bench/resume", json={}):
            pass
        await settled(bench.session, system.url)
        await bench.settle(system)
        kept = size_of(data, "state*") - state
    figures = {
        "events": float(events),
        "journal_bytes_per_pending_event": round(journal / events),
        "state_bytes_per_person": round(kept / events),
    }
    return Subject(scenario="sizing", system=f"{variant.name}, on disk", figures=figures)


async def journal_bytes(bench: Bench, system: System) -> float:
    """As the engine counts it against `journal.max_bytes`."""
    async with bench.session.get(f"{system.url}/metrics") as response:
        found = _journal_bytes(await response.text())
    if found is None:
        raise Failed("the engine does not say how large its journal is")
    return float(found[1])


def size_of(folder: Path, pattern: str) -> int:
    """Blocks that the files of a pattern, and of folders of that name, take."""
    found = [it for top in folder.glob(pattern) for it in (top.rglob("*") if top.is_dir() else [top])]
    return sum(it.stat().st_blocks * 512 for it in found if it.is_file())


def compared(made: Rule, n: int, phases: Sequence[Phase]) -> dict[str, float]:
    cost, speed = _cost(phases), median(it.events_per_second for it in phases) or 0.0
    said = made.events_per_second(n)
    return {
        "foretold_cpu_us_per_event": round(made.cpu_us(n), 2),
        "measured_cpu_us_per_event": cost,
        "cpu_error_percent": round(100 * (made.cpu_us(n) / cost - 1), 1),
        "foretold_events_per_second": round(said),
        "measured_events_per_second": round(speed),
        "speed_error_percent": round(100 * (said / speed - 1), 1) if speed else 0.0,
    }


async def _measured(bench: Bench, system: System) -> dict[int, list[Phase]]:
    """In rounds over all sizes, so that a machine that changes its mind changes it for all of them."""
    found: dict[int, list[Phase]] = {n: [] for n in (*KNOWN, *FORETOLD)}
    await bench.warm_up(system, Shape(sizes=(100,)))
    for round_ in range(bench.options.repeats):
        tell(f"sizing: round {round_ + 1}")
        for n, phases in found.items():
            phases.append(await bench.saturate(system, Shape(sizes=(n,))))
    return found


def _cost(phases: Sequence[Phase]) -> float:
    known = median(it.cpu_us_per_event for it in phases if it.cpu_us_per_event is not None)
    if known is None:
        raise Failed("the kernel tells no CPU times here")
    return known
