"""The simulated disk itself: it sees all that SQLite does, and loses what a real one may lose."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from engine.testing import SimulatedDisk
from engine.testing.remains import Change, File, Name, Survivors


@pytest.fixture
def disk(tmp_path: Path) -> SimulatedDisk:
    (tmp_path / "disk").mkdir()
    return SimulatedDisk(tmp_path / "disk")


@pytest.fixture
def database(disk: SimulatedDisk) -> Iterator[sqlite3.Connection]:
    with closing(connect(disk)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE note (text TEXT)")
        disk.sync_directory(disk.directory)
        yield connection


def connect(disk: SimulatedDisk) -> sqlite3.Connection:
    connection = disk.connect(str(disk.directory / "notes.db"), isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


def note(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("INSERT INTO note VALUES (?)", (text,))


def notes_after(disk: SimulatedDisk, directory: Path, lose: str = "all", seed: int = 0) -> list[str]:
    disk.image(directory, random.Random(seed), lose)  # type: ignore[arg-type]
    with closing(sqlite3.connect(directory / "notes.db")) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY rowid")]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm")}


@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def test_without_a_loss_it_has_every_byte_that_the_real_files_have(
    mode: str, disk: SimulatedDisk, tmp_path: Path
) -> None:
    """Nothing that SQLite does to its files passes by unseen."""
    with closing(connect(disk)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE note (text TEXT)")
        for turn in range(60):
            note(connection, str(turn) * 500)
            if turn % 20 == 7:
                connection.execute("DELETE FROM note WHERE rowid % 3 = 0")
                connection.execute("VACUUM")
            if turn % 20 == 13:
                connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if turn > 30 else 'PASSIVE'})")
            disk.image(tmp_path / f"image{turn}", random.Random(0), "none")
            assert contents(tmp_path / f"image{turn}") == contents(disk.directory)


def test_what_was_synced_is_there_and_what_was_not_may_not_be(
    disk: SimulatedDisk, database: sqlite3.Connection, tmp_path: Path
) -> None:
    note(database, "synced")
    database.execute("PRAGMA synchronous=NORMAL")
    note(database, "not synced")
    assert notes_after(disk, tmp_path / "all", "all") == ["synced"]
    assert notes_after(disk, tmp_path / "none", "none") == ["synced", "not synced"]
    found = {tuple(notes_after(disk, tmp_path / f"random{seed}", "random", seed)) for seed in range(30)}
    assert found == {("synced",), ("synced", "not synced")}


def test_a_file_whose_directory_was_never_synced_may_be_gone(disk: SimulatedDisk, tmp_path: Path) -> None:
    disk.lies = frozenset({"directory"})
    with closing(connect(disk)) as connection:
        connection.execute("CREATE TABLE note (text TEXT)")
        disk.image(tmp_path / "image", random.Random(0), "all")
        assert contents(tmp_path / "image") == {}


def test_a_deleted_file_may_be_back(disk: SimulatedDisk, database: sqlite3.Connection, tmp_path: Path) -> None:
    note(database, "synced")
    database.close()  # SQLite deletes the WAL and does not sync the directory
    disk.image(tmp_path / "before", random.Random(0), "all")
    assert contents(tmp_path / "before").keys() == {"notes.db", "notes.db-wal"}
    disk.sync_directory(disk.directory)
    disk.image(tmp_path / "after", random.Random(0), "all")
    assert contents(tmp_path / "after").keys() == {"notes.db"}


def test_a_sync_that_lies_keeps_nothing(disk: SimulatedDisk, database: sqlite3.Connection, tmp_path: Path) -> None:
    disk.lies = frozenset({"sync"})
    note(database, "acknowledged")
    assert notes_after(disk, tmp_path / "image") == []


def test_the_dead_write_nothing(disk: SimulatedDisk, database: sqlite3.Connection, tmp_path: Path) -> None:
    note(database, "before")
    new = disk.crash(tmp_path / "new", random.Random(0), "all")
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        note(database, "after")
    with pytest.raises(sqlite3.OperationalError, match="power"):
        connect(disk)
    assert notes_after(disk, tmp_path / "image", "none") == ["before"]
    with closing(connect(new)) as connection:
        note(connection, "in the next life")
    assert notes_after(new, tmp_path / "again") == ["before", "in the next life"]


def test_a_crash_is_possible_at_every_step(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = SimulatedDisk(tmp_path / "whole")
    write_notes(whole)
    assert whole.steps > 20
    for step in range(1, whole.steps + 1):
        (tmp_path / str(step)).mkdir()
        disk = SimulatedDisk(tmp_path / str(step))
        disk.crash_at = step
        with suppress(sqlite3.Error):
            write_notes(disk)
        assert (disk.steps, disk.dead) == (step, True)


def write_notes(disk: SimulatedDisk) -> None:
    with closing(connect(disk)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE note (text TEXT)")
        for text in ("one", "two"):
            note(connection, text)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


FAULTS = [
    ("write", None, sqlite3.SQLITE_IOERR_WRITE),
    ("write", sqlite3.SQLITE_FULL, sqlite3.SQLITE_FULL),
    ("sync", None, sqlite3.SQLITE_IOERR_FSYNC),
]


@pytest.mark.parametrize(("operation", "code", "met"), FAULTS)
@pytest.mark.parametrize("partial", [False, True])
def test_it_fails_on_request(
    operation: str, code: int | None, met: int, partial: bool, disk: SimulatedDisk, database: sqlite3.Connection
) -> None:
    disk.fail_next(operation, code, skip=1, partial=partial, name="-wal")  # type: ignore[arg-type]
    errors = []
    for turn in range(4):
        try:
            note(database, str(turn) * 9_000)
        except sqlite3.OperationalError as error:
            errors.append(error.sqlite_errorcode)
    assert errors == [met], "once"


def test_what_a_failed_sync_left_out_is_never_written_by_a_later_one() -> None:
    """As on Linux: the pages of a failed fsync count as clean."""
    seen = set()
    for seed in range(50):
        file = File(b"old")
        file.pending.append(Change(1, 0, b"new"))
        file.spoil(1, Survivors(random.Random(seed), "random", 1))
        file.pending.append(Change(2, 3, b"er"))
        file.sync(2)
        seen.add(bytes(file.durable))
    assert seen == {b"older", b"newer"}


def test_a_failed_sync_is_told_to_everybody_who_has_the_file_open(
    disk: SimulatedDisk, database: sqlite3.Connection, tmp_path: Path
) -> None:
    """Otherwise a checkpoint's failed sync of the WAL could lose a commit that the writer's own sync calls durable."""
    with closing(connect(disk)) as other:
        note(database, "before")
        other.execute("SELECT * FROM note").fetchall()
        disk.fail_next("sync", name="-wal")
        with pytest.raises(sqlite3.OperationalError):
            note(database, "nobody knows")
        with pytest.raises(sqlite3.OperationalError):
            note(other, "nor this one")
        note(other, "told once")


def test_a_sync_may_take_its_time_without_holding_up_other_threads(
    disk: SimulatedDisk, database: sqlite3.Connection
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(operation: str, name: str) -> None:
        if operation == "sync":
            reached.set()
            assert go_on.wait(30)

    disk.on_step = wait
    writer = threading.Thread(target=note, args=(database, "slow"))
    writer.start()
    assert reached.wait(30)
    with closing(connect(disk)) as reader:
        assert reader.execute("SELECT count(*) FROM note").fetchone() == (0,)
        go_on.set()
        writer.join(30)
        assert reader.execute("SELECT count(*) FROM note").fetchone() == (1,)


def test_a_torn_write_is_torn_between_sectors() -> None:
    change = Change(1, 500, bytes(range(200)) * 6)
    parts = change.sectors()
    assert [part.offset for part in parts] == [500, 512, 1024, 1536]
    assert b"".join(part.data or b"" for part in parts) == change.data
    file = File(b"x" * 2_000)
    file.pending.append(Change(1, 0, b"y" * 2_000))
    seen = {Survivors(random.Random(seed), "random", 1).content(file) for seed in range(200)}
    assert {b"x" * 2_000, b"y" * 2_000} < seen
    for content in seen:
        assert all(len(set(content[start : start + 512])) == 1 for start in range(0, 2_000, 512))


def test_a_name_without_a_sync_stands_for_any_of_the_files_it_stood_for() -> None:
    first, second = File(b"1"), File(b"2")
    name = Name(first)
    name.change(None, 1)
    name.change(second, 2)
    seen = {Survivors(random.Random(seed), "random", 2).entry(name) for seed in range(50)}
    assert seen == {first, None, second}
    name.sync()
    assert {Survivors(random.Random(seed), "random", 2).entry(name) for seed in range(50)} == {second}
