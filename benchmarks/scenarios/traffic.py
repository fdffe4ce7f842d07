"""Ordinary traffic of one shape: throughput and cost at saturation, then latency at shares of it; peers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from benchmarks.bench import Bench, tell
from benchmarks.cores import Cores, pinned_to
from benchmarks.processes import Failed
from benchmarks.result import Subject
from benchmarks.shapes import Shape
from benchmarks.systems import Contestant, System, Unavailable, engine
from benchmarks.variant import Config, Variant, engine_config

GENERATOR_LIMIT, SINK_LIMIT, FOREIGN_LIMIT = 0.9, 0.9, 0.2
"""Shares of a core beyond which a figure gets a note."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    shape: Shape = Shape()
    encoding: str = "array"
    ledger: bool = False
    latency_ms: float = 0.0
    concurrency: int = 32
    loads: bool = True
    steady_per_second: float = 0.0  # events, beside the shares: what a small installation has

    def config(self, sink: str) -> Config:
        return engine_config(sink, encoding=self.encoding, ledger=self.ledger, concurrency=self.concurrency)

    def parameters(self) -> dict[str, float | int | str | bool]:
        return {
            "encoding": self.encoding,
            "ledger": self.ledger,
            "format": self.shape.format,
            "compression": self.shape.compression or "none",
            "events_per_request": self.shape.events_per_request,
            "repeats": "Zipf" if self.shape.zipf else self.shape.repeats,
            "sink_latency_ms": self.latency_ms,
        }


def engines(traffic: Traffic, variants: Sequence[Variant]) -> list[Contestant]:
    return [engine(variant, traffic.config) for variant in variants]


async def contest(bench: Bench, scenario: str, traffic: Traffic, contestants: Sequence[Contestant]) -> list[Subject]:
    """All of them at the same traffic, in turns: A B C A B C. One that fails is out, with its reason."""
    round_ = Round(bench, scenario, traffic)
    with ExitStack() as running:
        for contestant in contestants:
            await round_.enter(running, contestant)
        for _ in range(bench.options.repeats):
            for subject, system in round_.still_in():
                await round_.saturate(subject, system)
        loads = bench.options.loads
        for subject, system in round_.still_in():
            await round_.latencies(subject, system, loads if system.engine else loads[-2:-1] or loads)
    return round_.subjects


class Round:
    def __init__(self, bench: Bench, scenario: str, traffic: Traffic) -> None:
        self._bench, self._scenario, self._traffic = bench, scenario, traffic
        self._systems: list[tuple[Subject, System]] = []
        self.subjects: list[Subject] = []

    def still_in(self) -> list[tuple[Subject, System]]:
        return [(subject, system) for subject, system in self._systems if subject.status == "ok"]

    async def enter(self, running: ExitStack, contestant: Contestant) -> None:
        subject = Subject(scenario=self._scenario, system=contestant.name, parameters=self._traffic.parameters())
        self.subjects.append(subject)
        tell(f"{self._scenario}: {contestant.name}")
        try:
            system = running.enter_context(contestant.start(self._bench.place(contestant.name)))
            self._systems.append((subject, system))
            note_pinning(subject, system, self._bench.cores)
            await self._bench.warm_up(system, self._traffic.shape, self._traffic.latency_ms)
        except (Failed, Unavailable, OSError) as error:
            out(subject, error)

    async def saturate(self, subject: Subject, system: System) -> None:
        try:
            phase = await self._bench.saturate(system, self._traffic.shape, latency_ms=self._traffic.latency_ms)
        except (Failed, OSError) as error:
            out(subject, error)
            return
        subject.saturation.append(phase)
        if phase.status == "ok":
            note_limits(subject, phase.cpu_share)

    async def latencies(self, subject: Subject, system: System, loads: Sequence[float]) -> None:
        """Only of what delivers, and knows how fast it can; of a peer at the last but one of the loads."""
        speed = subject.events_per_second
        if not self._traffic.loads or not system.delivers or not speed:
            return
        wanted: list[tuple[float | None, float]] = [(share, share * speed) for share in loads]
        if self._traffic.steady_per_second and system.engine and loads:
            wanted.append((None, self._traffic.steady_per_second))
        for share, events_per_second in wanted:
            if subject.status == "ok":
                await self._latency(subject, system, share, events_per_second)

    async def _latency(self, subject: Subject, system: System, share: float | None, events_per_second: float) -> None:
        tell(f"{self._scenario}: {subject.system} at {events_per_second:,.0f} events/s")
        shape, latency_ms = self._traffic.shape, self._traffic.latency_ms
        try:
            phase = await self._bench.offer(system, shape, events_per_second, latency_ms=latency_ms)
        except (Failed, OSError) as error:
            out(subject, error)
            return
        phase.share = share
        subject.loads.append(phase)


def out(subject: Subject, error: Exception) -> None:
    subject.status, subject.reason = "not measured", str(error)


def note_pinning(subject: Subject, system: System, cores: Cores) -> None:
    """The kernel's word for where it may run."""
    found = [pinned_to(pid) for pid in system.pids]
    if cores.pinned and any(it != cores.system for it in found):
        subject.notes.append("it could not be pinned to its cores")


def note_limits(subject: Subject, shares: dict[str, float]) -> None:
    limits = (
        ("generator", GENERATOR_LIMIT, "generator at its limit: a lower bound"),
        ("sink", SINK_LIMIT, "sink at its limit: a lower bound"),
        ("foreign", FOREIGN_LIMIT, "shared machine"),
    )
    for name, limit, said in limits:
        if shares.get(name, 0.0) > limit and said not in subject.notes:
            subject.notes.append(said)
