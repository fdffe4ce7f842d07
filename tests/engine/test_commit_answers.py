"""Who waits for one commit hears of it together: after every consumer, and whatever the answers of others do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from engine.adapters.memory_journal import MemoryJournal
from engine.core.drain_rate import DrainRate
from engine.errors import Stopped
from engine.metrics import Metrics
from engine.model import Append, Event
from engine.pipeline.commit import GATHER_SECONDS, GATHERED, CommitStage
from engine.ports import Clock
from engine.testing.clock import VirtualClock, run_virtual

Happened = list[tuple[str, int]]


def append() -> Append:
    return Append([Event(bytes(32), b"{}")])


async def stage_of(happened: Happened, clock: Clock | None = None) -> CommitStage:
    journal = MemoryJournal()
    await journal.open()

    def hand_over(durable: Sequence[Append]) -> None:
        happened.extend(("handed over", it.first) for it in durable)

    return CommitStage(journal, hand_over, clock=clock or VirtualClock(), metrics=Metrics(), drain=DrainRate())


def hand_in(stage: CommitStage, happened: Happened) -> None:
    def told(result: int | Exception) -> None:
        assert isinstance(result, int)
        happened.append(("told", result))

    stage.hand_in(append(), told)


def test_nobody_is_told_before_the_consumers_know_all_of_the_commit() -> None:
    async def main() -> None:
        happened: Happened = []
        stage = await stage_of(happened)
        for _ in range(3):
            hand_in(stage, happened)
        assert happened == []
        running = asyncio.create_task(stage.run())
        await stage.flushed()
        assert happened == [("handed over", it) for it in range(3)] + [("told", it) for it in range(3)]
        running.cancel()

    run_virtual(main)


def test_an_answer_that_fails_stops_neither_the_others_nor_the_commits() -> None:
    async def main() -> None:
        happened: Happened = []
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

        def fails(result: int | Exception) -> None:
            raise ValueError("an answer that cannot be made")

        stage = await stage_of(happened)
        stage.hand_in(append(), fails)
        hand_in(stage, happened)
        running = asyncio.create_task(stage.run())
        await stage.flushed()
        hand_in(stage, happened)
        await stage.flushed()
        assert [it for it in happened if it[0] == "told"] == [("told", 1), ("told", 2)]
        assert [type(it["exception"]) for it in failures] == [ValueError]
        running.cancel()

    run_virtual(main)


def test_what_comes_turn_by_turn_of_the_loop_shares_a_commit() -> None:
    """A commit costs as much as many requests do."""

    async def main() -> None:
        happened: Happened = []
        stage = await stage_of(happened)
        running = asyncio.create_task(stage.run())
        await asyncio.sleep(0.001)
        for _ in range(10):
            hand_in(stage, happened)
            await asyncio.sleep(0)
        await stage.flushed()
        assert happened == [("handed over", it) for it in range(10)] + [("told", it) for it in range(10)]
        running.cancel()

    run_virtual(main)


def test_a_commit_does_not_wait_for_more_than_make_it_cheap() -> None:
    """More comes with every turn of the loop, and no time passes."""

    async def main() -> None:
        happened: Happened = []
        stage = await stage_of(happened)
        running = asyncio.create_task(stage.run())
        for _ in range(3 * GATHERED):
            hand_in(stage, happened)
            await asyncio.sleep(0)
        assert GATHERED <= happened.index(("told", 0)) <= GATHERED + 2
        running.cancel()

    run_virtual(main)


def test_nobody_waits_for_others_without_an_end() -> None:
    """More comes with every turn of the loop, and each takes a tenth of the longest time."""

    class Ticking(VirtualClock):
        def monotonic(self) -> float:
            self.ticks = getattr(self, "ticks", 0.0) + GATHER_SECONDS / 10
            return super().monotonic() + self.ticks

    async def main() -> None:
        happened: Happened = []
        stage = await stage_of(happened, Ticking())
        running = asyncio.create_task(stage.run())
        while ("told", 0) not in happened:
            hand_in(stage, happened)
            await asyncio.sleep(0)
        assert 2 < happened.index(("told", 0)) < 15
        running.cancel()

    run_virtual(main)


def test_whoever_hands_in_more_while_being_told_is_committed_too() -> None:
    """As a connection does that has the next request at hand already."""

    async def main() -> None:
        happened: Happened = []
        stage = await stage_of(happened)
        stage.hand_in(append(), lambda _: hand_in(stage, happened))
        running = asyncio.create_task(stage.run())
        await stage.flushed()
        assert happened == [("handed over", 0), ("handed over", 1), ("told", 1)]
        running.cancel()

    run_virtual(main)


def test_whoever_hands_in_more_while_being_told_of_the_end_hears_that_it_is_the_end() -> None:
    async def main() -> None:
        stage = await stage_of([])
        ends: list[str] = []

        def again(result: int | Exception) -> None:
            assert isinstance(result, Stopped)
            try:
                stage.hand_in(append(), again)
            except Stopped as error:
                ends.append(str(error))

        stage.hand_in(append(), again)
        stage.hand_in(append(), again)
        stage.close(Stopped("over"))
        assert ends == ["over", "over"]

    run_virtual(main)
