"""Connections that break, hang, crawl or cannot be made: counted for what they are, and nobody else waits for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from outage import Scene, address, arrived, event, fault_for, on_virtual_time, real_scene, virtual_scene

from engine.profiles.identity import key_of_address
from engine.sandbox import Fault

PEOPLE = 90
QUICK = {"base_ms": 20, "cap_ms": 200, "timeout_seconds": 1.0, "unknown_hold_seconds": 0.05}


# -- cut off in the middle --------------------------------------------------------------------------------------------


def writes(scene: Scene) -> dict[str, int]:
    return {one.email: one.writes for one in scene.sandbox.store}


async def reset_after_the_write(scene: Scene) -> tuple[int, int]:
    """Every third person's first two versions are stored and their answers cut off. Hits, and requests that were
    counted `unknown`."""
    scene.faults(*[fault_for(person, "reset_after", count=2) for person in range(0, PEOPLE, 3)])
    for version in range(1, 4):
        await scene.submit(*[event(person, version) for person in range(PEOPLE)])
        await anyio.sleep(0.6)
    await scene.settled()
    return scene.sandbox.requests.by_fault["reset_after"], unknown(scene)


def unknown(scene: Scene) -> int:
    return int(scene.metric("engine_requests_total").get('{destination="demo",outcome="unknown"}', 0))


def check_resets(scene: Scene, hits: int, counted: int) -> None:
    assert hits == 2 * PEOPLE // 3
    assert counted == hits
    assert sum(writes(scene).values()) <= 3 * PEOPLE + hits
    assert max(writes(scene).values()) <= 3 + 2  # versions, and one more for each answer that was cut off
    assert scene.sandbox.store.regressions == 0
    assert {one["city"] for one in scene.stored().values()} == {"city-3"}
    assert set(scene.counts()) <= {"delivered", "superseded"}


@on_virtual_time
async def test_an_answer_cut_off_after_the_write_is_unknown_and_costs_one_duplicate(record_property) -> None:
    async with virtual_scene() as scene:
        hits, counted = await reset_after_the_write(scene)
        record_property("answers_cut_off", hits)
        record_property("counted_unknown", counted)
        record_property("duplicates", sum(writes(scene).values()) - 3 * PEOPLE)
        check_resets(scene, hits, counted)


async def test_the_same_holds_over_tcp_with_real_resets() -> None:
    account = {"rate": {"requests_per_second": 1_000.0, "burst": 20}}
    async with real_scene(account=[account], destination=[{"retry": QUICK}]) as scene:
        check_resets(scene, *await reset_after_the_write(scene))


SCENES: dict[str, Callable[[], AbstractAsyncContextManager[Scene]]] = {
    "virtual": lambda: virtual_scene(destination=[{"retry": QUICK}]),
    "tcp": lambda: real_scene(
        account=[{"rate": {"requests_per_second": 1_000.0, "burst": 20}}], destination=[{"retry": QUICK}]
    ),
}


async def race_for_idle_connections(scene: Scene) -> tuple[int, int]:
    """Connections are closed by the other side at the moment at which we use them again: how often, and how many
    requests were counted unknown."""
    scene.faults(Fault(kind="stale_connection", probability=0.5, count=60))
    for wave in range(3):
        await scene.submit(*[event(person) for person in range(wave * PEOPLE, (wave + 1) * PEOPLE)])
        await scene.settled()
    met = [one for one in scene.requests() if one.status == 0]
    return len(met), unknown(scene)


def check_races(scene: Scene, met: int, counted: int) -> None:
    assert met >= 20
    assert counted == met
    assert set(writes(scene).values()) == {1}  # what met a closed connection was not stored: no duplicate
    assert len(scene.stored()) == 3 * PEOPLE
    assert scene.counts() == {"delivered": 3 * PEOPLE}


@on_virtual_time
async def test_an_idle_connection_closed_while_we_send_is_unknown_and_nothing_is_lost(record_property) -> None:
    async with SCENES["virtual"]() as scene:
        met, counted = await race_for_idle_connections(scene)
        record_property("races_met", met)
        record_property("counted_unknown", counted)
        check_races(scene, met, counted)


async def test_the_same_race_over_tcp() -> None:
    async with SCENES["tcp"]() as scene:
        check_races(scene, *await race_for_idle_connections(scene))


# -- no answer, or hardly any -----------------------------------------------------------------------------------------


RATE = 20.0
SECONDS = 25.0
HANGING = 3


async def rate_of_the_others(scene: Scene, hanging: int) -> float:
    """Requests a second for those who do not hang, over `SECONDS` with more work than the rate allows."""
    await scene.submit(*[event(person) for person in range(int(RATE * (SECONDS + 10)))])
    began = anyio.current_time()
    await anyio.sleep(SECONDS)
    slow = {key_of_address(address(person)).hex()[:12] for person in range(hanging)}
    served = [one for one in scene.requests() if one.key not in slow and began < arrived(one) <= began + SECONDS]
    return len(served) / SECONDS


@pytest.mark.parametrize("concurrency", [4, pytest.param(16, marks=pytest.mark.process)])
@pytest.mark.parametrize(
    "trouble",
    [
        {"kind": "timeout"},
        {"kind": "timeout_after"},
        {"kind": "drip", "seconds": 60.0},
        {"kind": "latency", "seconds": 0.18},
        {"kind": "latency", "seconds": 4.0},
    ],
    ids=["never-answers", "stores-and-never-answers", "slow-drip", "ten-times-as-slow", "almost-too-slow"],
)
@on_virtual_time
async def test_attendees_that_hang_do_not_slow_the_others(record_property, trouble, concurrency) -> None:
    account = {"rate": {"requests_per_second": RATE, "max_concurrency": concurrency}}
    async with virtual_scene({"latency_ms": 20}, account=[account]) as scene:
        scene.faults(*[fault_for(person, **trouble) for person in range(HANGING)])
        rate = await rate_of_the_others(scene, HANGING)
        record_property("share_of_the_rate", round(rate / RATE, 3))
        assert rate >= 0.9 * RATE
        if trouble["kind"] != "latency":
            assert unknown(scene) >= HANGING
        scene.faults()
        await scene.settled()
        assert set(scene.counts()) == {"delivered"}
        assert scene.sandbox.store.regressions == 0


@on_virtual_time
async def test_when_everything_is_ten_times_as_slow_the_rate_is_kept_while_there_are_places_for_it(
    record_property,
) -> None:
    account = {"rate": {"requests_per_second": RATE, "max_concurrency": 16}}
    async with virtual_scene({"latency_ms": 20}, account=[account]) as scene:
        await scene.submit(*[event(person) for person in range(100, 200)])
        await scene.settled()
        scene.faults(Fault(kind="latency", seconds=0.18))
        rate = await rate_of_the_others(scene, 0)
        record_property("share_of_the_rate", round(rate / RATE, 3))
        assert rate >= 0.9 * RATE


@on_virtual_time
async def test_a_destination_that_hangs_leaves_its_neighbour_nine_tenths_of_the_rate(record_property) -> None:
    """Two destinations of one account share its window; one of them never gets an answer."""
    account = {"rate": {"requests_per_second": 2 * RATE, "max_concurrency": 8}}
    hanging, well = {"name": "hanging", "event_code": "hang27"}, {"name": "well"}
    async with virtual_scene({"latency_ms": 20}, account=[account], destination=[hanging, well]) as scene:
        scene.faults(Fault(kind="timeout", event="hang27"))
        await scene.submit(*[event(person) for person in range(int(RATE * SECONDS))])
        await anyio.sleep(SECONDS)
        delivered = scene.counts("well").get("delivered", 0)
        record_property("share_of_the_rate", round(delivered / (RATE * SECONDS), 3))
        assert delivered >= 0.9 * RATE * SECONDS
        assert scene.breaker("hanging") == "timeout"
        scene.faults()
        await scene.settled()
        assert scene.counts("hanging") == scene.counts("well") == {"delivered": RATE * SECONDS}


@on_virtual_time
async def test_after_hundreds_of_hanging_requests_every_place_is_free_again(record_property) -> None:
    account = {"rate": {"requests_per_second": 100.0, "max_concurrency": 8, "adaptive": False}}
    async with virtual_scene({"latency_ms": 50}, account=[account]) as scene:
        scene.faults(Fault(kind="timeout", count=300))
        await scene.submit(*[event(person) for person in range(400)])
        while scene.sandbox.requests.by_fault["timeout"] < 100:  # noqa: ASYNC110 - there is no event for it
            await anyio.sleep(10.0)
        scene.faults()
        await scene.settled()
        record_property("hung_requests", unknown(scene))
        began = anyio.current_time()
        await scene.submit(*[event(person, 2) for person in range(400)])
        await scene.settled()
        times = [at for at in scene.arrivals() if at > began]
        assert len(times) == 400
        assert times[-1] - times[0] <= 400 / 100.0 * 1.1
