"""A disk that takes its time: the engine waits for it, and nothing else does."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

from engine.adapters.sqlite import SqliteState
from engine.assembly import Engine
from engine.config import Config
from engine.testing import FakeDestination, SimulatedDisk
from tests.storage.losses import journal_on

SYNC_SECONDS = 0.5
CONFIG: dict[str, Any] = {
    "journal": {"min_free_bytes": 0},
    "account": [{"rate": {"requests_per_second": 1_000.0, "burst": 100}}],
    "destination": [{"name": "rainfocus"}],
}


def engine_on(disk: SimulatedDisk) -> Engine:
    destinations = {"rainfocus": FakeDestination()}
    state = SqliteState(disk.directory / "state.db")
    return Engine(Config.from_dict(CONFIG), destinations=destinations, journal=journal_on(disk), state=state)


def metric(engine: Engine, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", engine.control.metrics().decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


async def test_while_a_sync_takes_its_time_the_loop_goes_on(tmp_path: Path) -> None:
    disk = SimulatedDisk(tmp_path)
    reached, go_on = threading.Event(), threading.Event()

    def wait(operation: str, name: str) -> None:
        if operation == "sync" and name == "journal.db-wal":
            reached.set()
            assert go_on.wait(30)

    async with engine_on(disk) as engine:
        disk.on_step = wait
        submitted = asyncio.ensure_future(engine.submit([{"email": "lea@example.com"}]))
        while not reached.is_set():  # noqa: ASYNC110 - set in the thread of SQLite
            await asyncio.sleep(0.001)
        for _ in range(1_000):
            await asyncio.sleep(0)
            assert engine.status()["ready"]
        assert (await engine.lookup("lea@example.com"))["key"]
        assert not submitted.done(), "it is not durable yet"
        go_on.set()
        receipt = await submitted
        disk.on_step = None
        await receipt.settled(timeout=30)


async def test_requests_share_a_slow_sync_and_the_metrics_tell_of_it(tmp_path: Path) -> None:
    disk = SimulatedDisk(tmp_path)
    async with engine_on(disk) as engine:
        disk.sync_seconds = SYNC_SECONDS
        receipts = await asyncio.gather(*(engine.submit([{"email": f"p{n}@example.com"}]) for n in range(50)))
        commits = metric(engine, "engine_journal_fsync_seconds_count")
        assert commits <= 3, "fifty requests, and a handful of syncs"
        assert metric(engine, "engine_journal_fsync_seconds_sum") >= SYNC_SECONDS * commits
        disk.sync_seconds = 0.0
        for receipt in receipts:
            await receipt.settled(timeout=30)
