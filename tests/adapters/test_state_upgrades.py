"""A state file of an older version is brought up to date when it is opened; of a newer one nothing is touched."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from engine.adapters.sqlite import SqliteState
from engine.adapters.sqlite.file_format import FIRST_VERSION, FileFormat
from engine.adapters.sqlite.files import prepare_file
from engine.adapters.sqlite.inspection import inspect_state
from engine.adapters.sqlite.state_sql import FORMAT
from engine.core.codec import VerdictRow, pack_verdicts
from engine.errors import DataDirectoryError, NoSpace
from engine.testing.contracts.harness import key_of
from engine.testing.contracts.state_data import consumer_of, consumer_state, settle, verdict, waiting

FIRST = FileFormat(77, "CREATE TABLE town (name TEXT)")
SECOND = FileFormat(77, FIRST.schema, {2: "CREATE TABLE street (name TEXT); INSERT INTO street SELECT name FROM town"})
THIRD = FileFormat(77, FIRST.schema, {**SECOND.upgrades, 3: "CREATE INDEX streets ON street (name)"})
BROKEN = FileFormat(77, FIRST.schema, {**SECOND.upgrades, 3: "CREATE TABLE town (name TEXT)"})


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def version(path: Path) -> object:
    return rows(path, "PRAGMA user_version")[0][0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of the first version, with something in it."""
    path = tmp_path / "towns.db"
    prepare_file(path, FIRST)
    rows_of_it = [("Lille",), ("Arras",)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO town VALUES (?)", rows_of_it)
    return path


@pytest.mark.parametrize("format", [SECOND, THIRD])
def test_an_older_file_gets_what_is_missing_and_keeps_what_it_has(path: Path, format: FileFormat) -> None:
    prepare_file(path, format)
    assert rows(path, "SELECT name FROM street ORDER BY name") == [("Arras",), ("Lille",)]
    assert version(path) == format.version
    prepare_file(path, format)
    assert rows(path, "SELECT count(*) FROM street") == [(2,)], "an upgrade is made once"


def test_a_new_file_is_of_the_newest_version(tmp_path: Path) -> None:
    prepare_file(tmp_path / "new.db", THIRD)
    assert version(tmp_path / "new.db") == 3
    prepare_file(tmp_path / "new.db", THIRD)


def test_an_upgrade_that_fails_half_way_leaves_the_file_as_it_was(path: Path) -> None:
    with pytest.raises(DataDirectoryError):
        prepare_file(path, BROKEN)
    assert version(path) == 1
    assert rows(path, "SELECT name FROM sqlite_schema") == [("town",)]
    prepare_file(path, THIRD)
    assert version(path) == 3


def test_a_newer_file_is_refused_and_not_touched(path: Path) -> None:
    prepare_file(path, THIRD)
    before = path.read_bytes()
    with pytest.raises(DataDirectoryError, match=r"written by a newer version \(format 3, this one knows 2\)"):
        prepare_file(path, SECOND)
    assert path.read_bytes() == before


@pytest.mark.parametrize("claimed", [0, 1, 3])
def test_a_file_that_claims_another_version_than_its_tables_have_is_refused(path: Path, claimed: int) -> None:
    """A turned bit in the version must not make an upgrade run on tables that it was not written for."""
    prepare_file(path, SECOND)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {claimed}")
    with pytest.raises(DataDirectoryError, match="damaged"):
        prepare_file(path, THIRD)
    assert version(path) == claimed


# -- the state file itself --------------------------------------------------------------------------------------------


def make_state(path: Path, version: int) -> None:
    """As an engine that knew only this version made it."""
    upgrades = {n: FORMAT.upgrades[n] for n in range(FIRST_VERSION + 1, version + 1)}
    prepare_file(path, FileFormat(FORMAT.application_id, FORMAT.schema, upgrades))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO consumer VALUES (1, 'plain', 'x', 0, 7, 100, 0, 0, 0)")
        connection.execute("INSERT INTO count VALUES (1, 'delivered', 7)")


VERSIONS = range(FIRST_VERSION, FORMAT.version + 1)


@pytest.mark.parametrize("made_by", VERSIONS)
async def test_a_state_file_of_every_version_is_worked_on_as_if_it_were_new(made_by: int, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make_state(path, made_by)
    state = SqliteState(path)
    await state.open()
    try:
        await settle(state, verdicts=[verdict("lea", 8)], hold=[waiting("bo", 9)], counts={"delivered": 1})
        assert (await consumer_of(state)).counts == {"delivered": 8}
        assert (await state.keys("plain", [key_of("lea")]))[key_of("lea")].entry == verdict("lea", 8)
        await state.remove_consumer("plain")
        await state.add_consumer(consumer_state())
    finally:
        await state.close()
    assert version(path) == FORMAT.version
    assert inspect_state(path).problems == []


async def test_the_ledger_of_an_older_file_is_taken_over_with_what_was_not_in_it_yet(tmp_path: Path) -> None:
    """Entries stood in a table one by one, and each verdict row said for itself whether it was in there."""
    path = tmp_path / "state.db"
    make_state(path, 4)
    older, newer, last = (verdict("lea", at, at, digest=b"%d" % at) for at in (8, 9, 10))
    others = [verdict(f"p{number}", 9) for number in range(300)]
    with closing(sqlite3.connect(path)) as connection, connection:
        for entry in [newer, *others]:
            values = msgspec.structs.astuple(entry)[:9]  # what it had then
            connection.execute(f"INSERT INTO ledger VALUES (1, {', '.join('?' * len(values))})", values)
        for entry, folded in ((older, 1), (newer, 1), (last, 0)):
            packed = pack_verdicts(VerdictRow([entry], []))
            row = (entry.settled_through, folded, packed)
            connection.execute("INSERT INTO verdicts (consumer, through, folded, packed) VALUES (1, ?, ?, ?)", row)
    for _ in range(2):
        state = SqliteState(path)
        await state.open()
        try:
            found = await state.keys("plain", [last.key, *(entry.key for entry in others)])
            assert found[last.key].entry == last
            assert [found[entry.key].entry for entry in others] == others
            assert await state.accounted("plain") == {last.key: 10}
        finally:
            await state.close()
    assert rows(path, "SELECT count(*) FROM ledger") == [(0,)]


@pytest.mark.parametrize("made_by", VERSIONS)
def test_checking_an_older_file_finds_it_whole_and_changes_nothing(made_by: int, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make_state(path, made_by)
    before = path.read_bytes()
    found = inspect_state(path)
    assert found.problems == []
    assert [one.counts for one in found.consumers] == [{"delivered": 7}]
    assert path.read_bytes() == before


class WithoutRoom(sqlite3.Connection):
    def executescript(self, script: str, /) -> sqlite3.Cursor:
        """The disk is full when it is to be committed."""
        super().executescript(script.removesuffix("COMMIT;"))
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error


def test_no_room_for_the_upgrade_is_told_as_such_and_tried_again(path: Path) -> None:
    with pytest.raises(NoSpace):
        prepare_file(path, SECOND, lambda *names, **more: sqlite3.connect(*names, factory=WithoutRoom, **more))
    assert version(path) == 1
    prepare_file(path, SECOND)
    assert version(path) == 2
