"""One token for an account: fetched once however many wait, ahead of its end, and never shown."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from engine.adapters.oauth import Credentials, OAuthTokenSource, life_seconds, margin_seconds
from engine.adapters.sessions import open_session
from engine.core.backoff import Backoff
from engine.errors import ConfigError
from engine.metrics import AccountMetrics

AT_ONCE = Backoff(1e-9, 1e-9)


class HandClock:
    """Time that goes on by itself and that a test can push: `passed` seconds ahead."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def time(self) -> float:
        return 1_790_000_000.0 + self.passed


class TokenServer:
    """Answers what `script` says, then tokens tok-1, tok-2, …; `asked` is released with every request."""

    def __init__(self, *script: Callable[[], web.Response]) -> None:
        self.script = list(script)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.granted = 0
        self.expires_in: object = 3600
        self.asked = asyncio.Semaphore(0)
        self.hold = asyncio.Event()
        self.hold.set()

    async def handle(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append((request.headers.get("Authorization", ""), form))
        self.asked.release()
        await self.hold.wait()
        if self.script:
            return self.script.pop(0)()
        self.granted += 1
        return web.json_response({"access_token": f"tok-{self.granted}", "expires_in": self.expires_in})


@asynccontextmanager
async def source_at(
    server: TokenServer, *, running: bool = True, backoff: Backoff = AT_ONCE, **more: object
) -> AsyncIterator[tuple[OAuthTokenSource, HandClock, AccountMetrics]]:
    app = web.Application()
    app.router.add_post("/oidc/token", server.handle)
    async with TestServer(app) as host:
        url = str(host.make_url("/oidc/token"))
        async with source_of(url, running=running, backoff=backoff, **more) as found:
            yield found
        server.hold.set()


@asynccontextmanager
async def source_of(
    url: str,
    *,
    running: bool = True,
    backoff: Backoff = AT_ONCE,
    credentials: Credentials | None = None,
    **more: object,
) -> AsyncIterator[tuple[OAuthTokenSource, HandClock, AccountMetrics]]:
    clock, metrics = HandClock(), AccountMetrics()
    credentials = credentials or Credentials(client_id=lambda: "client", client_secret=lambda: "s3cret")
    async with open_session(url, connections=1) as session:
        source = OAuthTokenSource(
            url,
            credentials,
            session=session,
            clock=clock,
            random=random.Random(1),
            metrics=metrics,
            backoff=backoff,
            **more,  # type: ignore[arg-type]
        )
        task = asyncio.create_task(source.run()) if running else None
        try:
            yield source, clock, metrics
        finally:
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def run_for_some_turns(source: OAuthTokenSource) -> None:
    runner = asyncio.create_task(source.run())
    await turns()
    runner.cancel()
    with suppress(asyncio.CancelledError):
        await runner


# -- fetching ---------------------------------------------------------------------------------------------------------


async def test_however_many_wait_one_request_is_made() -> None:
    server = TokenServer()
    async with source_at(server) as (source, _, metrics):
        assert source.current() == ""
        assert await asyncio.gather(*(source.valid() for _ in range(20))) == ["tok-1"] * 20
        assert source.current() == await source.valid() == "tok-1"
        assert source.trouble == ""
    assert len(server.requests) == 1
    assert metrics.token_refreshes == {"ok": 1}


async def test_nobody_asks_nothing_is_fetched() -> None:
    server = TokenServer()
    async with source_at(server):
        await turns()
    assert server.requests == []


async def test_basic_puts_the_credentials_into_the_header() -> None:
    server = TokenServer()
    async with source_at(server) as (source, _, _):
        await source.valid()
    header, form = server.requests[0]
    assert header == "Basic " + base64.b64encode(b"client:s3cret").decode()
    assert form == {"grant_type": "client_credentials"}


async def test_post_puts_them_into_the_body() -> None:
    server = TokenServer()
    credentials = Credentials(client_id=lambda: "client", client_secret=lambda: "a+b c", placement="post")
    async with source_at(server, credentials=credentials) as (source, _, _):
        await source.valid()
    assert server.requests == [
        ("", {"grant_type": "client_credentials", "client_id": "client", "client_secret": "a+b c"})
    ]


def test_basic_encodes_both_parts_as_the_rfc_wants_it() -> None:
    credentials = Credentials(client_id=lambda: "a:b", client_secret=lambda: "é+/")
    headers, _ = credentials.request()
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"a%3Ab:%C3%A9%2B%2F"


async def test_a_rotated_secret_counts_from_the_next_request_on() -> None:
    secrets = iter(["old", "new"])
    server = TokenServer(lambda: web.json_response({"error": "invalid_client"}, status=401))
    credentials = Credentials(client_id=lambda: "c", client_secret=lambda: next(secrets), placement="post")
    async with source_at(server, credentials=credentials) as (source, _, metrics):
        assert await source.valid() == "tok-1"
    assert [form["client_secret"] for _, form in server.requests] == ["old", "new"]
    assert metrics.token_refreshes == {"token_http_401": 1, "ok": 1}


# -- expiry -----------------------------------------------------------------------------------------------------------


async def test_a_token_in_use_is_replaced_ahead_of_its_end() -> None:
    server = TokenServer()
    async with source_at(server, running=False) as (source, clock, _):
        await source.refresh()
        assert source.current() == "tok-1"
        clock.passed += 3239.0
        runner = asyncio.create_task(source.run())
        await turns()
        assert len(server.requests) == 1
        clock.passed += 1.5
        runner.cancel()
        runner = asyncio.create_task(source.run())
        await server.asked.acquire()
        await server.asked.acquire()
        assert source.current() == "tok-1"  # the old one serves until the new one is there
        runner.cancel()


async def test_an_idle_token_is_not_replaced_and_ends() -> None:
    server = TokenServer()
    async with source_at(server, running=False) as (source, clock, _):
        await source.refresh()
        clock.passed += 3590.0
        runner = asyncio.create_task(source.run())
        await turns()
        assert len(server.requests) == 1
        clock.passed += 10.0
        assert source.current() == ""
        assert await source.valid() == "tok-2"
        runner.cancel()


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (3600, 3600.0),
        ("1800", 1800.0),
        (90.5, 90.5),
        (0.001, 1.0),
        (10**9, 7 * 86400.0),
        (None, 3600.0),
        (0, 3600.0),
        (-5, 3600.0),
        ("soon", 3600.0),
        ("nan", 3600.0),
        ("inf", 3600.0),
        (True, 3600.0),
        ([], 3600.0),
        (10**400, 3600.0),
    ],
)
def test_how_long_a_token_lives(expires_in: object, life: float) -> None:
    assert life_seconds(expires_in) == life


