"""The simulated disk under the segment journal: hand it over as `files`.

disk = SimulatedDisk(directory)
journal = SegmentJournal(directory, max_bytes=…, files=SimulatedFiles(disk))
"""

from __future__ import annotations

import errno
import os
import sqlite3

from engine.adapters.segments.files import DirectoryFiles, OpenFile, write_and_sync
from engine.testing.power import SimulatedDisk
from engine.testing.vfs import WatchedFile


class SimulatedFiles(DirectoryFiles):
    """Works on the real files of the disk's directory; the disk is told of every step, and says what is durable."""

    def __init__(self, disk: SimulatedDisk) -> None:
        super().__init__(disk.directory)
        self._disk = disk

    def open(self, name: str, /, *, writing: bool = True) -> OpenFile:
        flags = os.O_RDWR if writing else os.O_RDONLY
        return _SimulatedFile(os.open(self.directory / name, flags), self._watched(name, is_new=False))

    def create(self, name: str, /) -> OpenFile:
        watched = self._watched(name, is_new=True)
        return _SimulatedFile(os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), watched)

    def remove(self, name: str, /) -> None:
        path = self.directory / name

        def carry_out() -> int:
            path.unlink()
            return sqlite3.SQLITE_OK

        _check(self._disk.delete(str(path), carry_out, syncs_directory=False))

    def sync_directory(self) -> None:
        self._disk.sync_directory(self.directory)

    def free_bytes(self) -> int:
        return 1 << 40

    def _watched(self, name: str, *, is_new: bool) -> WatchedFile:
        return self._disk.open(str(self.directory / name), is_new=is_new, is_database=True)


class _SimulatedFile(OpenFile):
    def __init__(self, descriptor: int, watched: WatchedFile) -> None:
        super().__init__(descriptor)
        self._watched = watched

    def write(self, offset: int, data: bytes) -> None:
        def carry_out(first: int) -> int:
            OpenFile.write(self, offset, data[:first])
            return sqlite3.SQLITE_OK

        _check(self._watched.write(offset, data, carry_out))

    def sync(self) -> None:
        _check(self._watched.sync())

    def commit(self, offset: int, data: bytes) -> None:
        write_and_sync(self, offset, data)


def _check(code: int) -> None:
    """Raises the OSError that stands for a result of the disk."""
    if code != sqlite3.SQLITE_OK:
        number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(number, os.strerror(number))
