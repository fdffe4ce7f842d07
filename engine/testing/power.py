"""A disk that forgets what was not synced, tears what was being written, and fails on request, under real SQLite files.

    disk = SimulatedDisk(directory)
    journal = SqliteJournal(path, max_bytes=…, connect=disk.connect, sync_directory=disk.sync_directory)
    …
    disk = disk.crash(elsewhere, random)  # the power is gone; what is left of the files is in `elsewhere`

SQLite works on real files in the directory. Beside them the disk keeps, for every file, what is durable and what was
written since, sector by sector; for every name, whether a sync of the directory has made it (or its end) durable.
"""

from __future__ import annotations

import errno
import os
import random as random_module
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from engine.adapters.sqlite.files import sync_directory
from engine.testing import vfs
from engine.testing.faults import met
from engine.testing.remains import Change, File, Name, Survivors

Operation = Literal["write", "truncate", "sync", "create", "delete", "directory"]
Loss = Literal["all", "none", "prefix", "random"]

_CODES: dict[str, int] = {
    "write": sqlite3.SQLITE_IOERR_WRITE,
    "truncate": sqlite3.SQLITE_IOERR_TRUNCATE,
    "sync": sqlite3.SQLITE_IOERR_FSYNC,
    "create": sqlite3.SQLITE_CANTOPEN,
    "delete": sqlite3.SQLITE_IOERR_DELETE,
    "directory": sqlite3.SQLITE_IOERR_DIR_FSYNC,
}


