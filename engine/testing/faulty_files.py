"""Files that fail on request, under the segment journal: hand them to it as `files`."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Literal

from engine.adapters.segments.files import DirectoryFiles, OpenFile, write_and_sync
from engine.testing.faults import met

Operation = Literal["write", "sync", "read", "create", "directory"]


class FaultyFiles(DirectoryFiles):
    """`fail` lets the next operations of a kind fail; `operations` are all that were tried."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.operations: list[str] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<FaultyFiles [{len(self.operations)} operations | {len(self._faults)} faults to come]>"

    def fail(
        self, operation: Operation, code: int = errno.EIO, *, times: int = 1, skip: int = 0, done: bool = False
    ) -> None:
        """The next `times` operations of this kind end in the error `code`, after `skip` that pass. `done`: it is
        carried out all the same, as after a failed sync; a write is carried out by half."""
        self._faults.append(_Fault(operation, code, times, skip, done))

    def open(self, name: str, /, *, writing: bool = True) -> OpenFile:
        return _FaultyFile(self, os.open(self.directory / name, os.O_RDWR if writing else os.O_RDONLY))

    def create(self, name: str, /) -> OpenFile:
        self.meet("create")
        return _FaultyFile(self, os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def sync_directory(self) -> None:
        self.meet("directory")
        super().sync_directory()

    def meet(self, operation: Operation) -> None:
        """Raises OSError if it is this one's turn."""
        fault = self.fault(operation)
        if fault is not None:
            raise fault.error()

    def fault(self, operation: Operation) -> _Fault | None:
        with self._lock:
            self.operations.append(operation)
            for fault in self._faults:
                if fault.operation == operation:
                    return met(self._faults, fault)
        return None


class _Fault:
    def __init__(self, operation: str, code: int, times: int, skip: int, done: bool) -> None:
        self.operation, self.code, self.times, self.skip, self.done = operation, code, times, skip, done

    def error(self) -> OSError:
        return OSError(self.code, os.strerror(self.code))


class _FaultyFile(OpenFile):
    def __init__(self, files: FaultyFiles, descriptor: int) -> None:
        super().__init__(descriptor)
        self._files = files

    def read(self, offset: int, length: int) -> bytes:
        self._files.meet("read")
        return super().read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        fault = self._files.fault("write")
        if fault is None or fault.done:
            super().write(offset, data if fault is None else data[: len(data) // 2])
        if fault is not None:
            raise fault.error()

    def sync(self) -> None:
        fault = self._files.fault("sync")
        if fault is None or fault.done:
            super().sync()
        if fault is not None:
            raise fault.error()

    def commit(self, offset: int, data: bytes) -> None:
        write_and_sync(self, offset, data)