@pytest.mark.parametrize(("life", "margin"), [(3600.0, 360.0), (200.0, 30.0), (40.0, 20.0), (1.0, 0.5)])
def test_the_margin(life: float, margin: float) -> None:
    assert margin_seconds(life) == margin


# -- refusal ----------------------------------------------------------------------------------------------------------


async def test_only_the_current_token_can_be_discarded() -> None:
    server = TokenServer()
    async with source_at(server) as (source, _, _):
        await source.valid()
        source.discard("tok-0")
        source.discard("")
        assert source.current() == "tok-1"
        source.discard("tok-1")
        assert source.current() == ""
        assert await source.valid() == "tok-2"
        source.discard("tok-1")
        assert source.current() == "tok-2"
    assert len(server.requests) == 2


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (lambda: web.Response(status=401), "token_http_401"),
        (lambda: web.Response(status=503, text="<html>"), "token_http_503"),
        (lambda: web.Response(status=302, headers={"Location": "/oidc/token"}), "token_http_302"),
        (lambda: web.Response(text="<html>"), "token_unreadable"),
        (lambda: web.json_response([]), "token_unreadable"),
        (lambda: web.json_response({"access_token": ""}), "token_unreadable"),
        (lambda: web.json_response({"access_token": "a\r\nb: c"}), "token_unreadable"),
        (lambda: web.json_response({"access_token": 7}), "token_unreadable"),
    ],
)
async def test_a_failing_endpoint_is_named_and_waited_out(response: Callable[[], web.Response], reason: str) -> None:
    server = TokenServer(response)
    async with source_at(server, running=False) as (source, _, metrics):
        assert await source.refresh() == source.trouble == reason
        assert source.current() == ""
        runner = asyncio.create_task(source.run())
        assert await source.valid() == "tok-1"
        assert source.trouble == ""
        runner.cancel()
    assert metrics.token_refreshes == {reason: 1, "ok": 1}


async def test_an_endpoint_that_says_nothing() -> None:
    server = TokenServer()
    server.hold.clear()
    async with source_at(server, running=False, timeout_seconds=0.05) as (source, _, _):
        assert await source.refresh() == "token_timeout"


async def test_an_endpoint_that_is_not_there() -> None:
    async with source_of(f"http://127.0.0.1:{unused_port()}/", running=False) as (source, _, _):
        assert await source.refresh() == "token_connection"
    async with source_of("http://nowhere.invalid/", running=False) as (source, _, _):
        assert await source.refresh() == "token_dns"


