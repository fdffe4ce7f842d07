"""The way out as it is assembled, and the tests of a connection a person can start."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from engine.adapters.clock import SystemClock
from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.raw_http import RawTransport
from engine.adapters.sessions import AiohttpTransport
from engine.assembly import connection, outward
from engine.config import AccountConfig, DestinationConfig, RateConfig
from engine.core.backoff import Backoff
from engine.core.breaker import Breaker
from engine.core.window import Window
from engine.dispatcher import Account
from engine.errors import ConfigError
from engine.metrics import AccountMetrics

EMAIL = "lea.martin@example.com"


class RainFocusServer:
    """A token endpoint and an attendee store."""

    def __init__(self) -> None:
        self.token_status = 200
        self.stored: list[tuple[str, dict[str, object]]] = []
        self.store_reply: dict[str, object] = {"responseCode": "0", "attendeeId": "17A"}

    async def token(self, request: web.Request) -> web.Response:
        return web.json_response({"access_token": "tok-1", "expires_in": 3600}, status=self.token_status)

    async def store(self, request: web.Request) -> web.Response:
        self.stored.append((request.headers["Authorization"], await request.json()))
        return web.json_response(self.store_reply)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AccountConfig]:
        app = web.Application()
        app.router.add_post("/oidc/token", self.token)
        app.router.add_post("/api/demo/v3/attendee/store", self.store)
        async with TestServer(app) as server:
            rate = RateConfig(requests_per_second=100.0, burst=2)
            yield AccountConfig(base_url=str(server.make_url("")), client_secret="s3cret", rate=rate)


class CountingBucket(AiolimiterBucket):
    takes = 0

    async def take(self) -> None:
        await super().take()
        self.takes += 1


@asynccontextmanager
async def account_of(config: AccountConfig) -> AsyncIterator[tuple[Account, CountingBucket, outward.Outward]]:
    """An account with its arbiter and its token source at work, and the way out."""
    random_source, clock = random.Random(3), SystemClock()
    bucket = CountingBucket(config.rate.requests_per_second, config.rate.burst)
    account = Account(
        config.name,
        bucket=bucket,
        window=Window(config.rate.max_concurrency, adaptive=False),
        breaker=Breaker(Backoff(1.0, 60.0), random_source),
        tokens=None,
        clock=clock,
        metrics=AccountMetrics(),
        store_pause=lambda name, until: None,
    )
    async with AsyncExitStack() as stack:
        built = await outward.build_outward(config, [DestinationConfig()], account, clock, random_source, stack)
        account.tokens = built.tokens
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(built.tokens.run)
        tasks.start_soon(account.run, tasks)
        yield account, bucket, built
        tasks.cancel_scope.cancel()


def steps(answer: dict[str, object]) -> list[tuple[str, bool]]:
    found = answer["steps"]
    assert isinstance(found, list)
    assert all(set(step) == {"step", "ok", "detail", "seconds"} for step in found)
    assert answer["ok"] == all(step["ok"] for step in found)
    json.dumps(answer)
    return [(step["step"], step["ok"]) for step in found]


REACHED = [("resolve", True), ("connect", True), ("token", True)]


async def test_without_an_engine_nothing_is_written() -> None:
    server = RainFocusServer()
    async with server.running() as config:
        answer = await outward.try_connection(config, DestinationConfig())
    assert steps(answer) == REACHED
    assert server.stored == []


async def test_without_an_engine_only_the_named_attendee_is_written() -> None:
    server = RainFocusServer()
    async with server.running() as config:
        answer = await outward.try_connection(config, DestinationConfig(), store_email=EMAIL)
    assert steps(answer) == [*REACHED, ("store", True)]
    assert server.stored == [("Bearer tok-1", {"event": "demo27", "email": EMAIL})]


async def test_without_an_engine_a_stored_pause_still_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PERMIT_SECONDS", 0.05)
    server = RainFocusServer()
    async with server.running() as config:
        answer = await outward.try_connection(
            config, DestinationConfig(), store_email=EMAIL, paused_until=SystemClock().time() + 60.0
        )
    assert steps(answer) == [*REACHED, ("store", False)]
    assert server.stored == []


async def test_a_wrong_secret_is_named_and_not_shown() -> None:
    server = RainFocusServer()
    server.token_status = 401
    async with server.running() as config:
        answer = await outward.try_connection(config, DestinationConfig())
    assert steps(answer) == [*REACHED[:2], ("token", False)]
    assert "token_http_401" in json.dumps(answer)
    assert "s3cret" not in json.dumps(answer)


async def test_what_cannot_be_reached_ends_the_test() -> None:
    config = AccountConfig(base_url=f"http://127.0.0.1:{unused_port()}")
    assert steps(await outward.try_connection(config, DestinationConfig())) == [("resolve", True), ("connect", False)]
    nowhere = AccountConfig(base_url="http://nowhere.invalid")
    assert steps(await outward.try_connection(nowhere, DestinationConfig())) == [("resolve", False)]


async def test_a_running_engine_writes_only_when_told_to() -> None:
    server = RainFocusServer()
    async with server.running() as config, account_of(config) as (_, bucket, built):
        assert steps(await built.testers["demo"](None)) == REACHED
        assert (server.stored, bucket.takes) == ([], 0)
        answer = await built.testers["demo"](f" {EMAIL} ")
    assert steps(answer) == [*REACHED, ("store", True)]
    assert server.stored == [("Bearer tok-1", {"event": "demo27", "email": EMAIL})]
    assert bucket.takes >= 1
    assert "17A" in json.dumps(answer)


async def test_a_refused_record_is_told_without_its_address() -> None:
    server = RainFocusServer()
    server.store_reply = {"responseCode": "27", "responseMessage": f"no access to {EMAIL}"}
    async with server.running() as config, account_of(config) as (_, _, built):
        answer = await built.testers["demo"](EMAIL)
    assert steps(answer)[-1] == ("store", False)
    assert "response_code_27" in json.dumps(answer)
    assert "lea.martin" not in json.dumps(answer)


async def test_a_pause_binds_the_test_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PERMIT_SECONDS", 0.05)
    server = RainFocusServer()
    async with server.running() as config, account_of(config) as (account, bucket, built):
        await built.tokens.valid()
        account.pause(60.0)
        answer = await built.testers["demo"](EMAIL)
        assert steps(answer)[-1] == ("store", False)
        built.tokens.discard("tok-1")
        answer = await built.testers["demo"](EMAIL)
        assert steps(answer)[-1] == ("token", False)
    assert (server.stored, bucket.takes) == ([], 0)


@pytest.mark.parametrize("text", ["", "lea", "lea@", "@example.com", "a b@example.com", "a\n@example.com"])
async def test_what_is_no_address_is_not_sent(text: str) -> None:
    server = RainFocusServer()
    async with server.running() as config, account_of(config) as (_, _, built):
        assert steps(await built.testers["demo"](text))[-1] == ("store", False)
    assert server.stored == []


def test_a_synthetic_address_never_leaves_for_a_real_store() -> None:
    with pytest.raises(connection.StepFailed):
        connection.profile_of("p1@Bench.invalid", 0.0, refuse_synthetic=True)
    assert connection.profile_of("p1@bench.invalid", 0.0, refuse_synthetic=False).events == 1


async def test_what_was_opened_is_closed_with_the_stack() -> None:
    server = RainFocusServer()
    async with server.running() as config:
        before = len(asyncio.all_tasks())
        async with account_of(config) as (_, _, built):
            await built.tokens.valid()
        assert built.tokens.current() == ""
        for _ in range(20):  # the server, which is in the same loop, hears of it
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before


# -- what requests leave over -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "proxy", "expected"),
    [
        ("auto", "", RawTransport),
        ("auto", "http://user:pass@proxy.example:3128", AiohttpTransport),
        ("aiohttp", "", AiohttpTransport),
        ("raw", "", RawTransport),
    ],
)
async def test_raw_connections_are_used_unless_a_proxy_is_in_the_way(
    monkeypatch: pytest.MonkeyPatch, wanted: str, proxy: str, expected: type
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    async with AsyncExitStack() as stack:
        transports = outward.Transports(AccountConfig(transport=wanted), stack)  # type: ignore[arg-type]
        first, again = transports.to("https://rf.example/a"), transports.to("https://rf.example/b")
        assert isinstance(first, expected)
        assert first is again


async def test_a_raw_connection_through_a_proxy_is_refused_and_no_password_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://user:pass@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "")
    async with AsyncExitStack() as stack:
        transports = outward.Transports(AccountConfig(transport="raw"), stack)
        with pytest.raises(ConfigError, match=r"proxy\.example.*auto.*NO_PROXY") as refused:
            transports.to("https://rf.example/a")
    assert "pass" not in str(refused.value)
