"""A disk that fails on request, under the SQLite journal and state file: hand its `connect` to either."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from engine.testing.faults import met

_NAMES = {
    sqlite3.SQLITE_FULL: "database or disk is full",
    sqlite3.SQLITE_IOERR_FSYNC: "disk I/O error",
    sqlite3.SQLITE_IOERR_WRITE: "disk I/O error",
    sqlite3.SQLITE_IOERR_READ: "disk I/O error",
}


class FaultyDisk:
    """`fail` lets the next statements that begin with some words fail; `statements` are all that were tried."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<FaultyDisk [{len(self.statements)} statements | {len(self._faults)} faults to come]>"

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        """Stands for `sqlite3.connect`."""
        connection = sqlite3.connect(path, factory=_Connection, **options)
        assert isinstance(connection, _Connection)
        connection.disk = self
        return connection

    def fail(self, statement: str, code: int, *, times: int = 1, skip: int = 0, done: bool = False) -> None:
        """The next statement that begins with `statement` ends in the SQLite error `code`, `times` times, after `skip`
        that pass. `done`: it is carried out all the same, as after a failed fsync."""
        self._faults.append(_Fault(statement, code, times, skip, done))

    def meet(self, statement: str) -> _Fault | None:
        """The fault this statement meets, if any."""
        with self._lock:
            self.statements.append(statement)
            for fault in self._faults:
                if statement.lstrip().startswith(fault.statement):
                    return met(self._faults, fault)
        return None


class _Fault:
    def __init__(self, statement: str, code: int, times: int, skip: int, done: bool) -> None:
        self.statement, self.code, self.times, self.skip, self.done = statement, code, times, skip, done

    def error(self) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError(_NAMES.get(self.code, f"error {self.code}"))
        error.sqlite_errorcode = self.code
        return error


class _Connection(sqlite3.Connection):
    disk: FaultyDisk | None = None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        fault = self.disk.meet(sql) if self.disk is not None else None
        if fault is None:
            return super().execute(sql, *parameters)
        if fault.done:
            super().execute(sql, *parameters)
        raise fault.error()

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        fault = self.disk.meet(sql) if self.disk is not None else None
        if fault is not None:
            raise fault.error()
        return super().executemany(sql, parameters)
