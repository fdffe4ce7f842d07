"""The bucket keeps its rate, and uses it."""

from __future__ import annotations

import asyncio
import math

import pytest

from engine.adapters.limiter import AiolimiterBucket
from engine.testing.clock import run_virtual


async def takes(rate: float, burst: int, seconds: float, idle_seconds: float = 0.0) -> list[float]:
    loop, bucket, times = asyncio.get_running_loop(), AiolimiterBucket(rate, burst), []
    if idle_seconds:
        await bucket.take()
        await asyncio.sleep(idle_seconds)
    start = loop.time()
    while loop.time() < start + seconds:
        await bucket.take()
        times.append(loop.time())
    return times


def assert_never_over(times: list[float], rate: float, burst: int) -> None:
    """Every window that begins with a take, by the debt it would leave: the largest run of takes ahead of the rate."""
    lowest = math.inf
    for index, at in enumerate(times):
        lowest = min(lowest, index - rate * at)
        assert index + 1 - rate * at - lowest <= burst + 1e-6


@pytest.mark.parametrize(("rate", "burst"), [(10, 2), (10, 10), (100, 2), (1000, 10), (1000, 100), (5000, 50)])
def test_never_over_and_hardly_under(rate: float, burst: int) -> None:
    seconds = 20_000 / rate if rate < 1000 else 4
    times = run_virtual(takes, rate, burst, seconds)
    assert_never_over(times, rate, burst)
    assert len(times) >= 0.98 * rate * seconds


@pytest.mark.parametrize(("rate", "burst"), [(10, 10), (1000, 100)])
def test_it_starts_empty(rate: float, burst: int) -> None:
    times = run_virtual(takes, rate, burst, 10 / rate)
    assert times[0] >= 1 / rate
    assert len(times) <= 11


def test_an_idle_bucket_fills_to_its_burst_and_no_further() -> None:
    times = run_virtual(takes, 100, 20, 0.1, 60.0)
    assert sum(at < times[0] + 0.001 for at in times) == 20
    assert_never_over(times, 100, 20)


def test_a_cancelled_take_costs_nothing() -> None:
    async def cancelled() -> float:
        loop, bucket = asyncio.get_running_loop(), AiolimiterBucket(1.0, 2)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await bucket.take()
        await bucket.take()
        return loop.time()

    assert run_virtual(cancelled) < 2.0
