"""What an engine does when its storage fails under it, or is full. On virtual time, but for the last."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.adapters.memory_journal import MemoryJournal
from engine.adapters.sqlite import SqliteJournal, SqliteState
from engine.assembly import Engine
from engine.config import Config
from engine.errors import DataDirectoryError, NoSpace, Overloaded, Stopped, StorageFailed
from engine.testing import FakeDestination, FaultyDisk, Step, VirtualClock, run_virtual

CONFIG: dict[str, Any] = {
    "journal": {"kind": "memory"},
    "account": [{"rate": {"requests_per_second": 1_000.0, "burst": 100}}],
    "destination": [{"name": "rainfocus"}],
}


def lea(**fields: str) -> list[dict[str, str]]:
    return [{"email": "lea@example.com", **fields}]


class World:
    """One engine on virtual time, over a journal that can be made to fail."""

    def __init__(self, journal: MemoryJournal | None = None, state: SqliteState | None = None) -> None:
        self.journal = journal or MemoryJournal()
        self.destination = FakeDestination()
        self.engine = Engine(
            Config.from_dict(CONFIG),
            destinations={"rainfocus": self.destination},
            journal=self.journal,
            state=state,
            clock=VirtualClock(),
        )

    async def settle(self, fields: list[dict[str, str]]) -> None:
        receipt = await self.engine.submit(fields)
        await receipt.settled(timeout=60)


async def fill(engine: Engine) -> tuple[int, str]:
    """Submit events of 1 kB until one is refused; how many were accepted, and why no more."""
    for accepted in range(1_000):
        try:
            await engine.submit([{"email": f"p{accepted}@example.com", "city": "x" * 1_000}])
        except Overloaded as error:
            return accepted, error.type
    raise AssertionError("nothing was refused")


def on_virtual_time(scenario: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        run_virtual(scenario)

    test.__name__ = scenario.__name__  # type: ignore[attr-defined]
    return test


@on_virtual_time
async def test_a_storage_failure_stops_the_engine_and_everybody_hears_why() -> None:
    world = World()
    async with world.engine as engine:
        await world.settle(lea(city="Lille"))
        failure = StorageFailed("the disk is gone")
        world.journal.fail.append(failure)
        with pytest.raises(Stopped) as stopped:
            await engine.submit(lea(city="Lyon"))
        assert stopped.value.__cause__ is failure
        with pytest.raises(StorageFailed, match="the disk is gone"):
            await engine.stopped()
        with pytest.raises(Stopped) as later:
            await engine.submit(lea(city="Nice"))
        assert later.value.__cause__ is failure
    assert world.destination.stored["lea@example.com"]["city"] == "Lille"


@on_virtual_time
async def test_everybody_who_waits_for_the_failed_commit_is_told() -> None:
    world = World(MemoryJournal(commit_seconds=1.0))
    async with world.engine as engine:
        world.journal.fail.append(StorageFailed("the disk is gone"))
        outcomes = await asyncio.gather(*(engine.submit(lea()) for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in outcomes] == [Stopped] * 5


@on_virtual_time
async def test_nothing_is_dispatched_after_a_storage_failure() -> None:
    world = World()
    async with world.engine as engine:
        await engine.pause("rainfocus")
        await engine.submit(lea(city="Lille"))
        world.journal.fail.append(StorageFailed("the disk is gone"))
        with pytest.raises(Stopped):
            await engine.submit(lea(city="Lyon"))
        with pytest.raises(StorageFailed):
            await engine.stopped()
        await anyio.sleep(3_600)
    assert world.destination.requests == []


@on_virtual_time
async def test_an_attempt_under_way_is_cut_off_by_a_storage_failure() -> None:
    world = World()
    world.destination.script.append(Step(seconds=600.0))
    async with world.engine as engine:
        await engine.submit(lea(city="Lille"))
        await anyio.sleep(1)
        assert len(world.destination.requests) == 1
        world.journal.fail.append(StorageFailed("the disk is gone"))
        with pytest.raises(Stopped):
            await engine.submit(lea(city="Lyon"))
        with pytest.raises(StorageFailed):
            await engine.stopped()
        assert not world.destination.in_flight
        await anyio.sleep(3_600)
    assert world.destination.stored == {}
    assert len(world.destination.requests) == 1


@on_virtual_time
async def test_a_full_disk_refuses_and_accepts_again_by_itself() -> None:
    class FullFor10Seconds(MemoryJournal):
        async def probe(self) -> None:
            if anyio.current_time() < 10.0:
                raise NoSpace("disk-full", "the disk is full")

    world = World(FullFor10Seconds())
    async with world.engine as engine:
        world.journal.fail.append(NoSpace("disk-full", "the disk is full"))
        with pytest.raises(Overloaded) as refused:
            await engine.submit(lea(city="Lille"))
        assert refused.value.type == "disk-full"
        assert refused.value.retry_after_seconds > 0
        with pytest.raises(Overloaded, match="the disk is full"):
            await engine.submit(lea(city="Lyon"))
        assert "disk-full" in engine.control.readiness()
        await anyio.sleep(12)
        assert "disk-full" not in engine.control.readiness()
        await world.settle(lea(city="Nice"))
    assert world.destination.stored["lea@example.com"]["city"] == "Nice"
    assert len(await world.journal.read(0, 10)) <= 1, "what was refused was never written"


@on_virtual_time
async def test_a_full_journal_goes_on_delivering_and_accepts_again_when_that_made_room() -> None:
    world = World(MemoryJournal(max_bytes=20_000))
    world.destination.answer = lambda batch: Step(seconds=5.0)
    async with world.engine as engine:
        accepted, why = await fill(engine)
        assert accepted > 0
        assert why == "journal-full"
        await anyio.sleep(60)
        await world.settle(lea(city="Nice"))
    assert len(world.destination.stored) == accepted + 1


@on_virtual_time
async def test_a_state_file_that_fails_stops_the_engine_too() -> None:
    class FailsLater(SqliteState):
        failing = False

        async def settle(self, transitions: Any, pauses: Any = None, /) -> None:
            if self.failing:
                raise StorageFailed("the state file is gone")
            await super().settle(transitions, pauses)

    state = FailsLater(None)
    world = World(state=state)
    async with world.engine as engine:
        await world.settle(lea(city="Lille"))
        state.failing = True
        await engine.submit(lea(city="Lyon"))
        with pytest.raises(StorageFailed, match="the state file is gone"):
            await engine.stopped()
        with pytest.raises(Stopped):
            await engine.submit(lea(city="Nice"))


@on_virtual_time
async def test_a_state_file_without_room_is_written_later_and_counts_once() -> None:
    class FullForAWhile(SqliteState):
        async def settle(self, transitions: Any, pauses: Any = None, /) -> None:
            if 1.0 < anyio.current_time() < 30.0:
                raise NoSpace("disk-full", "the disk is full")
            await super().settle(transitions, pauses)

    world = World(state=FullForAWhile(None))
    async with world.engine as engine:
        await anyio.sleep(2)
        receipt = await engine.submit(lea(city="Lille"))
        with pytest.raises(TimeoutError):
            await receipt.settled(timeout=10)
        await receipt.settled(timeout=60)
        (shown,) = engine.control.destinations()
        assert shown["counts"]["delivered"] == 1  # type: ignore[index]
    assert len(world.destination.requests) == 1


async def test_the_engine_on_a_real_file_stops_with_it_and_goes_on_in_the_next_process(tmp_path: Path) -> None:
    disk = FaultyDisk()
    config = Config.from_dict({**CONFIG, "journal": {"min_free_bytes": 0}})
    destination = FakeDestination()

    def engine_on(connect: Any) -> Engine:
        journal = SqliteJournal(tmp_path / "journal.db", max_bytes=1 << 30, connect=connect)
        state = SqliteState(tmp_path / "state.db")
        return Engine(config, destinations={"rainfocus": destination}, journal=journal, state=state)

    async with engine_on(disk.connect) as engine:
        await engine.pause("rainfocus")
        await engine.submit(lea(city="Lille"))
        disk.fail("COMMIT", sqlite3.SQLITE_IOERR_FSYNC)
        with pytest.raises(Stopped):
            await engine.submit(lea(city="Lyon"))
        with pytest.raises(StorageFailed):
            await engine.stopped()
    async with engine_on(sqlite3.connect) as engine:
        await engine.resume("rainfocus")
        receipt = await engine.submit(lea(zip="59000"))
        await receipt.settled(timeout=20)
    assert destination.stored["lea@example.com"] == {"email": "lea@example.com", "city": "Lille", "zip": "59000"}


async def test_an_empty_journal_beside_a_state_file_that_knows_more_is_refused(tmp_path: Path) -> None:
    """As after somebody deleted or emptied one of the two."""
    config = Config.from_dict({**CONFIG, "journal": {"min_free_bytes": 0}})
    destinations = {"rainfocus": FakeDestination()}

    def engine() -> Engine:
        journal = SqliteJournal(tmp_path / "journal.db", max_bytes=1 << 30)
        return Engine(config, destinations=destinations, journal=journal, state=SqliteState(tmp_path / "state.db"))

    async with engine() as first:
        receipt = await first.submit(lea(city="Lille"))
        await receipt.settled(timeout=20)
    (tmp_path / "journal.db").write_bytes(b"")
    with pytest.raises(DataDirectoryError, match=r"knows of offsets up to 0 .* ends before offset 0.*journal check"):
        await engine().__aenter__()
