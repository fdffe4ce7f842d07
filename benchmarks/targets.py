"""The figures the engine is meant to reach, held against one run. For information: no run fails by them.

A *first* target is what the design with aiohttp and SQLite has to reach, a *goal* is where it is to go from there.
"""

from __future__ import annotations

import msgspec

from benchmarks.result import Phase, Run, Subject

FIRST_CPU_US = {1: 140.0, 10: 32.0, 100: 14.0}
GOAL_CPU_US = {1: 40.0, 10: 9.0, 100: 6.5}
FIRST_OF_BARE_POST, GOAL_OF_RAW_POST = 1.3, 2.0
GOAL_LEDGER_US = 2.0
ACK_BEYOND_DISK_MS, ACK_P99_OF_P50 = 0.6, 4.0
LINGER_MS = 20.0
FLOORS = "floors"


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


def targets(run: Run) -> list[Target]:
    parts = (_of_array, _of_single, _of_ledger, _of_floor, _of_latency, _of_limits, _of_sizes, _of_recovery)
    return [target for part in parts for target in part(run)]


def floor(run: Run, name: str) -> float | None:
    subject = run.subject(FLOORS, "floors")
    return subject.figures.get(name) if subject else None


def _of_array(run: Run) -> list[Target]:
    return [
        Target(f"array, n={n}: CPU per event", kind, limit, _cpu(run.subject(f"array-{n}")), "us")
        for kind, limits in (("first", FIRST_CPU_US), ("goal", GOAL_CPU_US))
        for n, limit in limits.items()
    ]


def _of_single(run: Run) -> list[Target]:
    """At n = 100, where the cost of taking events in is spread and what is left is the request that goes out."""
    cpu, what = _cpu(run.subject("single-100")), "single, n=100: CPU per profile / "
    bare, raw = (_over(cpu, floor(run, name)) for name in ("aiohttp_post_cpu_us", "raw_post_cpu_us"))
    return [
        Target(f"{what}bare aiohttp POST", "first", FIRST_OF_BARE_POST, bare, "x"),
        Target(f"{what}raw socket POST", "goal", GOAL_OF_RAW_POST, raw, "x"),
    ]


def _of_ledger(run: Run) -> list[Target]:
    on, off = (_cpu(run.subject(name)) for name in ("array-100-ledger", "array-100"))
    found = on - off if on is not None and off is not None else None
    return [Target("array, n=100: the ledger's own CPU per event", "goal", GOAL_LEDGER_US, found, "us")]


def _of_floor(run: Run) -> list[Target]:
    limits = {1: 1.75, 10: 1.75, 100: 1.5}
    return [
        Target(
            f"array, n={n}: CPU per event / sum of its parts alone",
            "goal",
            limit,
            _over(_cpu(run.subject(f"array-{n}")), floor(run, f"sum_of_parts_{n}_cpu_us_per_event")),
            "x",
        )
        for n, limit in limits.items()
    ]


def _of_latency(run: Run) -> list[Target]:
    subject = run.subject("array-10")
    low, high, steady = _at(subject, 0.3), _at(subject, 0.6), _at(subject, None)
    disk, trip = floor(run, "fdatasync_p50_ms"), floor(run, "round_trip_p50_ms")
    found = []
    if low and low.ack and disk:
        found.append(_ms("ack p50 at 30 %", disk + ACK_BEYOND_DISK_MS, low.ack.p50))
    if high and high.ack and high.delivered:
        found.append(_ms("ack p99 at 60 %", ACK_P99_OF_P50 * high.ack.p50, high.ack.p99))
        if trip:
            found.append(_ms("delivered p50 at 60 %", high.ack.p50 + 2 * trip, high.delivered.p50))
    if steady and steady.delivered:
        found.append(_ms("delivered p50 at 2,000/s", LINGER_MS / 2 + 2, steady.delivered.p50))
        found.append(_ms("delivered p99 at 2,000/s", LINGER_MS + 3, steady.delivered.p99))
    return found


def _of_limits(run: Run) -> list[Target]:
    found = []
    for subject in run.of("utilisation"):
        if "used_percent" not in subject.figures:
            continue
        figures, at = subject.figures, f"limit of {subject.figures['allowed_requests_per_second']:,.0f}/s"
        found.append(Target(f"{at}: requests not used", "goal", 1.0, max(0.0, 100 - figures["used_percent"]), "%"))
        if not subject.notes:
            found.append(Target(f"{at}: windows over it", "first", 0.0, figures["windows_over"], ""))
    return found


def _of_sizes(run: Run) -> list[Target]:
    found = []
    for scenario, figure, kind, limit, unit in (
        ("memory", "overhead_bytes_per_profile", "first", 600.0, "B"),
        ("memory", "overhead_bytes_per_profile", "goal", 300.0, "B"),
        ("growth", "exponent_of_cpu_seconds", "goal", 1.05, ""),
        ("fleet", "exponent_of_cpu_us_per_event", "goal", 1.05, ""),
    ):
        for subject in run.of(scenario):
            if figure in subject.figures:
                what = f"{scenario}, {subject.system}: {figure.replace('_', ' ')}"
                found.append(Target(what, kind, limit, subject.figures[figure], unit))
    return found


def _of_recovery(run: Run) -> list[Target]:
    found = []
    for subject in run.of("recovery"):
        figures = subject.figures
        if "scan_alone_seconds" in figures:
            took = figures["recovered_seconds"] - figures["accepting_seconds"]
            what = f"recovery of {figures['backlog_events']:,.0f} events / reading them alone"
            found.append(Target(what, "goal", 1.3, _over(took, figures["scan_alone_seconds"]), "x"))
            after = figures["first_dispatch_seconds"] - figures["recovered_seconds"]
            found.append(Target("first dispatch after recovery", "goal", 0.5, after, "s"))
    return found


def _ms(what: str, limit: float, found: float) -> Target:
    return Target(f"array, n=10: {what}", "goal", limit, found, "ms")


def _at(subject: Subject | None, share: float | None) -> Phase | None:
    loads = subject.loads if subject else []
    return next((it for it in loads if it.share == share and it.status == "ok"), None)


def _cpu(subject: Subject | None) -> float | None:
    return subject.cpu_us_per_event if subject else None


def _over(value: float | None, floor: float | None) -> float | None:
    return value / floor if value is not None and floor else None
