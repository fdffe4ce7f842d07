"""One ingress behind each of its fronts, each on a real socket: what the tests of all of them share."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestServer
from starlette.applications import Starlette
from starlette.routing import Mount
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from engine.adapters.http_ingress import AsgiIngress, FastListener, Ingress, Listener, create_ingress_app

ROUTER, AIOHTTP, FAST, ASGI = "router", "aiohttp", "fast", "asgi"
FRONTS = (ROUTER, AIOHTTP, FAST, ASGI)
"""An aiohttp application, as `Engine.ingress_app` is served; the two fronts of `serve`; uvicorn with the ASGI app."""

OURS = (AIOHTTP, FAST)


@asynccontextmanager
async def serving(front: str, ingress: Ingress, **options: Any) -> AsyncIterator[int]:
    """The port. `options`: `mount`, `unpack` (router), `tls`, `max_connections`, `body_seconds`, `closed`."""
    open_front = {ROUTER: _router, AIOHTTP: _listener, FAST: _listener, ASGI: _asgi}[front]
    async with open_front(front, ingress, **options) as port:
        yield port


@asynccontextmanager
async def _router(
    front: str, ingress: Ingress, *, mount: str = "", unpack: bool = False, **_: Any
) -> AsyncIterator[int]:
    app = create_ingress_app(ingress)
    if mount:
        outer = web.Application()
        outer.add_subapp(mount, app)
        app = outer
    server = TestServer(app)
    await server.start_server(auto_decompress=unpack)
    try:
        assert server.port is not None
        yield server.port
    finally:
        await server.close()


def listener_of(front: str, ingress: Ingress, *, body_seconds: float = 10.0, **more: Any) -> Listener | FastListener:
    app = create_ingress_app(ingress)
    more["random"] = random.Random(1)
    if front == FAST:
        return FastListener(app, "127.0.0.1", 0, ingress=ingress, body_seconds=body_seconds, **more)
    return Listener(app, "127.0.0.1", 0, ingress=ingress, **more)


@asynccontextmanager
async def _listener(front: str, ingress: Ingress, **more: Any) -> AsyncIterator[int]:
    listener = listener_of(front, ingress, **more)
    await listener.open()
    try:
        yield listener.port
    finally:
        await listener.close()


@asynccontextmanager
async def _asgi(front: str, ingress: Ingress, *, mount: str = "", **_: Any) -> AsyncIterator[int]:
    """uvicorn's protocol without its main loop, which minds signals."""
    app: Any = AsgiIngress(ingress)
    if mount:
        app = Starlette(routes=[Mount(mount, app=app)])
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False)
    config.load()
    state = ServerState()
    make: Callable[[], asyncio.Protocol] = lambda: HttpToolsProtocol(config, state, {})  # noqa: E731
    sock = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(make, sock=sock)
    try:
        yield int(sock.getsockname()[1])
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=5)
        await ingress.close()