async def test_credentials_that_cannot_be_read_are_tried_again() -> None:
    problems = [ConfigError(["no such variable"])]

    def secret() -> str:
        if problems:
            raise problems.pop()
        return "s"

    server = TokenServer()
    credentials = Credentials(client_id=lambda: "c", client_secret=secret)
    async with source_at(server, credentials=credentials) as (source, _, metrics):
        assert await source.valid() == "tok-1"
    assert metrics.token_refreshes == {"credentials_unreadable": 1, "ok": 1}


async def test_a_valid_token_is_no_trouble_though_its_renewal_fails() -> None:
    server = TokenServer(lambda: web.json_response({"access_token": "t"}), lambda: web.Response(status=500))
    async with source_at(server, running=False) as (source, _, _):
        await source.refresh()
        assert await source.refresh() == "token_http_500"
        assert (source.current(), source.trouble) == ("t", "")
        source.discard("t")
        assert source.trouble == "token_http_500"


class Counted:
    """Credentials that know how often they were read: once in the turn in which a request starts."""

    def __init__(self) -> None:
        self.reads = 0
        self.credentials = Credentials(client_id=self.read, client_secret=lambda: "s3cret")

    def read(self) -> str:
        self.reads += 1
        return "client"


async def test_failures_back_off_by_themselves() -> None:
    server, counted = TokenServer(lambda: web.Response(status=500)), Counted()
    waits = Backoff(1000.0, 1000.0)
    async with source_at(server, running=False, backoff=waits, credentials=counted.credentials) as (source, clock, _):
        assert await source.refresh() == "token_http_500"
        waiter = asyncio.create_task(source.valid())
        await turns()
        await run_for_some_turns(source)
        assert counted.reads == 1
        clock.passed += 1000.0
        runner = asyncio.create_task(source.run())
        assert await waiter == "tok-1"
        runner.cancel()


@pytest.mark.parametrize("value", ["120", "Mon, 21 Sep 2026 14:15:20 GMT"])
async def test_the_endpoints_own_retry_after_is_kept(value: str) -> None:
    server, counted = TokenServer(lambda: web.Response(status=429, headers={"Retry-After": value})), Counted()
    async with source_at(server, running=False, credentials=counted.credentials) as (source, clock, _):
        await source.refresh()
        waiter = asyncio.create_task(source.valid())
        clock.passed += 60.0
        await run_for_some_turns(source)
        assert counted.reads == 1
        clock.passed += 60.5
        runner = asyncio.create_task(source.run())
        assert await waiter == "tok-1"
        runner.cancel()


async def test_nothing_is_started_during_a_pause() -> None:
    pause, server, counted = [60.0], TokenServer(), Counted()
    async with source_at(server, running=False, paused=lambda: pause[0], credentials=counted.credentials) as (
        source,
        _,
        _,
    ):
        waiter = asyncio.create_task(source.valid())
        await run_for_some_turns(source)
        assert counted.reads == 0
        pause[0] = 0.0
        runner = asyncio.create_task(source.run())
        assert await waiter == "tok-1"
        runner.cancel()


async def test_a_cancelled_waiter_leaves_the_others_alone() -> None:
    server = TokenServer()
    server.hold.clear()
    async with source_at(server) as (source, _, _):
        gone, stays = asyncio.create_task(source.valid()), asyncio.create_task(source.valid())
        await server.asked.acquire()
        gone.cancel()
        server.hold.set()
        assert await stays == "tok-1"
        assert gone.cancelled()


async def test_nothing_that_is_shown_holds_a_secret() -> None:
    server = TokenServer(lambda: web.Response(status=401, text="client s3cret is wrong"))
    credentials = Credentials(client_id=lambda: "client", client_secret=lambda: "s3cret")
    async with source_at(server, credentials=credentials) as (source, _, _):
        await source.valid()
        shown = f"{source!r} {credentials!r} {source.trouble}"
    assert "s3cret" not in shown
    assert "tok-1" not in shown


async def test_no_token_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither when it is fetched, nor when it is refused, nor when its successor cannot be had."""
    server = TokenServer(lambda: web.Response(status=503, text="tok-0 s3cret"))
    with caplog.at_level(logging.DEBUG):
        async with source_at(server) as (source, clock, _):
            for _ in range(3):
                source.discard(await source.valid())
            clock.passed = 4_000.0
            await source.valid()
    assert "here again" in caplog.text, "what it does is logged all the same"
    assert "tok-" not in caplog.text
    assert "s3cret" not in caplog.text
