"""Cancelling whoever calls the engine loses nothing that was acknowledged, wherever it strikes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.model import Append
from engine.testing.destination import FakeDestination

Run = Callable[[Callable[[], object]], None]

MOST_TURNS = 200


class SlowJournal(MemoryJournal):
    """Its commits begin and end when the test says so: `begun` before anything is written, `written` after."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go, self.written, self.answer = (asyncio.Event() for _ in range(4))

    async def append(self, appends: Sequence[Append], /) -> int:
        self.begun.set()
        await self.go.wait()
        first = await super().append(appends)
        self.written.set()
        await self.answer.wait()
        return first


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[object]) -> bool:
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


def email(number: int) -> str:
    return f"p{number}@example.com"


def test_a_submit_cut_off_after_any_number_of_turns_loses_nothing_acknowledged(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    """Every turn of the loop between the call and its answer is tried, until one call got through before its cut."""
    acknowledged: list[str] = []
    cuts = 0

    async def main() -> None:
        nonlocal cuts
        journal = MemoryJournal()
        async with Engine(config, destinations={"crm": crm}, journal=journal) as rainfocus:
            for number in range(MOST_TURNS):
                task = asyncio.create_task(rainfocus.submit([{"email": email(number), "city": str(number)}]))
                await turns(number)
                if await cancelled(task):
                    cuts += 1
                    continue
                acknowledged.append(email(number))
                if len(acknowledged) == 3:
                    break
            last = await rainfocus.submit([{"email": "last@example.com"}])
            await last.settled(timeout=10)
            await rainfocus.pause("crm")
            report = await rainfocus.control.audit()
            assert report["ok"], report

    run(main)
    assert cuts > 2
    assert len(acknowledged) == 3
    assert set(acknowledged) <= crm.stored.keys()


@pytest.mark.parametrize("moment", ["waiting for the commit", "during the write", "written but not answered"])
def test_a_submit_cut_off_around_its_commit_takes_nobody_with_it(
    run: Run, config: Config, crm: FakeDestination, moment: str
) -> None:
    async def main() -> None:
        journal = SlowJournal()
        async with Engine(config, destinations={"crm": crm}, journal=journal) as rainfocus:
            others = [asyncio.create_task(rainfocus.submit([{"email": "first@example.com"}]))]
            await journal.begun.wait()
            if moment == "waiting for the commit":
                mine = asyncio.create_task(rainfocus.submit([{"email": "mine@example.com"}]))
            else:
                mine = others.pop()
            others.append(asyncio.create_task(rainfocus.submit([{"email": "other@example.com"}])))
            await turns(3)
            if moment == "written but not answered":
                journal.go.set()
                await journal.written.wait()
            assert await cancelled(mine)
            journal.go.set()
            journal.answer.set()
            for receipt in await asyncio.gather(*others):
                await receipt.settled(timeout=10)
            report = await rainfocus.control.audit()
            assert report["ok"], report
        assert "other@example.com" in crm.stored
        # Cut off, it was not acknowledged; it may have become durable all the same, and then it is delivered once.
        assert len(crm.requests) == len(crm.stored)

    run(main)


def test_waiting_for_a_receipt_can_be_cut_off_and_taken_up_again(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            await rainfocus.pause("crm")
            receipt = await rainfocus.submit([{"email": "lea@example.com"}])
            waiting = asyncio.create_task(receipt.settled())
            await turns(3)
            assert await cancelled(waiting)
            await rainfocus.resume("crm")
            assert (await receipt.settled(timeout=10) or {})["crm"]["delivered"] == 1

    run(main)


def test_leaving_can_be_cut_off_and_the_next_start_goes_on(run: Run, config: Config, crm: FakeDestination) -> None:
    """A host that has no time to drain cancels the exit: the backlog is in the journal."""

    async def main() -> None:
        never = FakeDestination()
        rainfocus = await Engine(config, destinations={"crm": never}).__aenter__()
        await rainfocus.pause("crm")
        await rainfocus.submit([{"email": email(number)} for number in range(20)])
        leaving = asyncio.create_task(rainfocus.__aexit__(None, None, None))
        await turns(2)
        await cancelled(leaving)
        async with Engine(config, destinations={"crm": crm}) as again:
            await again.recovered()
            await again.resume("crm")
            await (await again.submit([{"email": "last@example.com"}])).settled(timeout=10)

    run(main)
    assert len(crm.stored) == 21
