"""Backfill beside live updates: what each gets, what stays in memory, and that reading goes on (DESIGN §4, Limits)."""

from __future__ import annotations

import json
from collections.abc import Iterable

import anyio
import pytest
from stage import Stage, address, event, on_virtual_time

from engine.model import Batch, Event, Lane
from engine.testing.destination import FakeDestination, Step, ok

RATE = 100.0


def people(lane: str, numbers: Iterable[int], **fields: object) -> list[Event]:
    return [event(f"{lane}-{number}", **fields) for number in numbers]


class Arrivals(FakeDestination):
    """When each person arrived, by lane: who is of which stands in the address."""

    def __init__(self, **options: int) -> None:
        self.at: dict[str, float] = {}
        super().__init__(answer=self._note, **options)

    def _note(self, batch: Batch) -> Step:
        for profile in batch.profiles:
            self.at.setdefault(json.loads(profile.content)["email"], anyio.current_time())
        return Step(ok(), seconds=0.02)

    def of(self, lane: str, since: float = 0.0) -> list[float]:
        return sorted(at for email, at in self.at.items() if email.startswith(f"p{lane}-") and at >= since)


async def live_updates(stage: Stage, per_second: float, seconds: float, first: int = 0) -> dict[str, float]:
    """address -> when it was accepted."""
    accepted = {}
    for number in range(first, first + round(per_second * seconds)):
        await stage.submit(event(f"live-{number}"))
        accepted[address(f"live-{number}")] = anyio.current_time()
        await anyio.sleep(1 / per_second)
    return accepted


def p99(destination: Arrivals, accepted: dict[str, float]) -> float:
    waits = sorted(destination.at[email] - at for email, at in accepted.items())
    return waits[int(len(waits) * 0.99) - 1]


@on_virtual_time
async def test_live_updates_are_hardly_slower_beside_a_backfill(record_property: pytest.RecordProperty) -> None:
    """Half of the rate is live, and a backfill of 2,000 waits for the other half. A request more before one's own is
    10 ms at this rate."""
    destination = Arrivals()
    stage = Stage()
    stage.account(rate=RATE, concurrency=20)
    stage.destination("demo", destination)
    async with stage.running():
        alone = await live_updates(stage, RATE / 2, 20.0)
        await stage.settled()
        await stage.submit(*people("back", range(2_000)), lane=Lane.BACKFILL)
        beside = await live_updates(stage, RATE / 2, 20.0, first=100_000)
        assert len(destination.of("back")) < 2_000, "it lasted as long as the measurement"
        await stage.settled()
    figures = p99(destination, alone), p99(destination, beside)
    record_property("live p99 alone, beside backfill (s)", tuple(round(it, 4) for it in figures))
    assert figures[1] <= figures[0] + 3 / RATE
    assert stage.counts("demo") == {"delivered": 4_000}


@on_virtual_time
async def test_every_lane_with_work_gets_a_tenth_of_the_permits() -> None:
    destination = Arrivals()
    stage = Stage()
    stage.account(rate=RATE, concurrency=20)
    stage.destination("demo", destination)
    async with stage.running():
        for lane in Lane:
            await stage.submit(*people(lane.name, range(2_000)), lane=lane)
        await anyio.sleep(10.0)
        shares = {lane.name: len(destination.of(lane.name)) / len(destination.at) for lane in Lane}
    assert len(destination.at) > 0.95 * 10 * RATE
    assert shares["LIVE"] == pytest.approx(0.8, abs=0.01)
    assert shares["REPLAY"] == pytest.approx(0.1, abs=0.01)
    assert shares["BACKFILL"] == pytest.approx(0.1, abs=0.01)


@on_virtual_time
async def test_a_lane_without_work_leaves_its_permits_to_the_others() -> None:
    destination = Arrivals()
    stage = Stage()
    stage.account(rate=RATE, concurrency=20)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*people("back", range(500)), lane=Lane.BACKFILL)
        await stage.settled(within=6.0)
    assert len(destination.of("back")) == 500


@pytest.mark.parametrize("bound_by", ["number", "bytes"])
def test_backfill_fills_four_fifths_of_a_share_and_reading_goes_on(bound_by: str) -> None:
    """It stands still, so nothing leaves; what is beyond the share is on disk, and the newest event has been read."""

    @on_virtual_time
    async def scene() -> None:
        destination = Arrivals(profiles_per_request=50)
        weight = 1_000
        limits = {"max_profiles": 500} if bound_by == "number" else {"max_bytes": 500 * (weight + 600)}
        stage = Stage()
        stage.destination("demo", destination, **limits)
        async with stage.running():
            consumer = stage.consumers["demo"]
            consumer.set_paused(True)
            for first in range(0, 5_000, 100):
                heavy = people("back", range(first, first + 100), city="x" * weight)
                await stage.submit(*heavy, lane=Lane.BACKFILL)
                await anyio.sleep(0.1)
            await stage.submit(*people("live", range(20)))
            await anyio.sleep(5.0)
            assert consumer.position == stage.pipeline.commit.next_offset, "all of it has been read"
            assert consumer.coalescer.ready_in(Lane.LIVE) == 20
            in_memory, weighs = consumer.coalescer.waiting, consumer.coalescer.bytes
            assert in_memory >= 200
            assert in_memory <= 0.8 * consumer.policy.max_profiles
            assert weighs <= 0.8 * consumer.policy.max_bytes
            assert consumer.books.held_profiles == 5_020 - in_memory
            consumer.set_paused(False)
            await stage.settled()
        live, back = destination.of("live"), destination.of("back")
        assert (len(live), len(back)) == (20, 5_000)
        assert live[-1] <= back[100], "live first"
        assert stage.counts("demo") == {"delivered": 5_020}

    scene()


@on_virtual_time
async def test_what_is_held_survives_a_restart_and_newer_fields_win() -> None:
    """A backfill of old cities on disk, and live updates of the same people after it."""
    destination = FakeDestination(profiles_per_request=10)
    stage = Stage()
    stage.destination("demo", destination, max_profiles=50)
    async with stage.running():
        stage.consumers["demo"].set_paused(True)
        for first in range(0, 400, 20):
            old = [event(number, city="old", zip="1") for number in range(first, first + 20)]
            await stage.submit(*old, lane=Lane.BACKFILL)
            await anyio.sleep(0.1)
        assert stage.consumers["demo"].books.held_profiles > 300
    async with stage.running():
        await stage.submit(*(event(number, city="new") for number in range(0, 400, 40)))
        await anyio.sleep(1.0)
        stage.consumers["demo"].set_paused(False)
        await stage.settled()
    assert len(destination.stored) == 400
    renewed = {address(number) for number in range(0, 400, 40)}
    for email, fields in destination.stored.items():
        assert (fields["city"], fields["zip"]) == ("new" if email in renewed else "old", "1")
    assert destination.most_in_flight_of_a_key == 1
