"""A backfill is let in as fast as it can be put on disk; live events find room meanwhile, and nobody else waits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

import anyio
import msgspec
import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.callbacks import future_of
from engine.errors import Overloaded, Stopped
from engine.model import Append, Lane
from engine.pipeline.backfill_pace import LONGEST_SECONDS, WAITING_EVENTS
from engine.ports import Transition
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination
from engine.testing.lasting import LastingState

BUFFER = 4_000
PER_REQUEST = 100
COMMIT_SECONDS, TRANSACTION_SECONDS, COPY_SECONDS = 0.001, 0.01, 0.00005
LIVE_EVERY_SECONDS = 0.02
LIVE_SECONDS = 0.05
PARTS = 160


class SlowState(LastingState):
    """A transaction takes its time, and more of it with every profile that is held; `seconds` more when that is set."""

    seconds = 0.0

    async def settle(self, transitions: Sequence[Transition], pauses: Mapping[str, float] | None = None, /) -> None:
        copies = sum(len(transition.hold) for transition in transitions)
        await anyio.sleep(self.seconds + TRANSACTION_SECONDS + copies * COPY_SECONDS)
        await super().settle(transitions, dict(pauses or {}))


def people(first: int, count: int = PER_REQUEST) -> list[dict[str, str]]:
    return [{"email": f"p{number}@example.com"} for number in range(first, first + count)]


def engine(state: SlowState, fake: FakeDestination | None = None) -> Engine:
    account = {"name": "a", "rate": {"requests_per_second": 100.0, "burst": 10}}
    config = Config.from_dict(
        {"account": [account], "buffer": {"max_profiles": BUFFER}, "journal": {"kind": "memory"}, "destination": [{}]}
    )
    clock, journal = VirtualClock(), MemoryJournal(commit_seconds=COMMIT_SECONDS)
    fakes = {"demo": fake or FakeDestination(profiles_per_request=100)}
    return Engine(config, destinations=fakes, journal=journal, state=state, clock=clock, random=random.Random(1))


def counts(running: Engine) -> dict[str, int]:
    (one,) = running.control.destinations()
    return one["counts"]  # type: ignore[return-value]


async def fill_memory(running: Engine, state: SlowState) -> None:
    """A backfill that has more than its share of memory, while the disk takes ten seconds for the next transaction."""
    await running.pause("demo")
    state.seconds = 10.0
    for first in range(0, BUFFER, PER_REQUEST):
        with suppress(Overloaded):
            await running.submit(people(first), lane="backfill")


async def timed(running: Engine, first: int, lane: str) -> float:
    began = anyio.current_time()
    await running.submit(people(first), lane=lane)
    return anyio.current_time() - began


class Producers:
    """Many connections, each of which hands in part after part of a backfill, and comes again when it is told to."""

    def __init__(self, running: Engine, connections: int, parts: int) -> None:
        self._running, self._parts, self._connections = running, iter(range(parts)), connections
        self.refused: list[Overloaded] = []
        self.longest_seconds = 0.0
        self.handing_in = True

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(self._connections):
                tasks.start_soon(self._connection)
        self.handing_in = False

    async def _connection(self) -> None:
        for part in self._parts:
            while not await self._taken(part):
                pass

    async def _taken(self, part: int) -> bool:
        began = anyio.current_time()
        try:
            await self._running.submit(people(part * PER_REQUEST), lane="backfill")
        except Overloaded as refusal:
            self.longest_seconds = max(self.longest_seconds, anyio.current_time() - began)
            self.refused.append(refusal)
            await anyio.sleep(refusal.retry_after_seconds)
            return False
        self.longest_seconds = max(self.longest_seconds, anyio.current_time() - began)
        return True


class Live:
    """Live events at a steady rate, whatever the answers take, and how long each was under way to the destination."""

    def __init__(self, running: Engine, fake: FakeDestination) -> None:
        self._running, self._fake = running, fake
        self._began: dict[str, float] = {}

    async def run(self, producers: Producers) -> None:
        async with anyio.create_task_group() as tasks:
            while producers.handing_in:
                tasks.start_soon(self._one, f"live{len(self._began)}@example.com")
                await anyio.sleep(LIVE_EVERY_SECONDS)

    async def _one(self, email: str) -> None:
        self._began[email] = anyio.current_time()
        await self._running.submit([{"email": email}])

    def waits(self) -> list[float]:
        arrived: dict[str, float] = {}
        for request in self._fake.requests:
            for record in request.records:
                arrived.setdefault(msgspec.json.decode(record)["email"], request.at)
        return [arrived[email] - began for email, began in self._began.items()]


@pytest.mark.parametrize("connections", [1, 4, 32, 400])
def test_a_live_event_does_not_wait_for_a_backfill_however_many_connections_hand_it_in(connections: int) -> None:
    async def main() -> None:
        fake = FakeDestination(profiles_per_request=100)
        async with engine(SlowState(), fake) as running:
            producers, live = Producers(running, connections, PARTS), Live(running, fake)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(producers.run)
                tasks.start_soon(live.run, producers)
            await anyio.sleep(30.0)
            waits = live.waits()
            assert len(waits) > 20, "they were beside it"
            assert max(waits) < LIVE_SECONDS
            assert producers.longest_seconds < LONGEST_SECONDS + 0.2, "an answer has to come"
            assert counts(running)["delivered"] == PARTS * PER_REQUEST + len(waits)
            await running.kill()

    run_virtual(main)


def test_what_cannot_be_let_in_soon_is_refused_before_it_is_stored_and_live_events_are_not() -> None:
    async def main() -> None:
        state = SlowState()
        async with engine(state) as running:
            await fill_memory(running, state)
            stored, began = counts(running)["accepted"], anyio.current_time()
            with pytest.raises(Overloaded) as refused:
                await running.submit(people(1_000_000), lane="backfill")
            assert refused.value.type == "backfill-behind"
            assert 1.0 <= refused.value.retry_after_seconds <= 60.0
            assert LONGEST_SECONDS <= anyio.current_time() - began < LONGEST_SECONDS + 0.1
            assert counts(running)["accepted"] == stored
            assert await timed(running, 2_000_000, "live") < 0.1
            await running.kill()

    run_virtual(main)


def test_no_more_backfill_waits_in_memory_than_can_be_let_in_soon() -> None:
    async def main() -> None:
        state = SlowState()
        async with engine(state) as running:
            await fill_memory(running, state)
            async with anyio.create_task_group() as tasks:
                for part in range(WAITING_EVENTS // 10_000):
                    tasks.start_soon(_refused_after, running, 1_000_000 + part * 10_000, LONGEST_SECONDS)
                await anyio.sleep(0.1)
                await _refused_after(running, 2_000_000, 0.0)
            await running.kill()

    run_virtual(main)


async def _refused_after(running: Engine, first: int, seconds: float) -> None:
    began = anyio.current_time()
    with pytest.raises(Overloaded):
        await running.submit(people(first, 10_000), lane="backfill")
    assert seconds <= anyio.current_time() - began < seconds + 0.1


def test_a_backfill_that_waits_hears_at_once_that_the_engine_stops() -> None:
    async def main() -> None:
        state = SlowState()
        async with engine(state) as running:
            await fill_memory(running, state)
            ended: list[float] = []

            async def waiting() -> None:
                with pytest.raises(Stopped):
                    await running.submit(people(1_000_000), lane="backfill")
                ended.append(anyio.current_time())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(waiting)
                await anyio.sleep(0.2)
                began = anyio.current_time()
                running.stop()
            assert ended[0] - began < 0.1
            await running.kill()

    run_virtual(main)


def test_who_gives_up_waiting_holds_nobody_up() -> None:
    async def main() -> None:
        state = SlowState()
        async with engine(state) as running:
            await fill_memory(running, state)
            for _ in range(3):
                with anyio.move_on_after(0.1):
                    await running.submit(people(1_000_000), lane="backfill")
            state.seconds = 0.0
            await anyio.sleep(15.0)
            assert await timed(running, 2_000_000, "backfill") < 0.2
            await running.kill()

    run_virtual(main)


def test_a_reader_that_is_behind_because_nothing_leaves_slows_nobody_down() -> None:
    """The destination stands still and live events have filled its share: backfill would wait for hours."""

    async def main() -> None:
        async with engine(SlowState()) as running:
            await running.pause("demo")
            for first in range(0, 3 * BUFFER, PER_REQUEST):
                await running.submit(people(first))
            await anyio.sleep(5.0)
            assert max([await timed(running, first, "backfill") for first in range(100_000, 103_000, 100)]) < 0.1
            await running.kill()

    run_virtual(main)


def test_what_an_ingress_worker_has_taken_in_waits_as_well() -> None:
    """It hands its appends to the commit stage, and not to `submit`."""

    async def main() -> None:
        state = SlowState()
        async with engine(state) as running:
            await fill_memory(running, state)
            parsed, began = running.readers["default"][0].read_mappings(people(1_000_000)), anyio.current_time()
            append = Append(parsed.events, "default", Lane.BACKFILL)
            with pytest.raises(Overloaded):
                await future_of(partial(running.intake.begin, append))
            assert LONGEST_SECONDS <= anyio.current_time() - began < LONGEST_SECONDS + 0.1
            await running.kill()

    run_virtual(main)
