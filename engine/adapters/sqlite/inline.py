"""A connection in memory that is used where it is asked: no thread, so that it also runs on virtual time."""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import Callable
from typing import TypeVar

import anyio

from engine.adapters.sqlite.files import Connect
from engine.errors import StorageFailed

T = TypeVar("T")


class InlineWorker:
    """Has the methods of `SqliteWorker`. Its work is small and never waits for a disk."""

    def __init__(self, idle: Callable[[sqlite3.Connection], bool], connect: Connect = sqlite3.connect) -> None:
        self._idle, self._connect = idle, connect
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        self._connection = self._connect(":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._connection.close)  # also when whoever uses it is killed in a test

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        await anyio.lowlevel.checkpoint()
        return self._do(function)

    def answer(self, function: Callable[[sqlite3.Connection], T], future: asyncio.Future[T]) -> None:
        """Give the function's result, or what it raises, to a future of the running loop."""
        try:
            future.set_result(self._do(function))
        except Exception as error:
            future.set_exception(error)

    def _do(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise StorageFailed("the state in memory is not open")
        try:
            return function(self._connection)
        except BaseException:
            self._connection.rollback()
            raise

    def nudge(self) -> None:
        """There is background work: do all of it."""
        while self._connection is not None and self._idle(self._connection):
            continue

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
