"""A roadshow: twenty events, twenty destinations, one account, real HTTP between the engine and the sandbox."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import anyio
import pytest
from outage import TOKEN, Scene, address, event, on_virtual_time, real_scene, until, virtual_scene

from engine.sandbox import Fault

CITIES = [f"city{number:02d}" for number in range(20)]
PEOPLE = 15


def show(city: str) -> str:
    return f"show-{city}"


def roadshow(**account: Any) -> dict[str, Any]:
    return {
        "destination": [{"name": city, "event_code": show(city)} for city in CITIES],
        "account": [{"rate": {"requests_per_second": 500.0, "burst": 5, "max_concurrency": 20}, **account}],
    }


def stored_by_event(scene: Scene) -> Counter[str]:
    return Counter(one.event for one in scene.sandbox.store)


async def test_twenty_event_codes_over_tcp_and_one_token_for_all() -> None:
    async with real_scene(**roadshow()) as scene:
        await scene.submit(*(event(person) for person in range(PEOPLE)))
        async with asyncio.timeout(50):
            await scene.settled()
        assert stored_by_event(scene) == {show(city): PEOPLE for city in CITIES}
        assert len(scene.requests(TOKEN)) == 1
        assert {city: scene.counts(city) for city in CITIES} == {city: {"delivered": PEOPLE} for city in CITIES}


@on_virtual_time
async def test_an_event_code_that_rainfocus_refuses_stops_its_destination_and_no_other() -> None:
    async with virtual_scene(**roadshow()) as scene:
        scene.faults(Fault(kind="error_code", code="124", event=show("city07")))
        await scene.submit(*(event(person) for person in range(PEOPLE)))
        await anyio.sleep(60.0)
        assert stored_by_event(scene) == {show(city): PEOPLE for city in CITIES if city != "city07"}
        states = {one["name"]: (one["state"], one["reason"]) for one in scene.engine.control.destinations()}
        assert states.pop("city07") == ("open", "response_code_124")
        assert set(states.values()) == {("active", "")}
        scene.faults()
        await scene.settled()
        assert scene.counts("city07") == {"delivered": PEOPLE}
        assert await scene.letters() == {}


@on_virtual_time
async def test_one_city_that_answers_nothing_is_alone_with_it() -> None:
    """Its requests are answered after the time-out of the caller; meanwhile everybody else has everything at once."""
    async with virtual_scene(**roadshow()) as scene:
        scene.faults(Fault(kind="timeout", seconds=30.0, event=show("city07")))
        for person in range(PEOPLE):
            await scene.submit(event(person))
            await anyio.sleep(2.0)
        await anyio.sleep(1.0)
        assert stored_by_event(scene) == {show(city): PEOPLE for city in CITIES if city != "city07"}
        scene.faults()
        await scene.settled()
        assert stored_by_event(scene)[show("city07")] == PEOPLE
        assert await scene.letters() == {}
        assert scene.sandbox.store.regressions == 0


@on_virtual_time
async def test_a_wrong_secret_holds_everything_and_loses_nothing() -> None:
    async with virtual_scene({"client_secret": "changed"}, **roadshow(client_secret="changed")) as scene:
        scene.sandbox.settings.client_secret = "changed again"
        await scene.submit(*(event(person) for person in range(PEOPLE)))
        await anyio.sleep(600.0)
        assert stored_by_event(scene) == {}
        assert {one["state"] for one in scene.engine.control.destinations()} == {"open"}
        assert len(scene.requests(TOKEN)) < 60, "it is asked for ever more seldom"
        scene.sandbox.settings.client_secret = "changed"
        await scene.settled()
        assert {city: scene.counts(city) for city in CITIES} == {city: {"delivered": PEOPLE} for city in CITIES}


async def test_pause_resume_and_test_are_of_one_destination() -> None:
    async with real_scene(**roadshow()) as scene:
        control = scene.engine.control
        await control.pause("city03")
        await scene.submit(*(event(person) for person in range(PEOPLE)))
        others = {show(city): PEOPLE for city in CITIES if city != "city03"}
        await until(lambda: stored_by_event(scene) == others, "the others wait as well")
        tested = await control.test_destination("city03", store_email=address("tester"))
        assert tested["ok"], tested
        assert stored_by_event(scene)[show("city03")] == 1, "a test is an order of its own"
        await control.resume("city03")
        await until(lambda: stored_by_event(scene)[show("city03")] == PEOPLE + 1, "it did not go on")
        for order in (control.pause, control.resume, control.test_destination):
            with pytest.raises(KeyError):
                await order("nowhere")
