"""Tasks that are used again: one for every request would cost more than the rest of the dispatching does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from anyio.abc import TaskGroup

W = TypeVar("W")


class Workers(Generic[W]):
    """Does each piece of work in a task of the group; as many tasks as there was ever work at once."""

    def __init__(self, do: Callable[[W], Awaitable[None]]) -> None:
        self._do = do
        self._idle: list[asyncio.Future[W]] = []

    def start(self, tasks: TaskGroup, work: W) -> None:
        while self._idle:
            worker = self._idle.pop()
            if not worker.done():
                worker.set_result(work)
                return
        tasks.start_soon(self._run, work)

    async def _run(self, work: W) -> None:
        while True:
            await self._do(work)
            waiting: asyncio.Future[W] = asyncio.get_running_loop().create_future()
            self._idle.append(waiting)
            work = await waiting
