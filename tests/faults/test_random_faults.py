"""Whatever goes wrong at RainFocus, and however often the engine dies meanwhile, the promises hold.

`FAULT_SEED=7 make test-faults` runs another sequence, `FAULT_SECONDS` a longer one. What the engine does between two
faults is up to the clock: a seed repeats the faults, not the run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness import Oracle, Place, Producer, Sandbox, place_at, sandbox_at

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SEED = int(os.environ.get("FAULT_SEED", "1"))
SECONDS = float(os.environ.get("FAULT_SECONDS", "45"))
RATE, BURST = 100.0, 5
SINGLE, LISTING = "demo27", "list27"
RETRY_AFTER_SECONDS = 1
ON_THE_WIRE_SECONDS = 0.25  # what a request that left before the reply was read may take to arrive

FAULTS: tuple[tuple[dict[str, object], ...], ...] = (
    ({"kind": "status", "status": 429, "retry_after": RETRY_AFTER_SECONDS, "probability": 0.03},),
    ({"kind": "html_500", "status": 429, "probability": 0.2},),
    ({"kind": "html_500", "status": 503, "retry_after": "date", "probability": 0.03},),
    ({"kind": "html_500", "probability": 0.3},),
    ({"kind": "html_500", "status": 503, "probability": 0.3},),
    ({"kind": "html_500", "status": 503},),
    ({"kind": "reset_before", "probability": 0.3},),
    ({"kind": "reset_after", "probability": 0.3},),
    ({"kind": "reset_before", "probability": 0.2}, {"kind": "reset_after", "probability": 0.2}),
    ({"kind": "latency", "seconds": 0.25, "probability": 0.4},),
    ({"kind": "timeout", "seconds": 4, "probability": 0.05},),
    ({"kind": "timeout_after", "seconds": 4, "probability": 0.05},),
    ({"kind": "drip", "seconds": 0.2, "probability": 0.3},),
    ({"kind": "token_storm", "seconds": 0.3, "probability": 0.2},),
    ({"kind": "token_storm", "seconds": 0.3}, {"kind": "html_500", "path": "token", "probability": 0.5}),
    (),
)
SEEN = {"status", "html_500", "reset_before", "reset_after", "latency", "timeout", "timeout_after", "token_storm"}

TABLES: dict[str, Any] = {
    "account": [{"rate": {"requests_per_second": RATE, "burst": BURST, "max_concurrency": 8}}],
    "destination": [
        {"retry": {"max_attempts": 10_000}},
        {
            "name": "listing",
            "event_code": LISTING,
            "encoding": "array",
            "batch": {"max_profiles": 20},
            "retry": {
                "base_ms": 20,
                "cap_ms": 500,
                "timeout_seconds": 2.0,
                "unknown_hold_seconds": 0.5,
                "max_attempts": 10_000,
            },
        },
    ],
}


class Seen(msgspec.Struct, frozen=True):
    """One store request: when it arrived and when its answer was decided (epoch seconds)."""

    arrived_at: float
    answered_at: float
    status: int
    fault: str


class Watch:
    """Collects the sandbox's API log, which shows the newest requests only."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.requests: set[Seen] = set()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
        await self._look()

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(1.0)

    async def _look(self) -> None:
        for one in (await self._sandbox.call("GET", "requests?limit=1000"))["requests"]:
            if one["path"].endswith("/store"):
                arrived = one["at"] - one["milliseconds"] / 1000
                self.requests.add(Seen(arrived, one["at"], one["status"], one["fault"]))

    def in_pauses(self) -> list[tuple[float, float]]:
        """(pause asked for at, request at) for every request inside a Retry-After window."""
        asked = [it.answered_at for it in self.requests if (it.status, it.fault) == (429, "status")]
        assert asked, "nobody ever asked for a pause"
        return [
            (at, one.arrived_at)
            for at in asked
            for one in self.requests
            if at + ON_THE_WIRE_SECONDS < one.arrived_at < at + RETRY_AFTER_SECONDS
        ]


async def test_the_promises_hold_under_random_faults_and_kills(tmp_path: Path) -> None:
    arguments = ("--seed", str(SEED), "--latency-ms", "10", "--token-seconds", "5")
    async with (
        sandbox_at(tmp_path, *arguments) as sandbox,
        place_at(tmp_path / "engine", sandbox.url, **TABLES) as place,
    ):
        producers = [Producer(name, place, people=40, pause_seconds=0.08) for name in ("ada", "bob", "cyd")]
        oracle, watch = Oracle(*producers), Watch(sandbox)
        async with watch.watching():
            kills = await _trouble(random.Random(SEED), place, sandbox, producers)
            await place.settled(100.0)
        await oracle.check(sandbox, SINGLE, LISTING)
        await _check_sums(place, oracle, sandbox)
        await _check_rate(sandbox)
        assert watch.in_pauses() == []
        assert kills > 2
        assert oracle.unknown > 0
        assert set((await sandbox.stats())["by_fault"]) >= SEEN


async def _trouble(source: random.Random, place: Place, sandbox: Sandbox, producers: Sequence[Producer]) -> int:
    """Producers stream for `SECONDS` while everything goes wrong; no fault is left at the end. How often it died."""
    kills, order = 0, _shuffled(source)
    clock = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        await place.serve()
        for producer in producers:
            await stack.enter_async_context(producer.producing())
        end = clock.time() + SECONDS
        while clock.time() < end:
            await sandbox.faults(*next(order), *(next(order) if source.random() < 0.3 else ()))
            await asyncio.sleep(source.uniform(0.5, 1.5))
            choice = source.random()
            if choice < 0.2:
                await place.kill()
                kills += 1
            elif choice < 0.3:
                await place.stop()
            if not place.url:
                await place.serve()
        await sandbox.faults()
    return kills


def _shuffled(source: random.Random) -> Iterator[tuple[dict[str, object], ...]]:
    """Every fault in turn, in an order of its own each time."""
    while True:
        yield from source.sample(FAULTS, len(FAULTS))


async def _check_sums(place: Place, oracle: Oracle, sandbox: Sandbox) -> None:
    durable = len(oracle.durable_events(await sandbox.attendees(SINGLE)))
    for sums in (await place.balanced()).values():
        assert (sums["accepted"], sums["pending"]) == (durable, 0)
        assert sums["dead_lettered"] == sums["expired"] == sums["excluded"] == 0


async def _check_rate(sandbox: Sandbox) -> None:
    """Over every kill and restart; and the limit was reached, or keeping it would prove nothing."""
    measured = await sandbox.call("GET", f"rate?rate={RATE}&burst={BURST}")
    assert [window["over"] for window in measured["windows"]] == [0, 0], measured
    assert measured["windows"][0]["max"] > 0.8 * RATE, measured
