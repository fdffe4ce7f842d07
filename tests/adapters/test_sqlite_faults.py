"""What the SQLite journal and state file do on a disk that fails, and with files that are not what they should be."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from engine.adapters.data_directory import owned
from engine.adapters.sqlite import SqliteJournal, SqliteState
from engine.adapters.sqlite import journal as journal_module
from engine.adapters.sqlite import state as state_module
from engine.errors import DataDirectoryError, NoSpace, StorageFailed
from engine.ports import LetterFilter, Transition
from engine.testing import FaultyDisk
from engine.testing.contracts.harness import append_of, eventually, key_of
from engine.testing.contracts.state_data import consumer_of, consumer_state, letter, settle, verdict, waiting

IO_ERRORS = [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE]
LEA = key_of("lea")


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@asynccontextmanager
async def journal_at(directory: Path, disk: FaultyDisk | None = None, **more: int) -> AsyncIterator[SqliteJournal]:
    connect = disk.connect if disk is not None else sqlite3.connect
    journal = SqliteJournal(directory / "journal.db", max_bytes=more.get("max_bytes", 1 << 30), connect=connect)
    try:
        await journal.open()
        yield journal
    finally:
        await journal.close()


@asynccontextmanager
async def state_at(directory: Path, disk: FaultyDisk | None = None) -> AsyncIterator[SqliteState]:
    connect = disk.connect if disk is not None else sqlite3.connect
    state = SqliteState(directory / "state.db", fold_keys=1, connect=connect)
    try:
        await state.open()
        if not await state.consumers():
            await state.add_consumer(consumer_state())
        yield state
    finally:
        await state.close()


def commits(disk: FaultyDisk) -> int:
    return disk.statements.count("COMMIT")


def bytes_in(directory: Path, text: bytes) -> int:
    """How often it stands in any file of the directory."""
    return sum(path.read_bytes().count(text) for path in directory.iterdir() if path.is_file())


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


async def raises_nothing(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except (NoSpace, StorageFailed):
        return False
    return True


# -- I/O errors are the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", IO_ERRORS)
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO append", "COMMIT"])
async def test_an_io_error_of_a_commit_is_final_and_never_retried(
    statement: str, code: int, disk: FaultyDisk, tmp_path: Path
) -> None:
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea")])
        before = commits(disk)
        disk.fail(statement, code)
        for _ in range(3):
            with pytest.raises(StorageFailed, match=r"journal\.db.*restart"):
                await journal.append([append_of("bo")])
        with pytest.raises(StorageFailed):
            await journal.probe()
        assert commits(disk) - before == (statement == "COMMIT"), "one try, and no other"
    async with journal_at(tmp_path) as journal:
        assert [append.first for append in await journal.read(0, 10)] == [0]


async def test_what_a_failed_fsync_left_on_disk_is_there_after_a_restart_as_a_whole(
    disk: FaultyDisk, tmp_path: Path
) -> None:
    """Nobody was told that it is, so it may be; but offsets go on without a gap."""
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea")])
        disk.fail("COMMIT", sqlite3.SQLITE_IOERR_FSYNC, done=True)
        with pytest.raises(StorageFailed):
            await journal.append([append_of("bo"), append_of("cy", "di")])
    async with journal_at(tmp_path) as journal:
        assert [append.first for append in await journal.read(0, 10)] == [0, 1, 2]
        assert await journal.append([append_of("ed")]) == 4


async def test_a_failed_checkpoint_stops_the_journal(
    disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "CHECKPOINT_BYTES", 1_000)
    async with journal_at(tmp_path, disk) as journal:
        disk.fail("PRAGMA wal_checkpoint", sqlite3.SQLITE_IOERR_FSYNC)
        await journal.append([append_of("lea", note="x" * 2_000)])

        async def is_refused() -> bool:
            return not await raises_nothing(lambda: journal.append([append_of("bo")]))

        await asyncio.wait_for(eventually(is_refused), 10)
        with pytest.raises(StorageFailed):
            await journal.append([append_of("bo")])
        with pytest.raises(StorageFailed):
            await journal.probe()


async def test_a_failed_read_says_so(disk: FaultyDisk, tmp_path: Path) -> None:
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea")])
        disk.fail("SELECT first, count, source", sqlite3.SQLITE_IOERR_READ)
        with pytest.raises(StorageFailed):
            await journal.read(0, 10)


@pytest.mark.parametrize("code", IO_ERRORS)
@pytest.mark.parametrize("statement", ["INSERT INTO verdicts", "INSERT INTO held", "UPDATE consumer", "COMMIT"])
async def test_an_io_error_of_a_settling_transaction_is_final_and_applies_nothing(
    statement: str, code: int, disk: FaultyDisk, tmp_path: Path
) -> None:
    change = Transition("plain", verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4)], counts={"n": 1}, watermark=2)
    async with state_at(tmp_path, disk) as state:
        disk.fail(statement, code)
        for _ in range(3):
            with pytest.raises(StorageFailed, match=r"state\.db"):
                await state.settle([change], {"a": 5.0})
    async with state_at(tmp_path) as state:
        assert await consumer_of(state) == consumer_state()
        assert await state.keys("plain", [LEA, key_of("bo")]) == {}
        assert await state.pauses() == {}


async def test_an_io_error_in_the_background_is_met_by_the_next_caller(disk: FaultyDisk, tmp_path: Path) -> None:
    async with state_at(tmp_path, disk) as state:
        disk.fail("UPDATE folded", sqlite3.SQLITE_IOERR_WRITE)
        await settle(state, verdicts=[verdict("lea", 3)])

        async def is_refused() -> bool:
            return not await raises_nothing(lambda: settle(state, counts={"n": 1}))

        await asyncio.wait_for(eventually(is_refused), 10)
    async with state_at(tmp_path) as state:
        assert (await state.keys("plain", [LEA]))[LEA].entry == verdict("lea", 3), "what was settled is still there"


async def test_a_row_that_cannot_be_folded_stops_the_state_file_instead_of_hanging_it(tmp_path: Path) -> None:
    async with state_at(tmp_path) as state:

        def spoil(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO verdicts (consumer, through, folded, packed) VALUES (1, 5, 0, x'c1')")
            state._folding.note(1)

        await state._writer.run(spoil)
        state._writer.nudge()

        async def is_refused() -> bool:
            return not await raises_nothing(lambda: settle(state, counts={"n": 1}))

        await asyncio.wait_for(eventually(is_refused), 10)
    with pytest.raises(DataDirectoryError, match=r"state\.db is damaged"):
        async with state_at(tmp_path):
            pass


async def test_asking_after_the_end_is_answered(tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        pass
    with pytest.raises(StorageFailed, match="not open"):
        await journal.read(0, 1)


# -- no space is not the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO append", "COMMIT"])
async def test_a_full_disk_refuses_and_resumes(statement: str, disk: FaultyDisk, tmp_path: Path) -> None:
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea")])
        disk.fail(statement, sqlite3.SQLITE_FULL, times=3)
        for _ in range(3):
            with pytest.raises(NoSpace) as refused:
                await journal.append([append_of("bo"), append_of("cy")])
            assert refused.value.type == "disk-full"
        assert await journal.append([append_of("di")]) == 1
        assert [append.first for append in await journal.read(0, 10)] == [0, 1]


async def test_a_disk_below_its_minimum_refuses_before_it_writes(disk: FaultyDisk, tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", max_bytes=1 << 30, min_free_bytes=1 << 60, connect=disk.connect)
    await journal.open()
    try:
        with pytest.raises(NoSpace) as refused:
            await journal.append([append_of("lea")])
        assert refused.value.type == "disk-full"
        with pytest.raises(NoSpace):
            await journal.probe()
        assert not any(statement.startswith("INSERT INTO append") for statement in disk.statements)
    finally:
        await journal.close()


@pytest.mark.parametrize("statement", ["INSERT INTO verdicts", "INSERT INTO held", "UPDATE consumer", "COMMIT"])
async def test_settling_without_room_applies_nothing_and_passes_later(
    statement: str, disk: FaultyDisk, tmp_path: Path
) -> None:
    change = Transition(
        "plain", verdicts=[verdict("lea", 3)], hold=[letter("bo", 4)], counts={"n": 1}, watermark=2, forget=[(LEA, 1)]
    )
    async with state_at(tmp_path, disk) as state:
        disk.fail(statement, sqlite3.SQLITE_FULL, times=2)
        for _ in range(2):
            with pytest.raises(NoSpace):
                await state.settle([change])
        assert await consumer_of(state) == consumer_state()
        await state.settle([change])
        books = await consumer_of(state)
        assert (books.counts, books.letters, books.watermark) == ({"n": 1}, 1, 2)


async def test_a_checkpoint_without_room_does_not_unsettle_what_was_settled(
    disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the commit: a caller that was told to try again would count everything twice."""
    monkeypatch.setattr(state_module, "CHECKPOINT_WRITES", 1)
    async with state_at(tmp_path, disk) as state:
        disk.fail("PRAGMA wal_checkpoint", sqlite3.SQLITE_FULL, times=1_000)
        for _ in range(3):
            await settle(state, counts={"n": 1}, hold=[letter("bo", 4)])
        books = await consumer_of(state)
        assert (books.counts, books.letters) == ({"n": 3}, 3)


