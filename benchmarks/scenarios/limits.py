"""Under a rate limit, the usual life: how much of it is used, whether it is kept, and how fresh what leaves is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from benchmarks.bench import Bench, fresh, tell
from benchmarks.judging import APART
from benchmarks.peers import batcher
from benchmarks.processes import Failed
from benchmarks.result import MILLI, Subject
from benchmarks.scenarios.traffic import out
from benchmarks.shapes import Shape
from benchmarks.sinks import Records
from benchmarks.systems import Contestant, System, engine
from benchmarks.variant import Config, Variant, engine_config
from engine.bench.histogram import Histogram
from engine.bench.machine import cpu_seconds
from engine.sandbox.rates import measure

RATES = (10.0, 100.0, 1_000.0, 5_000.0)
BELOW_PERCENT, BUSY_PERCENT = 98.0, 85.0
SECONDS_OF_PHASES = 4.0
"""A limit is watched for so many times the length of a phase: its windows are a second and ten."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed, and how much comes in."""

    rate: float
    offered: float  # events a second
    shape: Shape = Shape(sizes=(10,), zipf=True)
    encoding: str = "single"
    latency_ms: float = 0.0

    @property
    def burst(self) -> int:
        return max(2, math.ceil(self.rate / 100))

    def parameters(self) -> dict[str, float | int | str | bool]:
        return {
            "encoding": self.encoding,
            "allowed_requests_per_second": self.rate,
            "burst": self.burst,
            "offered_events_per_second": self.offered,
            "events_per_request": self.shape.events_per_request,
            "sink_latency_ms": self.latency_ms,
        }

    def config(self, sink: str) -> Config:
        waiting = math.ceil(self.rate * (self.latency_ms + 20) / 1_000) + 4
        return engine_config(
            sink, encoding=self.encoding, rate=self.rate, burst=self.burst, concurrency=min(1_000, max(16, waiting))
        )


async def under_limit(bench: Bench, scenario: str, limit: Limit, contestant: Contestant) -> Subject:
    """More comes in than may leave, from a start with nothing pending."""
    subject = Subject(scenario=scenario, system=contestant.name, parameters=limit.parameters())
    seconds = bench.options.seconds * SECONDS_OF_PHASES
    tell(f"{scenario}: {contestant.name}, {seconds:g} s")
    try:
        with contestant.start(bench.place("limit")) as system:
            subject.figures = await _watched(bench, system, limit, seconds)
        note_stall(subject, limit.rate)
        note_busy(subject)
    except (Failed, OSError) as error:
        out(subject, error)
    return subject


async def _watched(bench: Bench, system: System, limit: Limit, seconds: float) -> dict[str, float]:
    await bench.sink.reset(limit.latency_ms)
    shape = fresh(limit.shape)
    job = bench.job(system, shape, seconds=seconds)
    job.per_second = limit.offered / shape.events_per_request
    before = sum(map(cpu_seconds, system.pids))
    done = await bench.generate(job)
    cpu = sum(map(cpu_seconds, system.pids)) - before
    times, records, stats = await bench.sink.requests(), await bench.sink.records(), await bench.sink.stats()
    if not done.events or len(times) < 2:
        raise Failed(f"of {done.sent:,} requests {done.requests:,} were taken, and {len(times):,} arrived at the sink")
    found = {"allowed_requests_per_second": limit.rate, **usage(times, limit.rate, limit.burst)}
    found |= freshness(shape, records, len(times), done.started_at, job.per_second, offered=done.events)
    found |= {"cpu_share_percent": round(100 * cpu / seconds, 1), "refused_requests": done.refused}
    return found | {"sink_stall_ms": round(stats.stall_ms, 1)}


def note_stall(subject: Subject, rate: float) -> None:
    """What came while the sink itself was held up looks as if it had come at once."""
    figures = subject.figures
    beyond = figures["most_in_1_second"] - figures["allowed_in_1_second"]
    if 0 < beyond <= figures["sink_stall_ms"] / 1_000 * rate:
        subject.notes.append("the sink was held up for longer than the excess: windows over say nothing")


def note_busy(subject: Subject) -> None:
    figures = subject.figures
    if figures["used_percent"] < BELOW_PERCENT and figures["cpu_share_percent"] > BUSY_PERCENT:
        subject.notes.append("its core was the limit, not the rate")


def usage(times: Sequence[float], rate: float, burst: int) -> dict[str, float]:
    """`used_percent` from the first request on; windows of one and of ten seconds, wherever they start."""
    seen = measure(times, rate, burst)
    return {
        "requests": len(times),
        "used_percent": round(100 * (len(times) - 1) / (rate * seen["span_seconds"]), 2),
        "most_in_1_second": seen["windows"][0]["max"],
        "allowed_in_1_second": rate + burst,
        "windows_over": sum(it["over"] for it in seen["windows"]),
    }


def freshness(
    shape: Shape, records: Records, requests: int, started_at: float, per_second: float, *, offered: int
) -> dict[str, float]:
    """Events that a request covers, by themselves or in a newer one; and how old what is sent is when it arrives."""
    ages, covered = Histogram(), 0
    newest: dict[int, int] = {}
    for at, person, version in records:
        ages.add(max(0.0, at - started_at - shape.request_of(version % APART) / per_second))
        newest[person] = max(newest.get(person, -1), version)
    for event in range(offered):
        covered += event <= newest.get(shape.person_of(event), -1)
    return {
        "profiles_per_request": round(len(records.times) / requests, 2),
        "events_covered_per_request": round(covered / requests, 2),
        "events_covered_percent": round(100 * covered / offered, 1),
        "age_p50_ms": round(ages.quantile(0.5) * MILLI, 1),
        "age_p99_ms": round(ages.quantile(0.99) * MILLI, 1),
    }


# -- scenarios --------------------------------------------------------------------------------------------------------


async def combination(bench: Bench, name: str, limit: Limit, variants: Sequence[Variant]) -> list[Subject]:
    return [await under_limit(bench, name, limit, engine(it, limit.config)) for it in variants]


async def utilisation(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    """Single-profile requests from 10 to 5,000 a second, always with more waiting than may leave."""
    found = []
    for variant in variants:
        for rate in RATES:
            limit = Limit(rate=rate, offered=max(50.0, 1.2 * rate), shape=Shape(sizes=(10,)))
            subject = await under_limit(bench, "utilisation", limit, engine(variant, limit.config))
            subject.system = f"{variant.name}, {rate:g}/s"
            found.append(subject)
    return found


async def freshness_of_peers(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    """10 requests a second of up to 100 profiles, for 3,000 events a second of people that come again."""
    limit = Limit(rate=10.0, offered=3_000.0, encoding="array")
    contestants = [engine(it, limit.config) for it in variants]
    if bench.options.peers:
        contestants += [batcher.contestant(kind, limit.rate) for kind in batcher.KINDS]
    return [await under_limit(bench, "freshness", limit, it) for it in contestants]
