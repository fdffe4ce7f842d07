"""No room for the state file: what is delivered meanwhile is written down later, and nobody waits for it for ever."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import anyio
import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.errors import NoSpace
from engine.ports import Transition
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination
from engine.testing.lasting import LastingState

EVENTS = [{"email": f"p{number}@example.com", "city": "Lille"} for number in range(20)]


class SmallState(LastingState):
    """Outlives the engine that uses it, and has no room while it is `full`."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False

    async def settle(self, transitions: Sequence[Transition], pauses: Mapping[str, float], /) -> None:
        if self.full:
            raise NoSpace("disk-full", "the disk is full")
        await super().settle(transitions, pauses)


class Scene:
    def __init__(self) -> None:
        self.journal, self.state, self.store = MemoryJournal(), SmallState(), FakeDestination()

    def engine(self) -> Engine:
        return Engine(
            Config.from_dict({"engine": {"drain_timeout_seconds": 12}}),
            destinations={"demo": self.store},
            journal=self.journal,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(1),
        )

    async def delivered_and_not_written(self, engine: Engine) -> None:
        self.state.full = True
        await engine.submit(EVENTS)
        await anyio.sleep(10.0)
        assert len(self.store.stored) == len(EVENTS)

    async def check_the_next_engine(self) -> None:
        async with self.engine() as engine:
            await engine.submit([{"email": "last@example.com"}])
            await anyio.sleep(30.0)
            report = await engine.control.audit()
            assert report["ok"], report
            sums = report["destinations"]["demo"]  # type: ignore[index]
            assert (sums["accepted"], sums["delivered"], sums["residual"]) == (len(EVENTS) + 1, len(EVENTS) + 1, 0)


def test_orders_are_refused_instead_of_left_waiting() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.engine() as engine:
            await scene.delivered_and_not_written(engine)
            with anyio.fail_after(5.0):
                with pytest.raises(NoSpace):
                    await engine.control.audit()
                with pytest.raises(NoSpace):
                    await engine.pause("demo")
            scene.state.full = False
            await anyio.sleep(5.0)
            assert (await engine.control.audit())["ok"]
            assert engine.status()["ready"]

    run_virtual(main)


def test_an_order_that_waits_is_told_when_there_turns_out_to_be_no_room() -> None:
    async def main() -> None:
        scene = Scene()
        async with scene.engine() as engine:
            scene.state.full = True
            with anyio.fail_after(5.0), pytest.raises(NoSpace):
                await engine.pause("demo")
            scene.state.full = False

    run_virtual(main)


def test_an_engine_without_room_can_be_stopped_and_the_next_one_sends_again() -> None:
    async def main() -> None:
        scene = Scene()
        engine = await scene.engine().__aenter__()
        await scene.delivered_and_not_written(engine)
        with anyio.fail_after(15.0):
            await engine.__aexit__()
        scene.state.full = False
        await scene.check_the_next_engine()
        assert len(scene.store.requests) == 2 * len(EVENTS) + 1

    run_virtual(main)


def test_what_waited_for_room_is_written_by_the_last_settling_with_all_its_counts() -> None:
    async def main() -> None:
        scene = Scene()
        engine = await scene.engine().__aenter__()
        await scene.delivered_and_not_written(engine)
        scene.state.full = False
        await engine.__aexit__()
        await scene.check_the_next_engine()
        assert len(scene.store.requests) == len(EVENTS) + 1, "nothing is sent twice after a clean end"

    run_virtual(main)
