"""What a run found, as data: the schema of ``benchmarks/results/*.json``. docs/benchmarks.md explains every field.

A figure that could not be measured is not there: its status says "not measured" and its reason says why.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from engine.bench.histogram import Histogram
from engine.bench.machine import Machine

SCHEMA = 1
MICRO, MILLI = 1e6, 1e3

Status = Literal["ok", "not measured"]


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p99: float
    p999: float
    longest: float
    count: int

    @classmethod
    def of(cls, seconds: Histogram) -> Quantiles | None:
        """None for none."""
        if not seconds.count:
            return None
        p50, p99, p999 = (round(seconds.quantile(share) * MILLI, 3) for share in (0.5, 0.99, 0.999))
        return cls(p50, p99, p999, round(seconds.longest_seconds * MILLI, 3), seconds.count)


class Phase(msgspec.Struct, kw_only=True):
    """One stretch of load. `share` and `offered_per_second` None: closed loop, as fast as it goes."""

    status: Status = "ok"
    reason: str = ""
    share: float | None = None  # of the throughput at saturation
    offered_per_second: float | None = None  # events
    events: int = 0  # accepted
    requests: int = 0  # accepted, of the producer
    seconds: float = 0.0
    events_per_second: float = 0.0
    cpu_us_per_event: float | None = None  # of the system's processes, until nothing is left to do
    cpu_share: dict[str, float] = {}  # of one core while it ran: system, sink, generator, foreign (everybody else)
    peak_memory_bytes: int = 0
    sent_late_p99_ms: float | None = None  # open loop: after it was due a request left; part of both latencies
    ack: Quantiles | None = None  # from the due moment to the answer
    delivered: Quantiles | None = None  # from the due moment to the sink
    refused: int = 0  # requests
    failed: int = 0
    unsent: int = 0
    stored_profiles: int = 0  # records that the sink took
    store_requests: int = 0  # requests that the sink took


class Subject(msgspec.Struct, kw_only=True):
    """One system under one scenario. `figures`: what is no phase, each with its unit in its name."""

    scenario: str
    system: str
    status: Status = "ok"
    reason: str = ""
    parameters: dict[str, float | int | str | bool] = {}
    saturation: list[Phase] = []  # one a repeat, interleaved with the other systems of the scenario
    loads: list[Phase] = []
    figures: dict[str, float] = {}
    notes: list[str] = []  # what makes a figure less sure: a generator at its limit, a machine shared with others

    @property
    def measured(self) -> list[Phase]:
        return [phase for phase in self.saturation if phase.status == "ok"]

    @property
    def cpu_us_per_event(self) -> float | None:
        return median(it.cpu_us_per_event for it in self.measured if it.cpu_us_per_event is not None)

    @property
    def events_per_second(self) -> float | None:
        return median(it.events_per_second for it in self.measured)

    @property
    def peak_memory_bytes(self) -> int:
        return max((it.peak_memory_bytes for it in (*self.saturation, *self.loads)), default=0)


class Ratio(msgspec.Struct, frozen=True):
    """Of pairs measured one after the other in one run: below 1 the first one is lower."""

    of: str  # what was compared
    middle: float
    lowest: float
    highest: float
    pairs: int

    @classmethod
    def between(cls, of: str, first: Iterable[float | None], second: Iterable[float | None]) -> Ratio | None:
        pairs = zip(first, second, strict=False)
        ratios = [a / b for a, b in pairs if a is not None and b]
        if not ratios:
            return None
        return cls(of, round(statistics.median(ratios), 4), round(min(ratios), 4), round(max(ratios), 4), len(ratios))


class Run(msgspec.Struct, kw_only=True):
    kind: Literal["run", "compare", "soak", "sizing"]
    machine: Machine
    at: str  # ISO 8601
    version: str
    commit: str
    schema: int = SCHEMA
    versions: dict[str, str] = {}  # of what takes part
    settings: dict[str, float | int | str | bool | None] = {}
    seconds: float = 0.0
    subjects: list[Subject] = []

    def subject(self, scenario: str, system: str = "engine") -> Subject | None:
        found = (it for it in self.subjects if it.scenario == scenario and it.system == system)
        return next(found, None)

    def scenarios(self) -> list[str]:
        """In the order they ran."""
        return list(dict.fromkeys(it.scenario for it in self.subjects))

    def of(self, scenario: str) -> list[Subject]:
        return [it for it in self.subjects if it.scenario == scenario]


def median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def ratio(first: Subject, second: Subject, of: str = "cpu_us_per_event") -> Ratio | None:
    """Pair by pair, in the order they were measured."""
    return Ratio.between(of, (getattr(it, of) for it in first.measured), (getattr(it, of) for it in second.measured))


def read(file: Path) -> Run:
    """Raises OSError, or ValueError for a file that is no result."""
    return msgspec.json.decode(file.read_bytes(), type=Run)


def write(run: Run, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
