"""A destination that is away for a minute while events keep coming, and how it is caught up with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.bench import Bench, fresh, settled, tell
from benchmarks.processes import Failed
from benchmarks.result import MILLI, Subject
from benchmarks.scenarios.growth import audited
from benchmarks.shapes import Shape
from benchmarks.sinks import get
from benchmarks.systems import System, engine_running
from benchmarks.variant import Variant, engine_config

SECONDS = 60
OFFERED_PER_SECOND = 2_000.0
BEFORE_SHARE, AFTER_SHARE = 0.1, 0.4
POLL_SECONDS, SETTLE_SECONDS = 0.05, 300.0


async def outage(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    away, found = float(bench.options.size or SECONDS), []
    for variant in variants:
        tell(f"outage: the sink is away for {away:g} s")
        with engine_running(variant, engine_config(bench.sink.url, ledger=True), bench.place("outage")) as system:
            figures = await _measure(bench, system, away)
        found.append(Subject(scenario="outage", system=variant.name, figures=figures))
    return found


async def _measure(bench: Bench, system: System, away: float) -> dict[str, float]:
    shape = Shape(sizes=(10,))
    await bench.warm_up(system, shape)
    await bench.sink.reset()
    job = bench.job(system, fresh(shape), seconds=away * (1 + BEFORE_SHARE + AFTER_SHARE))
    job.per_second = OFFERED_PER_SECOND / shape.events_per_request
    sending = asyncio.create_task(bench.generate(job))
    await asyncio.sleep(away * BEFORE_SHARE)
    await bench.sink.down(away)
    back_at = time.monotonic() + away
    await asyncio.sleep(away)
    backlog = await _pending(bench, system)
    first = await _first_after(bench, back_at)
    caught_up = await _caught_up(bench, system, back_at)
    done = await sending
    await settled(bench.session, system.url, SETTLE_SECONDS)
    await audited(bench, system)
    stats = await bench.sink.stats()
    if stats.people < done.events:
        raise Failed(f"{stats.people:,} people arrived, of {done.events:,} accepted")
    return {
        "away_seconds": away,
        "events": done.events,
        "refused_requests": done.refused,
        "ack_p50_ms": round(done.acks.quantile(0.5) * MILLI, 2),
        "ack_p99_ms": round(done.acks.quantile(0.99) * MILLI, 2),
        "backlog_events": backlog,
        "first_delivery_after_seconds": first,
        "caught_up_after_seconds": caught_up,
        "caught_up_events_per_second": round((backlog + caught_up * OFFERED_PER_SECOND) / max(caught_up, 1e-3)),
    }


async def _pending(bench: Bench, system: System) -> int:
    (one,) = (await get(bench.session, f"{system.url}/v1/destinations"))["destinations"]
    return int(one["counts"]["pending"])


async def _first_after(bench: Bench, back_at: float) -> float:
    """Seconds from the sink's return to the first record that it took."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        try:
            times = await bench.sink.requests()
        except OSError:
            times = None  # not back yet
        after = next((it for it in times or () if it > back_at - POLL_SECONDS), None)
        if after is not None:
            return round(max(0.0, after - back_at), 3)
        await asyncio.sleep(POLL_SECONDS)
    raise Failed(f"nothing was delivered within {SETTLE_SECONDS:.0f} s after the sink was back")


async def _caught_up(bench: Bench, system: System, back_at: float) -> float:
    """Seconds until no more is pending than what is always under way."""
    while await _pending(bench, system) > OFFERED_PER_SECOND * 0.2:
        if time.monotonic() - back_at > SETTLE_SECONDS:
            raise Failed(f"it had not caught up after {SETTLE_SECONDS:.0f} s")
        await asyncio.sleep(POLL_SECONDS)
    return round(time.monotonic() - back_at, 3)
