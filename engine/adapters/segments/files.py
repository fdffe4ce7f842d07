"""The few operations that a segment journal asks of a file system, so that another one can stand under it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

_sync_data = getattr(os, "fdatasync", os.fsync)
"""Does not hold the interpreter's lock. What it leaves out (the time of the last change) nobody needs."""


class SegmentFile(Protocol):
    """An open file. Every method raises OSError. A failed write or sync is told to whoever has the file open himself,
    so each thread that syncs has opened it for itself."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end of the file."""

    def write(self, offset: int, data: bytes) -> None:
        """All of it, not durable yet."""

    def sync(self) -> None:
        """What was written is durable on return."""

    def commit(self, offset: int, data: bytes) -> None:
        """All of it, and durable on return: `write` and `sync` in one, where only the write may find no space; see
        `write_and_sync`."""

    def close(self) -> None: ...


class SegmentFiles(Protocol):
    """The files of one directory."""

    def names(self) -> list[str]: ...

    def open(self, name: str, /, *, writing: bool = True) -> SegmentFile: ...

    def create(self, name: str, /) -> SegmentFile:
        """A new, empty one, readable by its owner only; its name is durable after `sync_directory`."""

    def remove(self, name: str, /) -> None: ...

    def sync_directory(self) -> None: ...

    def free_bytes(self) -> int: ...


NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def no_way_back() -> Iterator[None]:
    """In here every failure is the end, a disk without room included: what is half done is not as it was before."""
    try:
        yield
    except OSError as error:
        raise OSError(errno.EIO, f"half done ({error})") from error


def write_and_sync(file: SegmentFile, offset: int, data: bytes) -> None:
    """What `SegmentFile.commit` means. A sync that fails is the end, however it does: what the disk has of the data is
    not known any more."""
    file.write(offset, data)
    with no_way_back():
        file.sync()


_SYNCED = getattr(os, "RWF_DSYNC", 0)
_NOT_KNOWN = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""Raised by file systems and sandboxes that cannot sync while they write; nothing is written then."""


class OpenFile:
    """See `SegmentFile`: a file of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._syncs_writes = bool(_SYNCED)

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length or not data:
            return data
        return data + self.read(offset + len(data), length - len(data))

    def write(self, offset: int, data: bytes) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        rest = memoryview(data)
        while written < len(data):  # a short write is followed by the error that cut it, or by the rest
            step = os.pwrite(self._descriptor, rest[written:], offset + written)
            if not step:
                raise OSError(errno.EIO, "nothing more can be written")
            written += step

    def sync(self) -> None:
        _sync_data(self._descriptor)

    def commit(self, offset: int, data: bytes) -> None:
        """In one call where the system has it, since the interpreter's lock is let go and waited for at each call."""
        if not self._syncs_writes or not self._commit_at_once(offset, data):
            write_and_sync(self, offset, data)

    def _commit_at_once(self, offset: int, data: bytes) -> bool:
        """False when it is to be done in two steps: not known here, or cut short."""
        try:
            return os.pwritev(self._descriptor, [data], offset, _SYNCED) == len(data)
        except OSError as error:
            if error.errno in _NOT_KNOWN:
                self._syncs_writes = False
                return False
            if error.errno not in NO_SPACE:
                raise
        self.write(offset, data)  # without space this says so: then it was the write, and nothing is lost by it
        raise OSError(errno.EIO, "there was no space while what was written was being synced")

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1  # the number may soon be another file's
        os.close(descriptor)


class DirectoryFiles:
    """See `SegmentFiles`: a directory of the operating system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        return [entry.name for entry in os.scandir(self.directory) if entry.is_file()]

    def open(self, name: str, /, *, writing: bool = True) -> OpenFile:
        return OpenFile(os.open(self.directory / name, os.O_RDWR if writing else os.O_RDONLY))

    def create(self, name: str, /) -> OpenFile:
        return OpenFile(os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def remove(self, name: str, /) -> None:
        os.unlink(self.directory / name)

    def sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.directory).free
