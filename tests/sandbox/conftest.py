"""A sandbox under a clock that a test moves, and a client that talks to it over a real socket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from engine.sandbox import Sandbox, Settings, running_sandbox

PATH = "/api/acme/v3/attendee/store"


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


class ManualClock:
    """Stands still until it is moved; `sleep` moves it, and can be held by `gate`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.gate: asyncio.Event | None = None
        self.sleeping = asyncio.Event()

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_790_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.sleeping.set()
        if self.gate is not None:
            await self.gate.wait()


class Client:
    """Calls one sandbox as an integrator would."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession, clock: ManualClock) -> None:
        self.sandbox = sandbox
        self.session = session
        self.clock = clock
        self.token = ""

    async def fetch_token(self) -> str:
        form = {"grant_type": "client_credentials"}
        async with self.session.post("/oidc/token", data=form, headers=basic("sandbox", "sandbox")) as reply:
            assert reply.status == 200
            self.token = (await reply.json())["access_token"]
        return self.token

    async def raw(self, path: str = PATH, **request: Any) -> tuple[aiohttp.ClientResponse, bytes]:
        headers = {"Authorization": f"Bearer {self.token}", **request.pop("headers", {})}
        async with self.session.post(path, headers=headers, **request) as reply:
            return reply, await reply.read()

    async def store(self, content: Any, path: str = PATH, **request: Any) -> tuple[int, Any]:
        async with self.session.post(
            path, json=content, headers={"Authorization": f"Bearer {self.token}"}, **request
        ) as reply:
            return reply.status, await reply.json()

    async def get(self, path: str, **query: Any) -> Any:
        async with self.session.get(f"/_sandbox/{path}", params=query) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.json()


Start = Callable[..., Awaitable[Client]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a sandbox with these settings, its client holding a token."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Client:
            clock = ManualClock()
            sandbox = await stack.enter_async_context(
                running_sandbox(Settings(**{"port": 0, "seed": 7, **settings}), clock=clock)
            )
            session = await stack.enter_async_context(aiohttp.ClientSession(sandbox.url))
            client = Client(sandbox, session, clock)
            await client.fetch_token()
            return client

        yield begin


def attendee(email: str = "lea.martin@example.com", **fields: Any) -> dict[str, Any]:
    return {"event": "acme27", "email": email, **fields}


@pytest.fixture(name="attendee")
def attendee_fixture() -> Callable[..., dict[str, Any]]:
    return attendee


@pytest.fixture(name="basic")
def basic_fixture() -> Callable[[str, str], dict[str, str]]:
    return basic
