"""A listener of our own for an aiohttp application: TLS, a bound on connections, nothing of a request in the log."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import socket
import ssl
from collections.abc import Callable
from typing import cast

from aiohttp import web

from engine.adapters.http_ingress.problems import SECURITY_HEADERS, Problem

KEEPALIVE_SECONDS = 75.0
LINGER_SECONDS = 5.0
"""How long what a refused caller still sends is read and thrown away, so that it sees the answer."""

FULL_RETRY_SECONDS = 2.0

REFUSED_AT_ONCE = 8
"""How many connections beyond the bound are open for as long as it takes to tell them so; more are cut off."""


class Listener:
    """`port` 0 takes a free one; `port` tells which. `shutdown_seconds`: how long `close` lets requests under way go
    on. Without a bound when `max_connections` is 0."""

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
    ) -> None:
        self._host, self._wanted, self._tls = host, port, tls
        self._max_connections = max_connections
        self._random = random or random_module.Random()
        self._server: asyncio.Server | None = None
        self._refused: set[_Full] = set()
        self._runner = web.AppRunner(
            app,
            auto_decompress=False,
            access_log=None,
            logger=silent(),
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            shutdown_timeout=shutdown_seconds,
        )

    async def open(self) -> None:
        """Raises OSError when the address cannot be had."""
        await self.prepare()
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                self._protocol, self._host, self._wanted, ssl=self._tls, backlog=1024
            )
        except OSError:
            await self._runner.cleanup()
            raise

    async def prepare(self) -> None:
        """Enough for `adopt`: instead of `open`, where somebody else has the port."""
        await self._runner.setup()

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that somebody else has accepted. Raises OSError when it is gone, or its TLS fails."""
        await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self._tls)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._runner.server.connections) if self._runner.server is not None else 0

    @property
    def port(self) -> int:
        assert self._server is not None, "open the listener first"
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "the listener is closed"
        if self._max_connections and len(server.connections) >= self._max_connections:
            return _Full(self._answer_when_full, self._refused)
        return server()

    def _answer_when_full(self) -> bytes:
        problem = Problem("busy", "too many connections are open at once", retry_after_seconds=FULL_RETRY_SECONDS)
        body = problem.body()
        headers = {**SECURITY_HEADERS, **problem.headers_with(self._random), "Content-Length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in {**headers, "Connection": "close"}.items()]
        return "\r\n".join(["HTTP/1.1 503 Service Unavailable", *lines, "", ""]).encode() + body


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
