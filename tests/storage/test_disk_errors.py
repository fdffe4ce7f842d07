"""A write, sync or truncation fails, each in its turn: without space it goes on, with an I/O error it is the end."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from engine.adapters.sqlite import journal as journal_module
from engine.errors import DataDirectoryError, NoSpace, StorageFailed
from engine.model import Append
from engine.ports import Journal
from engine.testing import SimulatedDisk
from engine.testing.contracts.harness import append_of
from engine.testing.contracts.state_data import consumer_of, consumer_state, settle, verdict
from engine.testing.power import Loss
from tests.storage.losses import KINDS, journal_on, opened, state_on

pytestmark = pytest.mark.usefixtures("frequent_checkpoints", "small_segments")
FAST = 3


class Run:
    """Appends one after the other, whatever happens; remembers which were acknowledged and what refused the others."""

    def __init__(self, directory: Path, kind: str = "sqlite") -> None:
        directory.mkdir()
        self._on = KINDS[kind]
        self.disk = SimulatedDisk(directory, random.Random(1))
        self.acknowledged: list[Append] = []
        self.refusals: list[Exception] = []
        self.after_the_end = 0

    async def go(self, turns: int = 10) -> None:
        journal = self._on(self.disk)
        try:
            await journal.open()
            for turn in range(turns):
                await self._turn(journal, turn)
        except (NoSpace, DataDirectoryError) as error:
            self.refusals.append(error)
        finally:
            await journal.close()
            self.disk.heal()

    async def _turn(self, journal: Journal, turn: int) -> None:
        append = append_of(f"person {turn}", note=str(turn) * 6_000)
        try:
            await journal.append([append])
        except (NoSpace, StorageFailed) as error:
            self.refusals.append(error)
        else:
            self.acknowledged.append(append)
            ended = any(isinstance(one, StorageFailed) for one in self.refusals)
            self.after_the_end += ended

    async def found(self, disk: SimulatedDisk) -> list[Append]:
        async with opened(self._on(disk)) as journal:
            return list(await journal.read(0, 1_000))

    async def survives(self, directory: Path, lose: Loss) -> bool:
        """Is all that was acknowledged there after a power loss, and first? What was refused may follow it."""
        self.disk.image(directory, random.Random(2), lose)
        found = await self.found(SimulatedDisk(directory))
        contents = [append.events for append in found]
        wanted = [append.events for append in self.acknowledged]
        return contents[: len(wanted)] == wanted and len(contents) <= len(wanted) + 1


async def steps(directory: Path, operation: str, kind: str) -> int:
    """How often it happens in a run that meets no fault."""
    run = Run(directory, kind)
    seen: list[str] = []
    run.disk.on_step = lambda kind, name: seen.append(kind)
    await run.go()
    assert len(run.acknowledged) == 10
    return seen.count(operation)


async def no_space(directory: Path, kind: str, nth: int, *, partial: bool) -> None:
    run = Run(directory / f"full {nth} {partial}", kind)
    run.disk.fail_next("write", sqlite3.SQLITE_FULL, skip=nth, partial=partial)
    await run.go()
    assert not any(isinstance(error, StorageFailed) for error in run.refusals)
    assert len(run.refusals) <= 1, "once there is space again it goes on"
    found = await run.found(run.disk)
    assert [append.events for append in found] == [append.events for append in run.acknowledged]
    assert await run.survives(directory / f"image {nth} {partial}", "all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partial", [False, True])
async def test_without_space_for_a_write_it_refuses_and_goes_on_when_there_is_some(
    partial: bool, kind: str, tmp_path: Path
) -> None:
    for nth in range(0, await steps(tmp_path / "whole", "write", kind), FAST):
        await no_space(tmp_path, kind, nth, partial=partial)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partial", [False, True])
async def test_without_space_for_any_write_it_refuses_and_goes_on_when_there_is_some(
    partial: bool, kind: str, tmp_path: Path
) -> None:
    for nth in range(await steps(tmp_path / "whole", "write", kind)):
        await no_space(tmp_path, kind, nth, partial=partial)


async def io_error(directory: Path, kind: str, operation: str, nth: int) -> int:
    """What one operation that fails does; 1 when an append met it."""
    run = Run(directory / f"{operation} {nth}", kind)
    run.disk.fail_next(operation, skip=nth)  # type: ignore[arg-type]
    await run.go()
    assert run.after_the_end == 0, "nothing is accepted after it"
    assert not any(isinstance(error, NoSpace) for error in run.refusals)
    for lose in ("all", "none", "random"):
        assert await run.survives(directory / f"image {operation} {nth} {lose}", lose)  # type: ignore[arg-type]
    assert [append.events for append in await run.found(run.disk)][: len(run.acknowledged)] == [
        append.events for append in run.acknowledged
    ]
    return any(isinstance(error, StorageFailed) for error in run.refusals)


OPERATIONS = ["write", "sync", "truncate", "directory"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_io_error_is_the_end_and_loses_nothing(operation: str, kind: str, tmp_path: Path) -> None:
    every = FAST if operation == "write" else 1
    met = [
        await io_error(tmp_path, kind, operation, nth)
        for nth in range(0, await steps(tmp_path / "whole", operation, kind), every)
    ]
    assert any(met) or operation in ("truncate", "directory"), "these happen at the open and at the close only"


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_any_io_error_is_the_end_and_loses_nothing(operation: str, kind: str, tmp_path: Path) -> None:
    for nth in range(await steps(tmp_path / "whole", operation, kind)):
        await io_error(tmp_path, kind, operation, nth)


async def checkpoint_that_cannot_sync(directory: Path) -> Run:
    """The file itself cannot be synced; the WAL, where commits go, can."""
    run = Run(directory)
    async with opened(journal_on(run.disk)):
        pass
    run.disk.fail_next("sync", name="journal.db", skip=1)
    async with opened(journal_on(run.disk)) as journal:
        for turn in range(40):
            with suppress(StorageFailed):
                await run._turn(journal, turn)
            await asyncio.sleep(0.002)
    return run


async def test_a_checkpoint_that_cannot_sync_is_the_end_too(tmp_path: Path) -> None:
    run = await checkpoint_that_cannot_sync(tmp_path / "disk")
    assert any(isinstance(error, StorageFailed) for error in run.refusals)
    assert run.after_the_end == 0
    assert await run.survives(tmp_path / "image", "all")


async def test_an_automatic_checkpoint_would_have_kept_it_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The break that the test before it is there for."""
    pragmas = [one for one in journal_module.WRITER_PRAGMAS if "autocheckpoint" not in one]
    monkeypatch.setattr(journal_module, "WRITER_PRAGMAS", (*pragmas, "wal_autocheckpoint=5"))
    monkeypatch.setattr(journal_module, "CHECKPOINT_BYTES", 1 << 30)
    run = await checkpoint_that_cannot_sync(tmp_path / "disk")
    assert run.refusals == []


