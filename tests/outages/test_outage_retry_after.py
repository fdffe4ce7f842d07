"""Retry-After, end to end on virtual time: silence for as long as was asked, not a second longer.

Whatever was on the wire when the answer was given arrives at once here: the silence is absolute.
"""

from __future__ import annotations

import anyio
import pytest
from outage import Scene, answered, event, fault_for, on_virtual_time, virtual_scene

from engine.sandbox import Fault

PEOPLE = 160
ON_THE_WIRE_SECONDS = 0.001


async def silenced(scene: Scene, fault: Fault) -> tuple[float, int, float]:
    """Deliver to `PEOPLE`, of whom one meets the fault: when that was answered (loop time), how many requests came
    later, and how many seconds later the first of them did."""
    await scene.submit(*[event(person) for person in range(PEOPLE)])
    await anyio.sleep(0.6)
    scene.faults(fault)
    await scene.settled()
    asked = answered(next(one for one in scene.requests() if one.fault == "status"))
    later = [at for at in scene.arrivals() if at > asked + ON_THE_WIRE_SECONDS]
    return asked, len(later), later[0] - asked


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds", "window"),
    [
        (7, None, 7.0),
        (30, None, 30.0),
        ("date", 20.0, 20.0),
        (86_400, None, 3_600.0),
        ("date", 86_400.0, 3_600.0),
    ],
)
@on_virtual_time
async def test_nothing_is_sent_in_the_time_that_was_asked_for_and_all_goes_on_after_it(
    record_property, status, retry_after, seconds, window
) -> None:
    async with virtual_scene() as scene:
        fault = Fault(kind="status", status=status, retry_after=retry_after, seconds=seconds, count=1)
        asked, remaining, resumed = await silenced(scene, fault)
        inside = [at for at in scene.arrivals() if asked + ON_THE_WIRE_SECONDS < at < asked + window - 1.0]
        record_property("requests_in_the_window", len(inside))
        record_property("resumed_seconds_late", round(resumed - window, 3))
        assert inside == []
        # A date has no fractions: up to a second of the silence is cut off.
        earliest = window - (1.0 if retry_after == "date" else 0.0)
        assert earliest <= resumed <= window + 1.0
        assert remaining >= PEOPLE / 4
        assert scene.counts() == {"delivered": PEOPLE}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", [0, None])
@on_virtual_time
async def test_without_a_time_to_wait_the_others_go_on_at_once(record_property, status, retry_after) -> None:
    async with virtual_scene() as scene:
        _, _, resumed = await silenced(scene, Fault(kind="status", status=status, retry_after=retry_after, count=1))
        record_property("resumed_seconds_late", round(resumed, 3))
        assert resumed <= 1.0
        assert scene.counts() == {"delivered": PEOPLE}


@on_virtual_time
async def test_requests_that_were_waiting_for_a_connection_keep_the_silence_too(record_property) -> None:
    """All eight places are taken by slow requests; one of them brings the silence, the others end inside it."""
    async with virtual_scene({"latency_ms": 200}, account=[{"rate": {"requests_per_second": 40.0}}]) as scene:
        scene.faults(fault_for(20, "status", status=429, retry_after=10, count=1))
        await scene.submit(*[event(person) for person in range(100)])
        await scene.settled()
        (asked,) = [answered(one) for one in scene.requests() if one.fault == "status"]
        inside = [at for at in scene.arrivals() if asked + ON_THE_WIRE_SECONDS < at < asked + 10.0]
        record_property("requests_in_the_window", len(inside))
        assert inside == []
        assert scene.counts() == {"delivered": 100}


@on_virtual_time
async def test_a_longer_silence_replaces_a_shorter_one_and_never_the_other_way_round() -> None:
    async with virtual_scene({"latency_ms": 100}) as scene:
        scene.faults(
            fault_for(1, "status", status=503, retry_after=20, count=1),
            fault_for(2, "status", status=503, retry_after=5, count=1),
        )
        await scene.submit(*[event(person) for person in range(50)])
        await scene.settled()
        first = min(answered(one) for one in scene.requests() if one.fault == "status")
        assert [at for at in scene.arrivals() if first + 0.1 < at < first + 20.0] == []
        assert scene.counts() == {"delivered": 50}


@on_virtual_time
async def test_the_token_endpoint_is_left_alone_as_long_as_it_asked(record_property) -> None:
    """Also with dates, and capped at an hour like the others."""
    for retry_after, seconds, window in ((90, None, 90.0), ("date", 120.0, 119.0), (86_400, None, 3_600.0)):
        async with virtual_scene() as scene:
            scene.faults(
                Fault(kind="status", status=429, path="token", count=1, retry_after=retry_after, seconds=seconds)
            )
            await scene.submit(event(1))
            await scene.settled()
            first, second = [one.at for one in scene.requests("/oidc/token")]
            record_property("waited_seconds", round(second - first, 3))
            assert window <= second - first <= window + 2.0
            assert scene.counts() == {"delivered": 1}
