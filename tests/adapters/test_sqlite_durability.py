"""What stands behind "it is on the disk": every commit is synced, and so is the name of a new file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.sqlite import SqliteJournal, SqliteState
from engine.testing.contracts.harness import append_of
from engine.testing.contracts.state_data import consumer_state, settle, verdict

FULL = 2  # of PRAGMA synchronous: the WAL is synced by every commit


class Asked(sqlite3.Connection):
    """Asks before each COMMIT how it is going to be written."""

    found: list[tuple[str, int]]

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("COMMIT"):
            mode = super().execute("PRAGMA journal_mode").fetchone()[0]
            self.found.append((mode, super().execute("PRAGMA synchronous").fetchone()[0]))
        return super().execute(sql, *parameters)


@pytest.fixture
def commits() -> Iterator[list[tuple[str, int]]]:
    Asked.found = []
    yield Asked.found
    Asked.found = []


def connect(path: str, **options: Any) -> sqlite3.Connection:
    return sqlite3.connect(path, factory=Asked, **options)


async def test_every_commit_is_synced(tmp_path: Path, commits: list[tuple[str, int]]) -> None:
    """Of the journal, before anybody hears 202; of the state file, before a row leaves the journal for it."""
    journal = SqliteJournal(tmp_path / "journal.db", max_bytes=1 << 30, connect=connect)
    await journal.open()
    for n in range(3):
        await journal.append([append_of(f"p{n}")])
    await journal.close()
    of_journal = len(commits)
    state = SqliteState(tmp_path / "state.db", connect=connect)
    await state.open()
    await state.add_consumer(consumer_state())
    await settle(state, verdicts=[verdict("lea", 3)])
    await state.close()
    assert of_journal >= 3
    assert len(commits) > of_journal
    assert set(commits) == {("wal", FULL)}


async def test_the_name_of_a_new_file_is_durable_once_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose directory was not synced may be gone after a power loss, with everything in it."""
    synced: list[tuple[int, int]] = []

    def fsync(descriptor: int, original: Any = os.fsync) -> None:
        found = os.fstat(descriptor)
        synced.append((found.st_dev, found.st_ino))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for name, file in [
        ("journal", SqliteJournal(tmp_path / "journal" / "journal.db", max_bytes=1 << 30)),
        ("state", SqliteState(tmp_path / "state" / "state.db")),
    ]:
        directory = tmp_path / name
        directory.mkdir()
        await file.open()
        assert (directory.stat().st_dev, directory.stat().st_ino) in synced, name
        await file.close()
