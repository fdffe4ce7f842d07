"""A load bench against an engine that runs: first the question whom it would reach, then load, then the sums."""

from __future__ import annotations

import asyncio
import math
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from engine.bench.events import Workload
from engine.bench.histogram import bucket_quantile
from engine.bench.load import Load, LoadResult
from engine.bench.pacing import Schedule
from engine.bench.results import Cell, Latency, Quantiles
from engine.bench.wire import Site
from engine.errors import EngineError

SETTLE_SECONDS = 30.0
"""How long the bench waits for what it sent to be delivered."""

PENDING_SECONDS = 0.2
PROFILES_PATH = "/v1/profiles"


class Refused(EngineError):
    """The bench would reach a real attendee store that nobody named."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. `events_per_second` 0: as fast as it goes, with every connection busy."""

    url: str
    key: str = ""
    events_per_second: float = 0.0
    seconds: float = 10.0
    events_per_request: int = 10
    concurrency: int = 16
    source: str = ""

    def __repr__(self) -> str:
        return f"Plan(url={self.url!r}, seconds={self.seconds})"


class Admin(msgspec.Struct, frozen=True):
    """What the bench asks of the running engine: its destinations, and its metrics as text."""

    destinations: Callable[[], Awaitable[list[dict[str, Any]]]]
    metrics: Callable[[], Awaitable[str]]


WEBHOOK = "webhook"
"""The environment of a [[forward]]: it hears of RainFocus's changes, and of nothing that a bench sends."""


def check_destinations(destinations: Sequence[Mapping[str, Any]], allowed: Collection[str]) -> None:
    """Raises Refused unless every destination is in the sandbox or in `allowed`."""
    names = {str(it.get("name")) for it in destinations}
    if unknown := sorted(set(allowed) - names):
        raise Refused(f"there is no destination {unknown[0]!r}; there are {', '.join(sorted(names)) or 'none'}")
    real = sorted(str(it.get("name")) for it in destinations if it.get("environment") not in ("sandbox", WEBHOOK))
    if beyond := [name for name in real if name not in allowed]:
        options = " ".join(f"--allow-destination {name}" for name in beyond)
        shown = ", ".join(beyond)
        raise Refused(f"outside the sandbox: {shown}; nothing was sent. If that is meant: {options}")


async def bench(
    plan: Plan, admin: Admin, *, allowed: Collection[str] = (), trust: ssl.SSLContext | None = None
) -> list[Cell]:
    """One cell a destination. Raises Refused before anything is sent, OSError when nobody answers."""
    check_destinations(await admin.destinations(), allowed)
    before = _measured(await admin.metrics())
    started = time.monotonic()
    result = await _load(plan, trust)
    destinations = await _settled(admin)
    seconds = time.monotonic() - started
    after = _measured(await admin.metrics())
    return [
        _cell(plan, result, destination, before, after, seconds)
        for destination in destinations
        if destination.get("environment") != WEBHOOK
    ]


async def _load(plan: Plan, trust: ssl.SSLContext | None) -> LoadResult:
    authorization = f"Bearer {plan.key}" if plan.key else ""
    path = PROFILES_PATH + (f"?source={plan.source}" if plan.source else "")
    workload = Workload(f"bench-{secrets.token_hex(4)}", plan.events_per_request)
    requests_per_second = plan.events_per_second / plan.events_per_request
    load = Load(
        Site.of(plan.url, path, authorization=authorization),
        workload.body,
        plan.events_per_request,
        connections=plan.concurrency,
        seconds=plan.seconds,
        schedule=Schedule(requests_per_second, plan.seconds) if requests_per_second else None,
        trust=trust,
    )
    return await load.run()


async def _settled(admin: Admin) -> list[dict[str, Any]]:
    """The destinations once nothing is pending any more, or the time is over."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = await admin.destinations()
        pending = sum(it.get("counts", {}).get("pending", 0) for it in found)
        if not pending or time.monotonic() > deadline:
            return found
        await asyncio.sleep(PENDING_SECONDS)


class _Counts(msgspec.Struct):
    """Of one destination, from its metrics."""

    delivered: float = 0.0
    delivery: dict[float, float] = msgspec.field(default_factory=dict)  # upper bound in seconds -> count so far


def _measured(metrics: str) -> dict[str, _Counts]:
    """By destination."""
    found: dict[str, _Counts] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            counts = found.setdefault(sample.labels.get("destination", ""), _Counts())
            if sample.name == "engine_events_delivered_total":
                counts.delivered = sample.value
            elif sample.name == "engine_delivery_seconds_bucket":
                counts.delivery[float(sample.labels["le"])] = sample.value
    return found


def _cell(
    plan: Plan,
    result: LoadResult,
    destination: Mapping[str, Any],
    before: Mapping[str, _Counts],
    after: Mapping[str, _Counts],
    seconds: float,
) -> Cell:
    name = str(destination.get("name"))
    old, new = before.get(name, _Counts()), after.get(name, _Counts())
    late = result.refused + result.failed + result.unsent
    load = f"{plan.events_per_second:,.0f}/s" if plan.events_per_second else "all"
    delivered = new.delivered - old.delivered
    acks = Quantiles.of(result.acks)
    latency = Latency(
        load, round(result.events_per_second, 1), acks, delivery_quantiles(old.delivery, new.delivery), late
    )
    return Cell(
        encoding=f"{name} ({destination.get('encoding', '?')})",
        ledger=None,
        events_per_request=plan.events_per_request,
        events=int(delivered),
        seconds=round(seconds, 3),
        events_per_second=round(delivered / seconds, 1) if seconds else 0.0,
        cpu_us_per_event=None,
        ack=acks,
        refused=result.refused,
        failed=result.failed,
        latencies=[latency],
    )


def delivery_quantiles(before: Mapping[float, float], after: Mapping[float, float]) -> Quantiles | None:
    """What was counted between two readings of `engine_delivery_seconds`; None when nothing was."""
    grown = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    p50, p99 = bucket_quantile(grown, 0.50), bucket_quantile(grown, 0.99)
    if p50 is None or p99 is None:
        return None
    bounds = sorted(grown)
    grew = [bound for lower, bound in zip([0.0, *bounds], bounds, strict=False) if grown[bound] > grown.get(lower, 0.0)]
    longest = min(grew[-1], bounds[-2] if len(bounds) > 1 else bounds[-1])
    return Quantiles.of_seconds(p50, p99, longest, int(grown[math.inf]))
