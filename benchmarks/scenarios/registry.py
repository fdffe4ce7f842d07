"""Every scenario by its name, with what it costs in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from benchmarks.bench import Bench
from benchmarks.peers import ingress
from benchmarks.peers import kinds as peers
from benchmarks.processes import Failed
from benchmarks.result import Subject
from benchmarks.scenarios import growth
from benchmarks.scenarios.backfill import backfill
from benchmarks.scenarios.floors import floors
from benchmarks.scenarios.limits import Limit, combination, freshness_of_peers, utilisation
from benchmarks.scenarios.memory import memory
from benchmarks.scenarios.outage import outage
from benchmarks.scenarios.recovery import recovery
from benchmarks.scenarios.sink_cost import sink_cost
from benchmarks.scenarios.sizing import sizing
from benchmarks.scenarios.traffic import Traffic, contest, engines
from benchmarks.shapes import Shape
from benchmarks.systems import Contestant
from benchmarks.targets import FLOORS
from benchmarks.variant import Variant

STEADY_PER_SECOND = 2_000.0

Variants = Sequence[Variant]
Measure = Callable[[Bench, Variants], Awaitable[list[Subject]]]


class Scenario(msgspec.Struct, frozen=True):
    """`short`: part of ``make bench`` too; all are part of ``FULL=1``. `seconds`: about how long it takes.
    `least_size`: below that it cannot measure anything; 0 if it has no size."""

    name: str
    what: str
    measure: Measure
    short: bool = False
    seconds: int = 20
    variants: bool = True  # measures whichever engines it is given, side by side
    least_size: int = 0
    unit: str = ""  # of the size


def traffic(name: str, what: str, traffic: Traffic, *, short: bool = False, seconds: int = 20) -> Scenario:
    async def measure(bench: Bench, variants: Variants) -> list[Subject]:
        return await contest(bench, name, traffic, engines(traffic, variants))

    return Scenario(name, what, measure, short, seconds)


def with_peers(name: str, what: str, traffic: Traffic, *, short: bool = False, seconds: int = 60) -> Scenario:
    """The engine in turns with everything else that can do the job."""

    async def measure(bench: Bench, variants: Variants) -> list[Subject]:
        others: list[Contestant] = peers.contestants(traffic.shape) if bench.options.peers else []
        return await contest(bench, name, traffic, [*engines(traffic, variants), *others])

    return Scenario(name, what, measure, short, seconds)


def _canonical(n: int) -> list[Scenario]:
    shape = Shape(format="object" if n == 1 else "array", sizes=(n,))
    of = f"{n} event{'s' if n > 1 else ''} a request"
    single, many = "one profile a store request", "lists of up to 100 profiles"
    lists = Traffic(shape=shape, steady_per_second=STEADY_PER_SECOND if n == 10 else 0.0)
    one_by_one, kept = Traffic(shape=shape, encoding="single"), Traffic(shape=shape, ledger=True)
    both = Traffic(shape=shape, encoding="single", ledger=True)
    return [
        traffic(f"single-{n}", f"{single}, {of}", one_by_one, short=True),
        with_peers(f"array-{n}", f"{many}, {of}, beside peers", lists, short=True),
        traffic(f"array-{n}-ledger", f"{many}, {of}, ledger on", kept, short=n == 100),
        traffic(f"single-{n}-ledger", f"{single}, {of}, ledger on", both),
    ]


def _bulk() -> list[Scenario]:
    found = []
    for n in (100, 1_000):
        for kind, shape in (
            ("array", Shape(format="array", sizes=(n,))),
            ("ndjson", Shape(format="ndjson", sizes=(n,))),
            ("gzip", Shape(format="ndjson", sizes=(n,), compression="gzip")),
            ("zstd", Shape(format="ndjson", sizes=(n,), compression="zstd")),
        ):
            what = f"{n:,} events a request as {'NDJSON with ' + kind if shape.compression else kind}"
            found.append(traffic(f"bulk-{n}-{kind}", what, Traffic(shape=shape), short=n == 1_000 and kind != "array"))
    return found


def _people() -> list[Scenario]:
    aep = Shape(format="aep", sizes=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
    found = [traffic("aep", "AEP's Destination SDK shape, 1 to 10 profiles a request", Traffic(shape=aep), short=True)]
    for percent in (1, 10, 50, 99):
        shape = Shape(sizes=(10,), repeats=percent / 100)
        found.append(
            traffic(
                f"repeats-{percent}",
                f"{percent} % of events of people that came lately",
                Traffic(shape=shape),
                short=percent == 50,
            )
        )
    found.append(
        traffic(
            "zipf", "people by Zipf's law (exponent 1.1, 100,000 of them)", Traffic(shape=Shape(sizes=(10,), zipf=True))
        )
    )
    return found


def _latency() -> list[Scenario]:
    found = []
    for latency_ms in (1, 50, 500):
        of = Traffic(shape=Shape(sizes=(10,)), latency_ms=latency_ms, concurrency=256)
        found.append(
            traffic(
                f"latency-{latency_ms}",
                f"a store that answers after {latency_ms} ms, 256 requests at once",
                of,
                short=latency_ms == 50,
            )
        )
    return found


def _limits() -> list[Scenario]:
    found = []
    for rate in (10, 100, 1_000):
        for latency_ms in (1, 50, 500):
            name, limit = f"limit-{rate}-{latency_ms}", Limit(rate=rate, offered=3 * rate, latency_ms=latency_ms)
            what = (
                f"{rate:,} requests/s allowed, three times as many events, a store that answers after {latency_ms} ms"
            )
            found.append(_limit(name, what, limit))
    return [
        Scenario(
            "utilisation", "share of the allowed requests that is used, 10 to 5,000 a second", utilisation, True, 45
        ),
        Scenario("freshness", "how fresh what leaves is under a limit, beside peers", freshness_of_peers, True, 45),
        *found,
    ]


def _limit(name: str, what: str, limit: Limit) -> Scenario:
    async def measure(bench: Bench, variants: Variants) -> list[Subject]:
        return await combination(bench, name, limit, variants)

    return Scenario(name, what, measure, seconds=12)


def _ingress() -> list[Scenario]:
    return [_ingress_of(n) for n in (1, 10, 100)]


def _ingress_of(n: int) -> Scenario:
    name, shape = f"ingress-{n}", Shape(format="object" if n == 1 else "array", sizes=(n,))

    async def measure(bench: Bench, variants: Variants) -> list[Subject]:
        return await contest(bench, name, Traffic(shape=shape), ingress.contestants()) if bench.options.peers else []

    return Scenario(name, f"servers that only read and answer, {n} events a request", measure, n == 10, 35)


def _sizes() -> list[Scenario]:
    return [
        Scenario("sizing", "a rule for CPU from three measurements, and what it foretells", sizing, True, 40),
        Scenario(
            "sink", "the sink and the sandbox, what each costs", sink_cost, True, 15, least_size=100, unit="events"
        ),
        Scenario(
            "growth", "cost over 10,000 to 1,000,000 events", growth.events, seconds=90, least_size=100, unit="events"
        ),
        Scenario("fleet", "1, 10 and 100 destinations", growth.fleet, seconds=60, least_size=100, unit="deliveries"),
        Scenario("memory", "1,000,000 pending profiles", memory, seconds=120, least_size=1_000, unit="profiles"),
        Scenario(
            "recovery",
            "a restart with 1,000,000 events in the journal",
            recovery,
            seconds=150,
            least_size=1,
            unit="events",
        ),
        Scenario(
            "outage",
            "the destination away for 60 s, and catching up",
            outage,
            seconds=120,
            least_size=1,
            unit="seconds",
        ),
        Scenario(
            "backfill",
            "1,000,000 profiles beside live traffic",
            backfill,
            seconds=420,
            least_size=1_000,
            unit="profiles",
        ),
    ]


def sized(wanted: Sequence[Scenario], size: int) -> list[Scenario]:
    """Raises Failed when a size is given (not 0) that none of them has, or that is too small for one that has it."""
    having = [it for it in wanted if it.least_size]
    if size and not having:
        raise Failed(f"none of {', '.join(it.name for it in wanted)} has a size; leave out --size")
    for it in having:
        if size and size < it.least_size:
            raise Failed(f"--size {size:,} is too small for {it.name!r}: at least {it.least_size:,} {it.unit}")
    return list(wanted)


def scenarios() -> dict[str, Scenario]:
    """In the order in which a run takes them: floors first, as targets are held against them."""
    first = Scenario(FLOORS, "what nothing can be faster than here, and the sum of the parts", floors, True, 20)
    parts = (*map(_canonical, (1, 10, 100)), _bulk(), _people(), _latency(), _ingress(), _limits(), _sizes())
    return {it.name: it for it in (first, *(it for part in parts for it in part))}
