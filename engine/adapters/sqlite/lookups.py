"""Questions about keys that are asked in one turn of the event loop go to the reading thread as one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from engine.adapters.sqlite.inline import InlineWorker
from engine.adapters.sqlite.worker import SqliteWorker

A = TypeVar("A")


class Lookups(Generic[A]):
    """`look_up` (connection, consumer, keys) runs in the thread. A hand-over to it and back costs more than the
    question itself, and requests that carry one profile each ask one key at a time."""

    def __init__(
        self, worker: SqliteWorker | InlineWorker, look_up: Callable[[sqlite3.Connection, int, Sequence[bytes]], A]
    ) -> None:
        self._worker, self._look_up = worker, look_up
        self._asked: dict[int, tuple[list[bytes], asyncio.Future[A]]] = {}

    async def ask(self, consumer: int, keys: Sequence[bytes]) -> A:
        """What was found of these keys, and of those that others asked for in the same turn. Raises StorageFailed."""
        asked = self._asked.get(consumer)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = self._asked[consumer] = ([], loop.create_future())
            loop.call_soon(self._hand_over, consumer)
        asked[0].extend(keys)
        return await asyncio.shield(asked[1])  # the answer is not for this one alone

    def _hand_over(self, consumer: int) -> None:
        keys, answer = self._asked.pop(consumer)
        self._worker.answer(lambda connection: self._look_up(connection, consumer, keys), answer)
