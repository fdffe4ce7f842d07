"""The acknowledgement of a backfill waits while readers put backfill on disk; nobody else's does, and none for long."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial

import anyio

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.callbacks import future_of
from engine.model import Append, Lane
from engine.pipeline.backfill_pace import LONGEST_SECONDS
from engine.pipeline.reader import BEHIND_EVENTS
from engine.ports import Transition
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination
from engine.testing.lasting import LastingState

BUFFER = 400


class SlowState(LastingState):
    """Takes `seconds` for each transaction."""

    seconds = 0.0

    async def settle(self, transitions: Sequence[Transition], pauses: Mapping[str, float] | None = None, /) -> None:
        await anyio.sleep(self.seconds)
        await super().settle(transitions, dict(pauses or {}))


def people(first: int, count: int = 100) -> list[dict[str, str]]:
    return [{"email": f"p{number}@example.com"} for number in range(first, first + count)]


def engine(state: SlowState) -> Engine:
    account = {"name": "a", "rate": {"requests_per_second": 1_000.0, "burst": 10}}
    config = Config.from_dict(
        {"account": [account], "buffer": {"max_profiles": BUFFER}, "journal": {"kind": "memory"}, "destination": [{}]}
    )
    clock, journal = VirtualClock(), MemoryJournal(commit_seconds=0.001)
    fakes = {"demo": FakeDestination(profiles_per_request=100)}
    return Engine(config, destinations=fakes, journal=journal, state=state, clock=clock, random=random.Random(1))


async def timed(running: Engine, first: int, lane: str) -> float:
    began = anyio.current_time()
    await running.submit(people(first), lane=lane)
    return anyio.current_time() - began


def test_backfill_is_slowed_down_to_what_can_be_put_on_disk_and_nothing_else_is() -> None:
    async def main() -> None:
        state = SlowState()
        async with engine(state) as running:
            await running.pause("demo")
            state.seconds = 5.0
            waits = [await timed(running, first, "backfill") for first in range(0, 2_000, 100)]
            unhindered = (BUFFER + BEHIND_EVENTS) // 100
            assert max(waits[:4]) < 0.1, "there is room in memory"
            slowed = waits[unhindered:]
            assert sum(slowed) / len(slowed) > LONGEST_SECONDS / 2
            assert max(slowed) <= LONGEST_SECONDS + 0.1, "an answer has to come"
            assert await timed(running, 100_000, "live") < 0.1
            state.seconds = 0.0
            await running.resume("demo")
            await anyio.sleep(60.0)
            (one,) = running.control.destinations()
            assert one["counts"]["delivered"] == 2_100  # type: ignore[index]
            await running.kill()

    run_virtual(main)


def test_a_reader_that_is_behind_because_nothing_leaves_slows_nobody_down() -> None:
    """The destination stands still and live events have filled its share: backfill would wait for hours."""

    async def main() -> None:
        async with engine(SlowState()) as running:
            await running.pause("demo")
            for first in range(0, 5_000, 100):
                await running.submit(people(first))
            await anyio.sleep(5.0)
            assert max([await timed(running, first, "backfill") for first in range(10_000, 11_000, 100)]) < 0.1
            await running.kill()

    run_virtual(main)


def test_what_an_ingress_worker_has_taken_in_is_slowed_down_as_well() -> None:
    """It hands its appends to the commit stage, and not to `submit`."""

    async def handed(running: Engine, first: int) -> float:
        began = anyio.current_time()
        parsed = running.readers["default"][0].read_mappings(people(first))
        await future_of(partial(running.intake.begin, Append(parsed.events, "default", Lane.BACKFILL)))
        return anyio.current_time() - began

    async def main() -> None:
        state = SlowState()
        async with engine(state) as running:
            await running.pause("demo")
            state.seconds = 5.0
            waits = [await handed(running, first) for first in range(0, 2_000, 100)]
            assert LONGEST_SECONDS / 2 < max(waits) <= LONGEST_SECONDS + 0.1
            await running.kill()

    run_virtual(main)
