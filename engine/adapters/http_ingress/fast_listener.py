"""The fast front: a listener whose connections parse HTTP themselves, and leave what is slow to aiohttp."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from aiohttp import web

from engine.adapters.http_ingress.fast import Connection
from engine.adapters.http_ingress.ingress import Ingress
from engine.adapters.http_ingress.listener import Door

LOOK_SECONDS = 1.0
"""How often connections are looked at that keep us waiting; more often where a body has less than some seconds."""


class FastListener(Door):
    """`app` answers what is not `POST /v1/profiles` in one piece. `body_seconds`: for a whole body to come in."""

    def __init__(
        self, app: web.Application, host: str, port: int, *, ingress: Ingress, body_seconds: float, **more: Any
    ) -> None:
        super().__init__(app, host, port, **more)
        self.direct, self.body_seconds = ingress.direct, body_seconds
        self.connections: set[Connection] = set()
        self.closing = False
        self._look_seconds = min(LOOK_SECONDS, body_seconds / 4)
        self._look: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def prepare(self) -> None:
        """See `Door.prepare`."""
        await super().prepare()
        self._look_after()

    async def close(self) -> None:
        """Whoever waits for an answer gets it, and hears that the connection ends with it."""
        self.closing = True
        self._shut()
        for connection in list(self.connections):
            connection.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._shutdown_seconds):
                await self._left_by_all()
        for connection in list(self.connections):
            connection.abort()
        await self._left_by_all()
        if self._look is not None:
            self._look.cancel()
        await self._runner.cleanup()

    async def _left_by_all(self) -> None:
        while self.connections:
            self._empty.clear()
            await self._empty.wait()

    # -- what connections ask of it -----------------------------------------------------------------------------------

    def left(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def handler(self) -> asyncio.Protocol:
        return self._handler(0.0)

    def _connections(self) -> int:
        return len(self.connections)

    def _connection(self) -> asyncio.Protocol:
        return Connection(self, asyncio.get_running_loop())

    def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [it for it in self.connections if it.deadline <= now]:
            connection.expire()
        self._look = loop.call_later(self._look_seconds, self._look_after)
