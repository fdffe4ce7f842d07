"""A share of the buffer is a bound: whatever comes at the same moment, there are never more profiles in memory."""

from __future__ import annotations

import anyio
from stage import Stage, event, on_virtual_time

from engine.model import Held, Lane
from engine.testing.destination import FakeDestination
from engine.testing.lasting import LastingState

SHARE = 8


class SlowToAnswer(LastingState):
    """Takes its time to say what is held."""

    async def held(self, consumer: str, limit: int, /, after: int = 0) -> list[Held]:
        await anyio.sleep(0.5)
        return await super().held(consumer, limit, after)


@on_virtual_time
async def test_events_that_come_while_held_profiles_are_looked_up_leave_no_room_for_them() -> None:
    stage = Stage()
    stage.state = SlowToAnswer()
    stage.account(rate=1.0)
    stage.destination("demo", FakeDestination(), max_profiles=SHARE)
    async with stage.running():
        consumer, most, held = stage.consumers["demo"], 0, 0
        for person in range(40):
            await stage.submit(event(person), lane=Lane.BACKFILL)
        for person in range(100, 140):
            await stage.submit(event(person))
            await anyio.sleep(0.3)
            most, held = max(most, len(consumer.coalescer)), max(held, consumer.books.held_profiles)
        await stage.settled()
    assert held, "nothing was held, so nothing came back"
    assert most <= SHARE
    assert stage.counts("demo")["delivered"] == 80
