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
    return [*_of_array(run), *_of_single(run), *_of_ledger(run), *_of_floor(run), *_of_latency(run)]


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
    low, high = (_at(subject, share) for share in (0.3, 0.6))
    disk = floor(run, "fdatasync_p50_ms")
    found = []
    if low and low.ack and disk:
        found.append(_ms("ack p50 at 30 %", disk + ACK_BEYOND_DISK_MS, low.ack.p50))
    if high and high.ack:
        found.append(_ms("ack p99 at 60 %", ACK_P99_OF_P50 * high.ack.p50, high.ack.p99))
    return found


def _ms(what: str, limit: float, found: float) -> Target:
    return Target(f"array, n=10: {what}", "goal", limit, found, "ms")


def _at(subject: Subject | None, share: float) -> Phase | None:
    loads = subject.loads if subject else []
    return next((it for it in loads if it.share == share and it.status == "ok"), None)


def _cpu(subject: Subject | None) -> float | None:
    return subject.cpu_us_per_event if subject else None


def _over(value: float | None, floor: float | None) -> float | None:
    return value / floor if value is not None and floor else None
