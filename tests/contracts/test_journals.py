"""All journals of the engine keep the promises of the port."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from engine.adapters.memory_journal import MemoryJournal
from engine.adapters.segments import SegmentJournal
from engine.adapters.sqlite import SqliteJournal
from engine.errors import NoSpace, StorageFailed
from engine.ports import Journal
from engine.testing.contracts import JournalContract
from engine.testing.disk import FaultyDisk
from engine.testing.faulty_files import FaultyFiles


class TestMemoryJournal(JournalContract):
    survives_a_crash = False
    backup_name = None

    def make(self, directory: Path, max_bytes: int, /) -> Journal:
        return MemoryJournal(max_bytes=max_bytes)

    def reopen(self, journal: Journal, directory: Path, max_bytes: int, /) -> Journal:
        return journal

    def fail_next_append(self, journal: Journal, error: type[NoSpace] | type[StorageFailed], /) -> None:
        assert isinstance(journal, MemoryJournal)
        journal.fail.append(NoSpace("disk-full", "full") if error is NoSpace else StorageFailed("broken"))


class TestSqliteJournal(JournalContract):
    def make(self, directory: Path, max_bytes: int, /) -> Journal:
        self.disk = FaultyDisk()
        return SqliteJournal(directory / "journal.db", max_bytes=max_bytes, connect=self.disk.connect)

    def fail_next_append(self, journal: Journal, error: type[NoSpace] | type[StorageFailed], /) -> None:
        self.disk.fail("COMMIT", sqlite3.SQLITE_FULL if error is NoSpace else sqlite3.SQLITE_IOERR_FSYNC)


class TestSegmentJournal(JournalContract):
    backup_name = "journal-000001.segment"

    def make(self, directory: Path, max_bytes: int, /) -> Journal:
        self.files = FaultyFiles(directory)
        return SegmentJournal(directory, max_bytes=max_bytes, files=self.files)

    def fail_next_append(self, journal: Journal, error: type[NoSpace] | type[StorageFailed], /) -> None:
        if error is NoSpace:
            self.files.fail("write", errno.ENOSPC, done=True)
        else:
            self.files.fail("sync")