@pytest.mark.parametrize(("operation", "code"), [("write", sqlite3.SQLITE_FULL), ("write", None), ("sync", None)])
async def test_what_was_settled_survives_a_failure_of_the_state_file(
    operation: str, code: int | None, tmp_path: Path
) -> None:
    for nth in range(0, 60, 4):
        directory = tmp_path / str(nth)
        directory.mkdir()
        disk = SimulatedDisk(directory, random.Random(nth))
        async with opened(state_on(disk)) as state:
            await state.add_consumer(consumer_state())
            disk.fail_next(operation, code, skip=nth, partial=nth % 8 == 0)  # type: ignore[arg-type]
            settled = 0
            for number in range(1, 9):
                with suppress(NoSpace, StorageFailed):
                    await settle(state, verdicts=[verdict(f"person {number}", number)], counts={"n": 1})
                    settled += 1
        for lose in ("all", "none", "random"):
            disk.image(tmp_path / f"{nth} {lose}", random.Random(nth), lose)  # type: ignore[arg-type]
            async with opened(state_on(SimulatedDisk(tmp_path / f"{nth} {lose}"))) as state:
                books = await consumer_of(state)
                assert settled <= books.counts.get("n", 0) <= settled + (code is None)


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_whatever_fails_while_a_journal_is_made_it_is_used_with_a_write_ahead_log_or_not_at_all(
    operation: str, tmp_path: Path
) -> None:
    """SQLite stays with a rollback journal without a word: its commits are not durable when they are acknowledged."""
    refused = 0
    for first, gap in itertools.product(range(6), range(10)):
        directory = tmp_path / f"{first} {gap}"
        directory.mkdir()
        disk = SimulatedDisk(directory, random.Random(first))
        disk.fail_next(operation, skip=first)  # type: ignore[arg-type]
        disk.fail_next(operation, skip=gap)  # type: ignore[arg-type]
        try:
            async with opened(journal_on(disk)) as journal:
                await journal.append([append_of("ada")])
                assert mode_of(directory / "journal.db") == "wal"
        except (DataDirectoryError, NoSpace, StorageFailed):
            refused += 1
    assert refused


def mode_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