async def test_reclaiming_without_room_goes_on_when_there_is_some(disk: FaultyDisk, tmp_path: Path) -> None:
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea") for _ in range(10)])
        disk.fail("DELETE FROM append", sqlite3.SQLITE_FULL)
        journal.release(8)

        async def is_gone() -> bool:
            await journal.probe()
            return (await journal.read(0, 1))[0].first == 8

        await asyncio.wait_for(eventually(is_gone), 10)


# -- copies ---------------------------------------------------------------------------------------------------------


async def test_a_copy_that_fails_harms_nobody(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / "copy.db"
    async with journal_at(tmp_path) as journal, state_at(tmp_path) as state:
        await journal.append([append_of("lea")])
        for port in (journal, state):
            with pytest.raises(DataDirectoryError, match="the copy"):
                await port.backup(nowhere)
        assert len(await journal.read(0, 10)) == 1
        assert await journal.append([append_of("bo")]) == 1
        await settle(state, counts={"n": 1})


async def test_a_copy_without_room_can_be_made_later(
    disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea")])
        with monkeypatch.context() as patched:
            patched.setattr("engine.adapters.sqlite.files.sync_directory", no_room)
            with pytest.raises(NoSpace, match="no room for the copy"):
                await journal.backup(tmp_path / "copy.db")
        await journal.backup(tmp_path / "copy.db")


def no_room(directory: Path) -> None:
    raise OSError(28, "No space left on device")


# -- files that are not what they should be -------------------------------------------------------------------------


def flip(path: Path, text: bytes) -> None:
    """Flip one bit of the first byte of this text."""
    data = bytearray(path.read_bytes())
    data[data.index(text)] ^= 1
    path.write_bytes(bytes(data))


async def test_a_flipped_bit_in_the_tail_is_found_at_open(tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea"), append_of("bo", note="here it is")])
    flip(tmp_path / "journal.db", b"here it is")
    with pytest.raises(DataDirectoryError, match=r"journal\.db is damaged.*offset 1.*backup"):
        async with journal_at(tmp_path):
            pass


async def test_a_flipped_bit_further_back_is_found_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "CHECKED_TAIL_ROWS", 2)
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea", note="here it is"), *[append_of("bo") for _ in range(5)]])
    flip(tmp_path / "journal.db", b"here it is")
    async with journal_at(tmp_path) as journal:
        with pytest.raises(StorageFailed, match="checksum of offset 0"):
            await journal.read(0, 10)
        assert [append.first for append in await journal.read(1, 2)] == [1, 2]


@pytest.mark.parametrize(
    "column", ["count = count + 1", "source = 'other'", "lane = 2", "accepted_at = 0.5", "crc = 1"]
)
async def test_every_column_of_a_row_is_under_its_checksum(column: str, tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea")])
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as connection:
        connection.execute(f"UPDATE append SET {column}")
    with pytest.raises(DataDirectoryError, match="damaged"):
        async with journal_at(tmp_path):
            pass


async def test_a_missing_row_in_the_tail_is_found_at_open(tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea"), append_of("bo"), append_of("cy")])
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM append WHERE first = 1")
    with pytest.raises(DataDirectoryError, match="gap before offset 2"):
        async with journal_at(tmp_path):
            pass


Opener = Callable[[Path], "object"]
OPENERS = [pytest.param(journal_at, "journal.db", id="journal"), pytest.param(state_at, "state.db", id="state")]


async def refusal(opener: Callable[..., object], directory: Path, *more: object) -> str:
    with pytest.raises(DataDirectoryError) as refused:
        async with opener(directory, *more):  # type: ignore[attr-defined]
            pass
    return str(refused.value)


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_a_file_that_is_no_database_is_refused(opener: Opener, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"these are the notes of the last meeting\n" * 100)
    assert f"{name} is damaged" in await refusal(opener, tmp_path)
    assert (tmp_path / name).read_bytes().startswith(b"these are")


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_a_database_of_another_program_is_refused(opener: Opener, name: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / name)) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    assert "not a file of this engine" in await refusal(opener, tmp_path)


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_the_other_file_of_the_engine_is_refused(opener: Opener, name: str, tmp_path: Path) -> None:
    other, its_name = (state_at, "state.db") if name == "journal.db" else (journal_at, "journal.db")
    async with other(tmp_path):
        pass
    shutil.move(tmp_path / its_name, tmp_path / name)
    assert "not a file of this engine" in await refusal(opener, tmp_path)


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_a_file_of_a_newer_version_is_refused(opener: Opener, name: str, tmp_path: Path) -> None:
    async with opener(tmp_path):  # type: ignore[attr-defined]
        pass
    with closing(sqlite3.connect(tmp_path / name)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "written by a newer version (format 99" in await refusal(opener, tmp_path)


@pytest.mark.parametrize("keep", [10, 100, 1_000, 5_000, 12_288])
async def test_a_truncated_journal_is_refused(keep: int, tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea", note="x" * 500) for _ in range(50)])
    path = tmp_path / "journal.db"
    path.write_bytes(path.read_bytes()[:keep])
    assert "journal.db is damaged" in await refusal(journal_at, tmp_path)


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    """As it is after a crash in the middle of the first start."""
    (tmp_path / "journal.db").touch()
    async with journal_at(tmp_path) as journal:
        assert await journal.append([append_of("lea")]) == 0


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_a_file_in_use_is_called_in_use_and_not_damaged(opener: Opener, name: str, tmp_path: Path) -> None:
    async with opener(tmp_path):  # type: ignore[attr-defined]
        pass
    impatient = FaultyDisk()
    impatient.fail("PRAGMA wal_checkpoint", sqlite3.SQLITE_BUSY)
    assert f"{name} is open in another program" in await refusal(opener, tmp_path, impatient)


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_a_file_that_cannot_be_read_is_not_called_damaged(opener: Opener, name: str, tmp_path: Path) -> None:
    broken = FaultyDisk()
    broken.fail("PRAGMA application_id", sqlite3.SQLITE_IOERR_READ)
    assert f"{name} cannot be read and written" in await refusal(opener, tmp_path, broken)


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_no_room_to_open_is_no_damage(opener: Opener, name: str, tmp_path: Path) -> None:
    full = FaultyDisk()
    full.fail("PRAGMA journal_mode", sqlite3.SQLITE_FULL)
    with pytest.raises(NoSpace, match=f"no room on the disk to open {name}"):
        async with opener(tmp_path, full):  # type: ignore[attr-defined]
            pass


@pytest.mark.parametrize(("opener", "name"), OPENERS)
async def test_only_its_owner_can_read_a_file(opener: Opener, name: str, tmp_path: Path) -> None:
    async with opener(tmp_path) as port:  # type: ignore[attr-defined]
        if isinstance(port, SqliteJournal):
            await port.append([append_of("lea")])
        await port.backup(tmp_path / "copy.db")
        modes = modes_in(tmp_path)
    assert {name, f"{name}-wal", "copy.db"} <= modes.keys()
    assert set(modes.values()) == {0o600}


# -- crashes --------------------------------------------------------------------------------------------------------


async def test_frames_of_an_unfinished_commit_are_counted_and_thrown_away(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea")])
        await journal.append([append_of("bo", note="x" * 30_000)])
        wal = (tmp_path / "journal.db-wal").read_bytes()
        shutil.copy(tmp_path / "journal.db", crashed)
    frame = 24 + int.from_bytes(wal[8:12], "big")
    (crashed / "journal.db-wal").write_bytes(wal[: len(wal) - frame])  # all of the last commit but its last frame
    frames = [wal[start : start + frame] for start in range(32, len(wal), frame)]
    ends = [number for number, one in enumerate(frames) if one[4:8] != bytes(4)]
    journal = SqliteJournal(crashed / "journal.db", max_bytes=1 << 30)
    try:
        tail = await journal.open()
        assert tail.next == 1
        assert tail.discarded_frames == ends[-1] - ends[-2] - 1 > 1
        assert await journal.append([append_of("cy")]) == 1
    finally:
        await journal.close()


async def test_a_whole_wal_is_replayed_and_nothing_counted(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea"), append_of("bo")])
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(tmp_path / name, crashed)
    journal = SqliteJournal(crashed / "journal.db", max_bytes=1 << 30)
    try:
        tail = await journal.open()
        assert (tail.next, tail.discarded_frames) == (2, 0)
        assert (crashed / "journal.db-wal").stat().st_size == 0, "a new process begins with an empty WAL"
    finally:
        await journal.close()


async def test_a_wal_that_was_cut_before_the_crash_has_nothing_unfinished(tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea")])
    (tmp_path / "journal.db-wal").write_bytes(b"")
    journal = SqliteJournal(tmp_path / "journal.db", max_bytes=1 << 30)
    try:
        tail = await journal.open()
        assert (tail.next, tail.discarded_frames) == (1, 0)
    finally:
        await journal.close()


# -- erasing for good -----------------------------------------------------------------------------------------------


async def test_after_erase_no_file_holds_the_address(tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        for _ in range(30):
            await journal.append([append_of("lea", "bo", note="x" * 500), append_of("bo")])
        assert bytes_in(tmp_path, b"lea@example.com")
        await journal.erase({LEA: 90})
        assert bytes_in(tmp_path, b"lea@example.com") == 0
        assert bytes_in(tmp_path, b"bo@example.com") >= 60


async def test_what_was_released_before_does_not_stay_in_free_pages(tmp_path: Path) -> None:
    async with journal_at(tmp_path) as journal:
        for _ in range(30):
            await journal.append([append_of(*["lea"] * 20, note="x" * 50)])
        await journal.append([append_of("bo")])
        journal.release(600)

        async def is_gone() -> bool:
            return (await journal.read(0, 1))[0].first == 600

        await asyncio.wait_for(eventually(is_gone), 10)
        await journal.erase({LEA: 601})
        assert bytes_in(tmp_path, b"lea@example.com") == 0


async def test_erase_says_so_when_the_wal_is_being_read_and_works_later(
    disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = ("wal_autocheckpoint=0", "synchronous=FULL", "busy_timeout=0")
    monkeypatch.setattr(journal_module, "CHECKPOINT_PRAGMAS", impatient)
    async with journal_at(tmp_path) as journal:
        await journal.append([append_of("lea")])
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM append").fetchone()
            with pytest.raises(NoSpace, match="being read"):
                await journal.erase({LEA: 1})
            reader.execute("COMMIT")
        await journal.erase({LEA: 1})
        assert bytes_in(tmp_path, b"lea@example.com") == 0


async def test_after_forget_and_scrub_no_file_holds_the_address(tmp_path: Path) -> None:
    async with state_at(tmp_path) as state:
        await settle(state, verdicts=[verdict("lea", 1, attendee_id="attendee-of-lea")])
        await settle(state, hold=[waiting("lea", 2), letter("lea", 3, excerpt="about lea"), letter("bo", 4)])
        assert bytes_in(tmp_path, b"lea@example.com")
        await settle(state, forget=[(LEA, 3)])
        await state.scrub()
        for text in (b"lea@example.com", b"about lea", b"attendee-of-lea"):
            assert bytes_in(tmp_path, text) == 0
        assert bytes_in(tmp_path, b"bo@example.com")


async def test_purged_letters_are_gone_from_the_file_as_well(tmp_path: Path) -> None:
    async with state_at(tmp_path) as state:
        await settle(state, hold=[letter("lea", 3)])
        await state.purge_letters(LetterFilter())
        await state.scrub()
        assert bytes_in(tmp_path, b"lea@example.com") == 0


# -- reclaiming behind waiting commits ------------------------------------------------------------------------------


async def test_commits_that_wait_go_before_any_slice_of_reclaiming(disk: FaultyDisk, tmp_path: Path) -> None:
    rows = 3 * journal_module.RECLAIM_ROWS
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea") for _ in range(rows)])
        gate = threading.Event()
        journal._writer.post(lambda _: gate.wait(30))
        journal.release(rows)
        appends = [asyncio.ensure_future(journal.append([append_of("bo")])) for _ in range(20)]
        await asyncio.sleep(0)
        disk.statements.clear()
        gate.set()
        await asyncio.gather(*appends)

        async def is_gone() -> bool:
            return (await journal.read(0, 1))[0].first == rows

        await asyncio.wait_for(eventually(is_gone), 20)
    inserts = [number for number, one in enumerate(disk.statements) if one.startswith("INSERT INTO append")]
    deletes = [number for number, one in enumerate(disk.statements) if one.startswith("DELETE FROM append")]
    assert (len(inserts), len(deletes)) == (20, rows)
    assert inserts[-1] < deletes[0]


async def test_reclaiming_goes_in_slices_of_a_transaction_each(disk: FaultyDisk, tmp_path: Path) -> None:
    rows = 3 * journal_module.RECLAIM_ROWS
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea") for _ in range(rows)])
        await journal.append([append_of("bo")])
        journal.release(rows)

        async def is_gone() -> bool:
            return (await journal.read(0, 1))[0].first == rows

        await asyncio.wait_for(eventually(is_gone), 20)
    slices = [one.count("DELETE FROM append") for one in "\n".join(disk.statements).split("BEGIN IMMEDIATE")]
    assert sum(slices) == rows
    assert max(slices) <= journal_module.RECLAIM_ROWS


async def test_a_slice_ends_with_its_time_but_always_gets_on(
    disk: FaultyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RECLAIM_SECONDS", -1.0)
    async with journal_at(tmp_path, disk) as journal:
        await journal.append([append_of("lea") for _ in range(20)])
        journal.release(15)

        async def is_gone() -> bool:
            return (await journal.read(0, 1))[0].first == 15

        await asyncio.wait_for(eventually(is_gone), 10)
    slices = [one.count("DELETE FROM append") for one in "\n".join(disk.statements).split("BEGIN IMMEDIATE")]
    assert [deleted for deleted in slices if deleted] == [1] * 15


# -- one owner ------------------------------------------------------------------------------------------------------


def test_a_second_owner_of_the_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with owned(tmp_path / "data") as directory:
        holder = rf"belongs to a running engine \(process {os.getpid()} on "
        with pytest.raises(DataDirectoryError, match=holder), owned(directory):
            pass
        assert directory.stat().st_mode & 0o777 == 0o700
    with owned(tmp_path / "data"):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryError, match="cannot be used as data_dir"), owned(tmp_path / "file" / "data"):
        pass
