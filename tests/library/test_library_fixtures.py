"""The engine in fixtures and cleanup contexts: entered in one task, left in another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine import Config, Engine
from engine.testing.destination import FakeDestination

ENTERED_BY: list[asyncio.Task[object] | None] = []
LEFT_BY: list[asyncio.Task[object] | None] = []


@pytest_asyncio.fixture
async def rainfocus(config: Config, crm: FakeDestination) -> AsyncIterator[Engine]:
    async with Engine(config, destinations={"crm": crm}) as engine:
        ENTERED_BY.append(asyncio.current_task())
        yield engine
        LEFT_BY.append(asyncio.current_task())


async def test_a_fixture_gives_a_running_engine(rainfocus: Engine, crm: FakeDestination) -> None:
    assert ENTERED_BY[-1] is not asyncio.current_task()
    receipt = await rainfocus.submit([{"email": "lea@example.com"}])
    await receipt.settled(timeout=10)
    assert crm.stored == {"lea@example.com": {"email": "lea@example.com"}}


async def test_the_fixture_of_the_test_before_was_left_by_itself(rainfocus: Engine) -> None:
    assert len(LEFT_BY) == len(ENTERED_BY) - 1 > 0


async def test_enter_and_exit_may_come_from_different_tasks(config: Config, crm: FakeDestination) -> None:
    engine = Engine(config, destinations={"crm": crm})
    await asyncio.create_task(engine.__aenter__())
    assert engine.readiness() == []
    await engine.submit([{"email": "lea@example.com"}])
    await asyncio.create_task(engine.__aexit__(None, None, None))
    assert engine.readiness() == ["stopped"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_task_that_entered_may_end_long_before_the_engine(config: Config, crm: FakeDestination) -> None:
    """A task group around the entering task must not take the engine with it."""
    engine = Engine(config, destinations={"crm": crm})
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.__aenter__())
    receipt = await engine.submit([{"email": "lea@example.com"}])
    await receipt.settled(timeout=10)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await engine.stopped()
    await engine.__aexit__(None, None, None)
