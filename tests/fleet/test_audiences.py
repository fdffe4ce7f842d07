"""A destination activates audiences: whoever is in one of them arrives, whoever left is treated as configured.

Through the whole engine into the sandbox. The destination waits (linger) long enough for events to meet in one slot.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from outage import Scene, address, on_virtual_time, virtual_scene

VIP, STAFF = "3f0c7a52-6d1e-4b0a-9a55-0c7b1c9f2e11", "upload/staff"


def standing(status: str, at: int, audience: str = VIP) -> dict[str, Any]:
    """`at`: seconds of one minute."""
    return {"audiences": {audience: {"status": status, "lastQualificationTime": f"2026-10-02T08:15:{at:02d}Z"}}}


def lea(**more: Any) -> dict[str, Any]:
    return {"email": address("lea"), **more}


def activating(*audiences: str, exits: str = "ignore") -> dict[str, Any]:
    return {
        "destination": [{"audiences": list(audiences), "exits": exits, "batch": {"linger_ms": 500}}],
        "source": [{}],
    }


async def meet(scene: Scene, *events: dict[str, Any]) -> None:
    """They come one after the other, while the first one still waits."""
    for event in events:
        await scene.submit(event)
        await anyio.sleep(0.05)
    await scene.settled()


@pytest.mark.parametrize("written", [VIP, f"ups/{VIP}"], ids=["bare", "with namespace"])
@pytest.mark.parametrize("sent", [VIP, f"ups/{VIP}"], ids=["sent bare", "sent with namespace"])
def test_an_audience_is_the_same_one_however_its_id_is_written(written: str, sent: str) -> None:
    @on_virtual_time
    async def scene() -> None:
        async with virtual_scene(**activating(written)) as it:
            await meet(it, lea(city="Lille", **standing("realized", 1, sent)), {"email": address("ana")})
            assert set(it.stored()) == {address("lea")}
            assert it.counts() == {"delivered": 1, "excluded": 1}

    scene()


@on_virtual_time
async def test_every_one_of_several_audiences_is_activated_and_others_are_not() -> None:
    async with virtual_scene(**activating(VIP, STAFF)) as scene:
        await meet(
            scene,
            {"email": address("vip"), **standing("realized", 1)},
            {"email": address("staff"), **standing("existing", 1, STAFF)},
            {"email": address("other"), **standing("realized", 1, "upload/other")},
        )
        assert set(scene.stored()) == {address("vip"), address("staff")}


@on_virtual_time
async def test_an_asterisk_takes_everybody_and_whoever_left_is_not_sent() -> None:
    async with virtual_scene(**activating("*")) as scene:
        await meet(
            scene,
            {"email": address("none")},
            {"email": address("in"), **standing("realized", 1)},
            {"email": address("out"), **standing("exited", 1)},
        )
        assert set(scene.stored()) == {address("none"), address("in")}


@on_virtual_time
async def test_attributes_and_a_change_of_audience_meet_in_one_request() -> None:
    async with virtual_scene(**activating(VIP)) as scene:
        await meet(scene, lea(city="Lille"), lea(**standing("realized", 1)), lea(zip="59000"))
        assert scene.stored()[address("lea")]["city"] == "Lille"
        assert scene.stored()[address("lea")]["zip"] == "59000"
        assert len(scene.arrivals()) == 1
        assert scene.counts() == {"delivered": 1, "superseded": 2}


@pytest.mark.parametrize("first", ["attributes", "entry"])
def test_an_exit_takes_a_profile_that_waits_with_it(first: str) -> None:
    """U-15: it was to be created, and must not be any more."""

    @on_virtual_time
    async def scene() -> None:
        async with virtual_scene(**activating(VIP)) as it:
            entry = lea(city="Lille", **standing("realized", 1))
            before = [entry] if first == "entry" else [lea(city="Lille"), lea(**standing("realized", 1))]
            await meet(it, *before, lea(**standing("exited", 2)))
            assert it.stored() == {}
            assert it.arrivals() == []
            assert it.counts() == {"excluded": 1, "superseded": len(before)}

    scene()


@on_virtual_time
async def test_an_exit_of_somebody_who_is_stored_sends_nothing() -> None:
    async with virtual_scene(**activating(VIP)) as scene:
        await meet(scene, lea(city="Lille", **standing("realized", 1)))
        await meet(scene, lea(city="Paris", **standing("exited", 2)))
        assert scene.stored()[address("lea")]["city"] == "Lille"
        assert scene.counts() == {"delivered": 1, "excluded": 1}


@pytest.mark.parametrize(
    ("events", "arrives"),
    [
        ([("exited", 1), ("realized", 2)], True),
        ([("exited", 2), ("realized", 1)], False),
        ([("realized", 2), ("exited", 1)], True),
        ([("realized", 3), ("exited", 3)], False),
        ([("exited", 3), ("realized", 3)], True),
    ],
    ids=["back in", "an entry from before", "an exit from before", "a tie: left last", "a tie: entered last"],
)
def test_the_newest_qualification_counts_and_on_a_tie_the_later_event(
    events: list[tuple[str, int]], arrives: bool
) -> None:
    @on_virtual_time
    async def scene() -> None:
        async with virtual_scene(**activating(VIP)) as it:
            await meet(it, *(lea(city="Lille", **standing(status, at)) for status, at in events))
            assert (address("lea") in it.stored()) is arrives

    scene()


@on_virtual_time
async def test_leaving_one_audience_of_two_is_not_leaving() -> None:
    async with virtual_scene(**activating(VIP, STAFF)) as scene:
        await meet(scene, lea(**standing("realized", 1, STAFF)), lea(city="Lille", **standing("exited", 2)))
        assert scene.stored()[address("lea")]["city"] == "Lille"


@on_virtual_time
async def test_exits_may_be_stored() -> None:
    async with virtual_scene(**activating(VIP, exits="store")) as scene:
        await meet(scene, lea(city="Lille", **standing("exited", 2)))
        assert scene.stored()[address("lea")]["city"] == "Lille"


@on_virtual_time
async def test_an_exit_may_leave_as_a_flag_and_so_may_the_return() -> None:
    async with virtual_scene(**activating(VIP, exits="flag:isvip")) as scene:
        flags = []
        for status, at in (("realized", 1), ("exited", 2), ("realized", 3)):
            await meet(scene, lea(city="Lille", **standing(status, at)))
            flags.append(scene.stored()[address("lea")]["isvip"])
        assert flags == [True, False, True]
        assert scene.counts() == {"delivered": 3}


@on_virtual_time
async def test_an_exit_that_comes_during_a_request_is_told_next() -> None:
    """The entry is on the wire: the exit waits behind it, and the last word is the newest."""
    async with virtual_scene({"latency_ms": 2_000}, **activating(VIP, exits="flag:isvip")) as scene:
        await scene.submit(lea(**standing("realized", 1)))
        await anyio.sleep(1.5)
        await scene.submit(lea(**standing("exited", 2)))
        await scene.settled()
        assert scene.stored()[address("lea")]["isvip"] is False
        assert len(scene.arrivals()) == 2
