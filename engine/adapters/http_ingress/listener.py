"""A listener of our own for an aiohttp application: TLS, a bound on connections, nothing of a request in the log."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from engine.adapters.http_ingress.hot import QuietHandler, hot_first
from engine.adapters.http_ingress.ingress import Ingress
from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.request import IngressAnswer
from engine.adapters.http_ingress.wire import encode

KEEPALIVE_SECONDS = 75.0
LINGER_SECONDS = 5.0
"""How long what a refused caller still sends is read and thrown away, so that it sees the answer."""

FULL_RETRY_SECONDS = 2.0

BACKLOG = 1024

REFUSED_AT_ONCE = 8
"""How many connections beyond the bound are open for as long as it takes to tell them so; more are cut off."""


class Door(ABC):
    """What every listener has. `port` 0 takes a free one; `port` tells which. Without a bound when `max_connections`
    is 0. `sock`: already bound, taken over instead of host and port. `reuse_port`: other processes may listen at the
    same port, and the system spreads connections over them. `shutdown_seconds`: how long `close` lets requests under
    way go on."""

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        max_connections: int = 0,
        tls: ssl.SSLContext | None = None,
        shutdown_seconds: float = 2.0,
        random: random_module.Random | None = None,
        sock: socket.socket | None = None,
        reuse_port: bool = False,
    ) -> None:
        self._place: dict[str, Any] = (
            {"sock": sock} if sock is not None else {"host": host, "port": port, "reuse_port": reuse_port or None}
        )
        self._tls, self._max_connections, self._shutdown_seconds = tls, max_connections, shutdown_seconds
        self._random = random or random_module.Random()
        self._server: asyncio.Server | None = None
        self._refused: set[_Full] = set()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_seconds)

    def refusal(self, problem: Problem) -> IngressAnswer:
        return IngressAnswer(problem.status, problem.headers_with(self._random), problem.body())

    def _handler(self, linger_seconds: float) -> asyncio.Protocol:
        """One of aiohttp's, for a connection."""
        assert self._runner.server is not None, "the listener is closed"
        return QuietHandler(
            self.refusal,
            self._runner.server,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            access_log=None,
            logger=_SILENT,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=linger_seconds,
        )

    @abstractmethod
    def _connections(self) -> int:
        """How many are open."""

    @abstractmethod
    def _connection(self) -> asyncio.Protocol:
        """For one that has come in."""

    async def _listen(self) -> None:
        """Raises OSError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, ssl=self._tls, backlog=BACKLOG, **self._place)

    async def open(self) -> None:
        """Raises OSError when the address cannot be had."""
        await self.prepare()
        try:
            await self._listen()
        except OSError:
            await self.close()
            raise

    @abstractmethod
    async def close(self) -> None:
        """Let requests under way go on for a while, and nobody in."""

    async def prepare(self) -> None:
        """Enough for `adopt`: instead of `open`, where somebody else has the port."""
        await self._runner.setup()

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that somebody else has accepted. Raises OSError when it is gone, or its TLS fails."""
        await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self._tls)

    @property
    def open_connections(self) -> int:
        return self._connections()

    @property
    def port(self) -> int:
        assert self._server is not None, "open the listener first"
        return int(self._server.sockets[0].getsockname()[1])

    def _protocol(self) -> asyncio.Protocol:
        if self._max_connections and self._connections() >= self._max_connections:
            return _Full(self._answer_when_full, self._refused)
        return self._connection()

    def _answer_when_full(self) -> bytes:
        problem = Problem("busy", "too many connections are open at once", retry_after_seconds=FULL_RETRY_SECONDS)
        return encode(self.refusal(problem), "close")

    def _shut(self) -> None:
        """Nobody comes in any more."""
        if self._server is not None:
            self._server.close()
        for one in list(self._refused):
            one.cut()


class Listener(Door):
    """An aiohttp application behind aiohttp's own server. With an `ingress` what can be answered without a router is:
    `POST /v1/profiles` in one piece."""

    def __init__(
        self, app: web.Application, host: str, port: int, *, ingress: Ingress | None = None, **more: Any
    ) -> None:
        super().__init__(app, host, port, **more)
        self._ingress = ingress

    async def prepare(self) -> None:
        """See `Door.prepare`."""
        await super().prepare()
        if self._ingress is not None and self._runner.server is not None:
            server = self._runner.server
            server.request_handler = hot_first(self._ingress, server.request_handler, self.refusal)

    async def close(self) -> None:
        self._shut()
        await self._runner.cleanup()

    def _connections(self) -> int:
        return len(self._runner.server.connections) if self._runner.server is not None else 0

    def _connection(self) -> asyncio.Protocol:
        return self._handler(LINGER_SECONDS)


class _Full(asyncio.Protocol):
    """One connection too many: hears so at its first bytes, and is closed. `others`: those that are being told."""

    def __init__(self, answer: Callable[[], bytes], others: set[_Full]) -> None:
        self._answer, self._others = answer, others
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        if len(self._others) >= REFUSED_AT_ONCE:
            self._transport.abort()
            return
        self._others.add(self)
        self._deadline = asyncio.get_running_loop().call_later(FULL_RETRY_SECONDS, self._transport.abort)

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._answer())
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()


def tls_context(cert: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """With `client_ca`, only clients with a certificate of it get through. Raises OSError and ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key or None)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def silent() -> logging.Logger:
    """aiohttp logs malformed requests with what they said. What goes wrong inside a handler is logged elsewhere."""
    logger = logging.Logger("engine.http.protocol", level=logging.CRITICAL + 1)
    logger.addHandler(logging.NullHandler())
    return logger


_SILENT = silent()
