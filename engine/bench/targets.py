"""The figures the engine is meant to reach, held against one report. For information: no run fails by them.

A *first* target is what the design with aiohttp and SQLite has to reach, a *goal* is where it is to go from there.
"""

from __future__ import annotations

import msgspec

from engine.bench.results import Cell, Latency, Report

FIRST_CPU_US = {1: 140.0, 10: 32.0, 100: 14.0}
GOAL_CPU_US = {1: 40.0, 10: 9.0, 100: 6.5}
FIRST_OF_BARE_POST, GOAL_OF_RAW_POST = 1.3, 2.0
GOAL_LEDGER_US = 2.0
STEADY_LOAD = "2,000/s"


class Target(msgspec.Struct, frozen=True):
    """`met` None: the run has no figure for it."""

    what: str
    kind: str  # "first" or "goal"
    limit: float
    found: float | None
    unit: str

    @property
    def met(self) -> bool | None:
        return None if self.found is None else self.found <= self.limit


def targets(report: Report) -> list[Target]:
    return [*_of_array(report), *_of_single(report), *_of_ledger(report), *_of_latency(report)]


def _of_array(report: Report) -> list[Target]:
    rows = []
    for kind, limits in (("first", FIRST_CPU_US), ("goal", GOAL_CPU_US)):
        for n, limit in limits.items():
            cell = report.cell("array", False, n)
            found = cell.cpu_us_per_event if cell else None
            rows.append(Target(f"array, ledger off, n={n}: CPU per event", kind, limit, found, "us"))
    return rows


def _of_single(report: Report) -> list[Target]:
    """At n = 100, where the cost of taking events in is spread and what is left is the request that goes out."""
    cell = report.cell("single", False, 100)
    cpu, floors = cell.cpu_us_per_event if cell else None, report.floors
    what = "single, ledger off, n=100: CPU per profile / "
    bare, raw = _ratio(cpu, floors.bare_post_us), _ratio(cpu, floors.raw_post_us)
    return [
        Target(f"{what}bare aiohttp POST", "first", FIRST_OF_BARE_POST, bare, "x"),
        Target(f"{what}raw socket POST", "goal", GOAL_OF_RAW_POST, raw, "x"),
    ]


def _of_ledger(report: Report) -> list[Target]:
    on, off = report.cell("array", True, 100), report.cell("array", False, 100)
    found = on.cpu_us_per_event - off.cpu_us_per_event if _measured(on) and _measured(off) else None  # type: ignore[operator, union-attr]
    return [Target("array, n=100: the ledger's own CPU per event", "goal", GOAL_LEDGER_US, found, "us")]


def _of_latency(report: Report) -> list[Target]:
    cell = report.cell("array", False, 10) or report.cell("array", True, 10)
    low, high, steady = (cell.at(it) if cell else None for it in ("30 %", "60 %", STEADY_LOAD))
    disk, linger = report.floors.fdatasync, float(report.settings.get("linger_ms", 20))
    trip = report.floors.round_trip
    rows = [
        ("ack p50 at 30 %", disk.p50 + 0.6 if disk else None, low.ack.p50 if low else None),
        ("ack p99 at 60 %", 4 * high.ack.p50 if high else None, high.ack.p99 if high else None),
        (f"accepted to delivered p50 at {STEADY_LOAD}", linger / 2 + 2, _delivered(steady, "p50")),
        (f"accepted to delivered p99 at {STEADY_LOAD}", linger + 3, _delivered(steady, "p99")),
        ("accepted to delivered p50 at 60 %", high.ack.p50 + 2 * trip.p50 if high and trip else None,
         _delivered(high, "p50")),
    ]  # fmt: skip
    return [
        Target(f"array, n=10: {what}", "goal", limit or 0.0, found if limit else None, "ms")
        for what, limit, found in rows
    ]


def _delivered(latency: Latency | None, name: str) -> float | None:
    return getattr(latency.delivered, name) if latency and latency.delivered else None


def _measured(cell: Cell | None) -> bool:
    return cell is not None and cell.cpu_us_per_event is not None


def _ratio(value: float | None, floor: float | None) -> float | None:
    return value / floor if value is not None and floor else None