class SimulatedDisk:
    """The files of one directory. What is in it already is durable. Raises VfsUnavailable from `connect`.

    `on_step(operation, file name)` is called before every step, in the thread that makes it, and may wait.
    `steps` counts them. `lies` are operations ("sync", "directory") that do nothing and say that they did.
    `sync_seconds`: how long a sync takes. Once `dead`, nothing is written any more and every step fails.
    """

    def __init__(self, directory: Path, random: random_module.Random | None = None) -> None:
        self.directory = Path(os.path.realpath(directory))
        self.dead = False
        self.steps = 0
        self.crash_at: int | None = None
        self.on_step: Callable[[Operation, str], None] | None = None
        self.lies: frozenset[Operation] = frozenset()
        self.sync_seconds = 0.0
        self._random = random or random_module.Random(0)
        self._lock = threading.Lock()
        self._serial = 0
        self._faults: list[_Fault] = []
        self._names: dict[str, Name] = {}
        for path in self.directory.iterdir():
            if path.is_file() and not path.name.endswith("-shm"):
                self._names[path.name] = Name(File(path.read_bytes()))

    def __repr__(self) -> str:
        lost = sum(len(name.now.pending) for name in self._names.values() if name.now is not None)
        return f"<SimulatedDisk [{self.steps} steps | {lost} not synced]{' dead' if self.dead else ''}>"

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        """Stands for `sqlite3.connect`."""
        if self.dead:
            raise sqlite3.OperationalError("the power is gone")
        return vfs.connect(self, path, **options)

    def sync_directory(self, directory: Path) -> None:
        """Stands for `files.sync_directory`."""
        if Path(os.path.realpath(directory)) != self.directory:
            sync_directory(directory)
        elif self._sync_names("") != sqlite3.SQLITE_OK:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(directory))

    def kill(self) -> None:
        """The process or the machine is gone: whoever still runs writes nothing any more."""
        self.dead = True

    def crash(self, directory: Path, random: random_module.Random, lose: Loss = "random") -> SimulatedDisk:
        """The power is gone. What is left is written into the directory, for the next life."""
        self.kill()
        self.image(directory, random, lose)
        return SimulatedDisk(directory, random)

    def image(self, directory: Path, random: random_module.Random, lose: Loss = "random") -> None:
        """Write what would be left if the power went now. `lose`: of what was not synced "all", "none" (as after a kill
        of the process), all but a "prefix" in the order of writing with its last write torn, or "random" sectors of
        random writes."""
        directory.mkdir(parents=True, exist_ok=True)
        with self._lock:
            for name, content in self._left(Survivors(random, lose, self._serial)).items():
                (directory / name).write_bytes(content)

    def _left(self, survivors: Survivors) -> dict[str, bytes]:
        files = {name: survivors.entry(entry) for name, entry in self._names.items()}
        return {name: survivors.content(file) for name, file in files.items() if file is not None}

    def fail_next(
        self,
        operation: Operation,
        code: int | None = None,
        *,
        skip: int = 0,
        times: int = 1,
        partial: bool = False,
        name: str = "",
    ) -> None:
        """The next `times` operations on files whose name ends with `name` fail, after `skip` that pass. `code`: of
        SQLite (default: the I/O error of the operation). `partial`: a write has written a part. What a failed sync
        leaves of the writes before it is decided at random, and no later sync changes it; whoever else has the file
        open is told by his own next sync, once (as Linux does since 4.13: errseq_t)."""
        self._faults.append(_Fault(operation, code or _CODES[operation], skip, times, partial, name))

    def heal(self) -> None:
        """No fault is to come any more."""
        self._faults.clear()

    # -- what SQLite does (`vfs.Watcher`) ----------------------------------------------------------------------------

    def open(self, path: str, *, is_new: bool, is_database: bool) -> _OpenFile:
        name = os.path.basename(path)
        if is_new:
            self._meet("create", name)
        with self._lock:
            entry = self._names.setdefault(name, Name(None))
            if entry.now is None:
                entry.change(File(b"" if is_new else Path(path).read_bytes()), self._next())
            assert entry.now is not None
            return _OpenFile(self, name, entry.now, syncs_directory=not is_database)

    def delete(self, path: str, carry_out: Callable[[], int], /, *, syncs_directory: bool) -> int:
        name = os.path.basename(path)
        fault = self._meet("delete", name)
        if fault is not None:
            return fault.code
        with self._lock:
            code = carry_out()
            if code == sqlite3.SQLITE_OK and name in self._names:
                self._names[name].change(None, self._next())
        return self._sync_names(name) if code == sqlite3.SQLITE_OK and syncs_directory else code

    def write(self, name: str, file: File, offset: int, data: bytes, carry_out: Callable[[int], int]) -> int:
        fault = self._meet("write", name)
        with self._lock:
            amount = len(data) if fault is None else self._random.randrange(len(data)) if fault.partial else 0
            if fault is _CRASH:
                file.pending.append(Change(self._next(), offset, data))  # under way: any part of it may have arrived
            elif amount:
                file.pending.append(Change(self._next(), offset, data[:amount]))
            code = 0 if fault is _CRASH else carry_out(amount)
        return code if fault is None else fault.code

    def truncate(self, name: str, file: File, size: int, carry_out: Callable[[], int]) -> int:
        fault = self._meet("truncate", name)
        with self._lock:
            if fault is None or fault is _CRASH:
                file.pending.append(Change(self._next(), size, None))
            return carry_out() if fault is None else fault.code

    def sync(self, name: str, file: File, failures_known: int = 0) -> int:
        """`failures_known`: how many failed syncs of this file whoever asks has been told of."""
        fault = self._meet("sync", name)
        with self._lock:
            until = self._next()
        if self.sync_seconds:
            time.sleep(self.sync_seconds)
        with self._lock:
            if self.dead:
                return _CODES["sync"]
            if fault is not None:
                file.spoil(until, Survivors(self._random, "random", until))
                return fault.code
            if file.failed_syncs > failures_known:
                return _CODES["sync"]
            if "sync" not in self.lies:
                file.sync(until)
        return sqlite3.SQLITE_OK

    def _sync_names(self, name: str) -> int:
        fault = self._meet("directory", name)
        if fault is not None:
            return fault.code
        with self._lock:
            if "directory" not in self.lies:
                for entry in self._names.values():
                    entry.sync()
        return sqlite3.SQLITE_OK

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _meet(self, operation: Operation, name: str) -> _Fault | None:
        """What this step meets, if anything: it is counted, and dies or fails if it is its turn."""
        if self.on_step is not None and not self.dead:
            self.on_step(operation, name)
        with self._lock:
            if self.dead:
                return _DEAD
            self.steps += 1
            if self.steps == self.crash_at:
                self.dead = True
                return _CRASH
            for fault in self._faults:
                if fault.operation == operation and name.endswith(fault.name):
                    return met(self._faults, fault)
        return None


class _Fault:
    def __init__(self, operation: str, code: int, skip: int, times: int, partial: bool, name: str) -> None:
        self.operation, self.code, self.skip, self.times = operation, code, skip, times
        self.partial, self.name = partial, name


_DEAD = _Fault("", sqlite3.SQLITE_IOERR, 0, 0, False, "")
_CRASH = _Fault("", sqlite3.SQLITE_IOERR, 0, 0, False, "")


class _OpenFile:
    """See `vfs.WatchedFile`. SQLite syncs the directory with the first sync of a WAL or rollback journal."""

    def __init__(self, disk: SimulatedDisk, name: str, file: File, *, syncs_directory: bool) -> None:
        self._disk, self._name, self._file, self._syncs_directory = disk, name, file, syncs_directory
        self._failures_known = file.failed_syncs

    def write(self, offset: int, data: bytes, carry_out: Callable[[int], int], /) -> int:
        return self._disk.write(self._name, self._file, offset, data, carry_out)

    def truncate(self, size: int, carry_out: Callable[[], int], /) -> int:
        return self._disk.truncate(self._name, self._file, size, carry_out)

    def sync(self) -> int:
        code = self._disk.sync(self._name, self._file, self._failures_known)
        self._failures_known = self._file.failed_syncs
        if code == sqlite3.SQLITE_OK and self._syncs_directory:
            self._syncs_directory = False
            code = self._disk._sync_names(self._name)
        return code
