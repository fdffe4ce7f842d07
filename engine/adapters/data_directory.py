"""One process owns the data directory: an exclusive lock, and a note of who holds it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import msgspec

from engine.errors import DataDirectoryError


class _Holder(msgspec.Struct):
    pid: int
    host: str


@contextmanager
def owned(directory: Path) -> Iterator[Path]:
    """Own `directory` (made if missing, readable by its owner only) for the length of the context.

    Raises DataDirectoryError when another process owns it (named) or when it cannot be made or written.
    """
    try:
        _make(directory)
        lock = filelock.FileLock(directory / "engine.lock", timeout=0, mode=0o600)
        lock.acquire()
    except filelock.Timeout:
        raise DataDirectoryError(
            f"{directory} belongs to a running engine ({_holder(directory)}): stop that one, or use another data_dir"
        ) from None
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        note = directory / "engine.holder"
        _write(note)
        yield directory
        note.unlink(missing_ok=True)
    finally:
        lock.release()


def _write(note: Path) -> None:
    try:
        note.write_bytes(msgspec.json.encode(_Holder(os.getpid(), socket.gethostname())))
    except OSError as error:
        note.unlink(missing_ok=True)
        raise _unusable(note.parent, error) from error


def _unusable(directory: Path, error: OSError) -> DataDirectoryError:
    why = "no room on the disk" if error.errno == errno.ENOSPC else error.strerror
    return DataDirectoryError(f"{directory} cannot be used as data_dir: {why}")


def _make(directory: Path) -> None:
    """Its name is durable on return, and those of the parents that had to be made: what is acknowledged in a folder
    that is gone after a power loss was never durable."""
    made = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in made:
        descriptor = os.open(one.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _holder(directory: Path) -> str:
    try:
        holder = msgspec.json.decode((directory / "engine.holder").read_bytes(), type=_Holder)
    except (OSError, msgspec.DecodeError):
        return "process unknown"
    return f"process {holder.pid} on {holder.host}"
