"""The fake destination, the RainFocus one and the webhook keep the promises of the port."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from engine.adapters.rainfocus import RainFocusDestination, failed
from engine.adapters.raw_http import RawTransport
from engine.adapters.sessions import AiohttpTransport, MeteredRequest, open_session
from engine.adapters.webhook import WebhookDestination
from engine.assembly.outward import mapper_of
from engine.config import AccountConfig, DestinationConfig
from engine.core.handover import Policy
from engine.ports import Destination
from engine.testing.clock import VirtualClock
from engine.testing.contracts import DestinationContract
from engine.testing.destination import FakeDestination
from engine.transport import Transport


@asynccontextmanager
async def transport_of(kind: str, url: str, connections: int) -> AsyncIterator[Transport]:
    if kind == "raw":
        transport: Transport = RawTransport(connections=connections)
    else:
        transport = AiohttpTransport(open_session(url, connections=connections, request_class=MeteredRequest))
    try:
        yield transport
    finally:
        await transport.close()


class TestFakeDestination(DestinationContract):
    def make(self, directory: Path, /) -> AbstractAsyncContextManager[Destination]:
        return self._make()

    @asynccontextmanager
    async def _make(self) -> AsyncIterator[Destination]:
        yield FakeDestination(profiles_per_request=5)


class TestRainFocusDestination(DestinationContract):
    encoding, transport = "single", "aiohttp"

    def make(self, directory: Path, /) -> AbstractAsyncContextManager[Destination]:
        return self._make()

    @asynccontextmanager
    async def _make(self) -> AsyncIterator[Destination]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        config = DestinationConfig(encoding=self.encoding)  # type: ignore[arg-type]
        async with TestServer(app) as server:
            url = str(server.make_url("")).rstrip("/")
            async with transport_of(self.transport, url, 4) as transport:
                yield RainFocusDestination(
                    config,
                    AccountConfig(base_url=url),
                    mapper=mapper_of(config),
                    policy=Policy(exits=config.exits),
                    transport=transport,
                    clock=VirtualClock(),
                    random=random.Random(7),
                )

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"responseCode": "0", "responseMessage": "Success"})


class TestRainFocusDestinationOfLists(TestRainFocusDestination):
    encoding = "array"


class TestRainFocusDestinationThatFails(TestRainFocusDestination):
    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(status=503, text="<html>no</html>")


class TestRainFocusDestinationOverRawConnections(TestRainFocusDestination):
    transport = "raw"


class TestRainFocusDestinationOfListsOverRawConnections(TestRainFocusDestinationOfLists):
    transport = "raw"


class TestRainFocusDestinationThatFailsOverRawConnections(TestRainFocusDestinationThatFails):
    transport = "raw"


class TestWebhookDestination(DestinationContract):
    status, transport = 204, "aiohttp"

    def make(self, directory: Path, /) -> AbstractAsyncContextManager[Destination]:
        return self._make()

    @asynccontextmanager
    async def _make(self) -> AsyncIterator[Destination]:
        app = web.Application()
        app.router.add_post("/hook", self._answer)
        async with TestServer(app) as server:
            url = str(server.make_url("/hook"))
            async with transport_of(self.transport, url, 4) as transport:
                yield WebhookDestination(
                    *("hook", url, [b"k" * 32]),
                    timeout_seconds=5.0,
                    transport=transport,
                    clock=VirtualClock(),
                    failed=failed,
                )

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=self.status)


class TestWebhookDestinationThatFails(TestWebhookDestination):
    status = 503
