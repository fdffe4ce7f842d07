"""One ingress behind each of its fronts, each on a real socket: what the tests of all of them share."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestServer
from starlette.applications import Starlette
from starlette.routing import Mount
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from engine.adapters.api_keys import Keys
from engine.adapters.http_ingress import Access, AsgiIngress, FastListener, Ingress, Listener, create_ingress_app
from engine.adapters.inflate import inflate
from engine.config import IngressConfig
from engine.errors import Overloaded, Stopped
from engine.metrics import Metrics
from engine.model import Append, Event, Lane, Rejection
from engine.profiles.formats import BodyUnreadable, Parsed, TooManyEvents

ROUTER, AIOHTTP, FAST, ASGI = "router", "aiohttp", "fast", "asgi"
FRONTS = (ROUTER, AIOHTTP, FAST, ASGI)
"""An aiohttp application, as `Engine.ingress_app` is served; the two fronts of `serve`; uvicorn with the ASGI app."""

OURS = (AIOHTTP, FAST)


class FakeReader:
    """One JSON array; a record without "email" is rejected, a "phone" is dropped."""

    def __init__(self) -> None:
        self.media_types: list[str] = []

    def read(self, body: bytes, media_type: str) -> Parsed:
        self.media_types.append(media_type)
        try:
            records = json.loads(body)
        except ValueError:
            raise BodyUnreadable("not JSON", "line 1") from None
        if len(records) > 5:
            raise TooManyEvents(5)
        good = [i for i, record in enumerate(records) if "email" in record]
        rejected = [Rejection(i, "email", "missing") for i in range(len(records)) if i not in good]
        dropped = [Rejection(i, "phone", "not_a_phone") for i in good if "phone" in records[i]]
        events = [Event(hashlib.sha256(records[i]["email"].encode()).digest(), b"{}") for i in good]
        return Parsed(events, rejected, dropped, len(records), good)


class FakeIntake:
    def __init__(self) -> None:
        self.refused: Overloaded | None = None
        self.error: Exception | None = None
        self.appends: list[Append] = []
        self.owners: list[str] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = self.begun = 0
        self.waited: list[float] = []
        self._commits: set[asyncio.Future[str]] = set()

    def refusal(self) -> Overloaded | None:
        return self.refused

    def hand_in(self, append: Append, told: Callable[[str | Exception], None], /, *, owner: str = "") -> None:
        commit = asyncio.ensure_future(self._commit(append, owner))
        self._commits.add(commit)

        def ended(_: object) -> None:
            self._commits.discard(commit)
            told(Stopped("cut off") if commit.cancelled() else commit.exception() or commit.result())

        commit.add_done_callback(ended)

    async def _commit(self, append: Append, owner: str) -> str:
        self.entered.set()
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        self.appends.append(append)
        self.owners.append(owner)
        return f"receipt-{len(self.appends)}"

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None:
        index = int(id.rpartition("-")[2]) if id.startswith("receipt-") else 0
        if not 0 < index <= len(self.owners) or self.owners[index - 1] != owner:
            return None
        return {"id": id, "state": "settled" if self.waited else "pending", "destinations": {"demo": {"pending": 0}}}

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool:
        self.waited.append(timeout_seconds)
        return True


def ingress_of(intake: FakeIntake, keys: Keys, *, reasons: Callable[[], list[str]] = list, **settings: Any) -> Ingress:
    """`settings`: of the table `[ingress]`."""
    reader = FakeReader()
    return Ingress(
        IngressConfig(**settings),
        {"default": (reader, Lane.LIVE)},
        changes=reader,
        intake=lambda: intake,
        readiness=reasons,
        access=Access(keys),
        inflate=inflate,
        metrics=Metrics(),
        random=random.Random(1),
    )


@contextmanager
def no_callback_fails() -> Iterator[None]:
    """What goes wrong in a callback is told to nobody but the loop."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    yield
    assert failures == [], failures


@asynccontextmanager
async def serving(front: str, ingress: Ingress, **options: Any) -> AsyncIterator[int]:
    """The port. `options`: `mount`, `unpack` (router), `tls`, `max_connections`, `body_seconds`, `closed`."""
    open_front = {ROUTER: _router, AIOHTTP: _listener, FAST: _listener, ASGI: _asgi}[front]
    with no_callback_fails():
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
        for connection in list(state.connections):
            connection.transport.abort()
        while state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
        await ingress.close()
