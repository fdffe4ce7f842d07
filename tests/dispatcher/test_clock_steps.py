"""The wall clock jumps by an hour, as a machine's does when it finds the right time. Only what is stored follows it."""

from __future__ import annotations

import anyio
import pytest
from stage import Stage, event, on_virtual_time

from engine.model import Batch, Verdict, VerdictKind
from engine.testing.destination import FakeDestination, Step

HOUR_SECONDS = 3_600.0
SILENCE_SECONDS = 30.0
THROTTLED = Verdict(VerdictKind.RETRY, "http_429")
BOTH_WAYS = pytest.mark.parametrize("step", [HOUR_SECONDS, -HOUR_SECONDS], ids=["forward", "back"])


@BOTH_WAYS
@on_virtual_time
async def test_what_waits_is_sent_as_soon_as_without_the_step(step: float) -> None:
    destination = FakeDestination(profiles_per_request=100)
    stage = Stage()
    stage.destination("demo", destination, linger=1.0)
    async with stage.running():
        await stage.submit(event(1, city="Lille"))
        stage.clock.epoch += step
        await stage.settled(within=5.0)
    assert len(destination.requests) == 1


@BOTH_WAYS
@on_virtual_time
async def test_nothing_is_sent_inside_a_retry_after_and_it_ends_in_time(step: float) -> None:
    throttled = Step(THROTTLED, retry_after_seconds=SILENCE_SECONDS, throttled=True)
    destination = FakeDestination([throttled])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1, city="Lille"))
        await anyio.sleep(1.0)
        stage.clock.epoch += step
        await stage.submit(event(1, city="Lyon"))
        await stage.settled(within=2 * SILENCE_SECONDS)
    first, second = (request.at for request in destination.requests)
    assert second - first >= SILENCE_SECONDS


@BOTH_WAYS
@on_virtual_time
async def test_nobody_expires_who_has_not_waited(step: float) -> None:
    destination = FakeDestination(answer=lambda batch: Step(seconds=1.0))
    stage = Stage()
    stage.account(concurrency=1)
    stage.destination("demo", destination, max_age_seconds=60.0)
    async with stage.running():
        await stage.submit(*(event(person, city="Lille") for person in range(10)))
        await anyio.sleep(2.5)
        stage.clock.epoch += step
        await stage.submit(*(event(person, city="Lyon") for person in range(10, 20)))
        await stage.settled(within=60.0)
    assert stage.counts("demo") == {"delivered": 20}


@on_virtual_time
async def test_those_who_have_waited_too_long_expire_all_the_same() -> None:
    def refused(batch: Batch) -> Step:
        return Step(Verdict(VerdictKind.RETRY, "http_409")) if b"p1@" in batch.records[0] else Step()

    stage = Stage()
    stage.destination("demo", FakeDestination(answer=refused), max_age_seconds=60.0, max_attempts=1_000)
    async with stage.running():
        await stage.submit(event(1, city="Lille"))
        stage.clock.epoch += HOUR_SECONDS
        for person in range(100, 300):
            await stage.submit(event(person, city="Lyon"))
            await anyio.sleep(1.0)
        await stage.settled()
    assert stage.counts("demo")["expired:max_age"] == 1


@BOTH_WAYS
@on_virtual_time
async def test_no_burst_follows(step: float) -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.account(rate=10.0, burst=2)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person, city="Lille") for person in range(100)))
        await anyio.sleep(2.0)
        stage.clock.epoch += step
        await stage.settled(within=20.0)
    at = [request.at for request in destination.requests]
    assert all(later - earlier >= 1.0 - 1e-6 for earlier, later in zip(at, at[12:], strict=False))
