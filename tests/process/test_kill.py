"""`kill -9` in mid-stream: nothing that was acknowledged is lost, and no older state overwrites a newer one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from harness import Oracle, Producer, Sandbox, place_at

pytestmark = pytest.mark.process
CYCLES = 4


async def test_nothing_acknowledged_is_lost_when_the_engine_is_killed_again_and_again(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    async with place_at(tmp_path / "engine", sandbox.url) as place:
        producers = [Producer(name, place) for name in ("ada", "bob", "cyd")]
        oracle = Oracle(*producers)
        backlogs = []
        async with AsyncExitStack() as stack:
            for producer in producers:
                await stack.enter_async_context(producer.producing())
            for _ in range(CYCLES):
                await place.serve()
                await asyncio.sleep(0.8)
                backlogs.append((await place.destination())["counts"]["pending"])
                await place.kill()
            await place.serve()
        await place.settled()
        await oracle.check(sandbox)
        sums = (await place.balanced())["demo"]
        assert sums["accepted"] == len(oracle.durable_events(await sandbox.attendees()))
        assert sums["dead_lettered"] == sums["expired"] == sums["excluded"] == 0
        assert oracle.acknowledged > 20 * CYCLES
        assert oracle.unknown > 0
        assert all(backlogs)
