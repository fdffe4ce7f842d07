"""Alerts as webhooks: signed so that anybody's library verifies them, and whatever the receiver does has a name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from engine.adapters.alert_webhook import WebhookNotifier, body_of, signed
from engine.adapters.clock import SystemClock
from engine.adapters.sessions import open_session
from engine.errors import ConfigError
from engine.model import Notice, NoticeEvent
from engine.ports import Told

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SENDER = {"host": "engine-1", "version": "0.1.0"}


def notice(**fields: Any) -> Notice:
    whole = {
        "id": "msg_1",
        "event": NoticeEvent.RAISED,
        "at": 1_700_000_000.0,
        "alert": "late",
        "when": "delivery-delay",
    }
    whole |= {"destination": "demo", "since": 1_699_999_900.0, "figure": 950.0, "threshold": 900.0, "unit": "seconds"}
    whole |= {"summary": "destination demo: events take 950 s; the threshold is 900 s", "advice": "look at it"}
    return Notice(**whole | {"page": "docs/alerts.md#delivery-delay", "targets": ["oncall"]} | fields)


class Receiver:
    """Does with a request what it is told, and keeps it."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[], Awaitable[web.StreamResponse]] = self.fine

    async def fine(self) -> web.StreamResponse:
        return web.Response(status=204)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((dict(request.headers), await request.read()))
        return await self.answer()


@pytest.fixture
async def receiver(unused_port: int) -> AsyncIterator[tuple[Receiver, str]]:
    started, application = Receiver(), web.Application()
    application.router.add_route("*", "/{tail:.*}", started.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield started, f"http://127.0.0.1:{runner.addresses[0][1]}/hook/token"
    await runner.cleanup()


@pytest.fixture
def unused_port() -> int:
    """Nobody listens there."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def tell(url: str, *, secret: Callable[[], str] = lambda: SECRET, seconds: float = 5.0, **fields: Any) -> Told:
    async with open_session(url, connections=1) as session:
        return await WebhookNotifier(
            lambda: url, secret, session=session, clock=SystemClock(), sender=SENDER, timeout_seconds=seconds
        ).tell(notice(**fields))


@pytest.mark.parametrize(
    ("secret", "id", "at", "body", "signature"),
    [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            1_731_705_121,
            b'{"event_type":"ping","data":{"success":true}}',
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
    ],
)
def test_the_signature_is_that_of_the_published_vectors(
    secret: str, id: str, at: int, body: bytes, signature: str
) -> None:
    """Of Standard Webhooks' own libraries and of Svix's documentation."""
    headers = signed(secret, id, body, at + 0.9)
    assert headers["webhook-signature"] == signature
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (id, str(at))


async def test_a_receiver_verifies_it_with_the_library(receiver: tuple[Receiver, str]) -> None:
    one, url = receiver
    assert await tell(url) == Told("ok")
    ((headers, body),) = one.seen
    said = Webhook(SECRET).verify(body, headers)
    assert (said["type"], said["timestamp"]) == ("alert.raised", "2023-11-14T22:13:20Z")
    assert said["data"]["figure"] == 950.0
    assert said["data"]["threshold"] == 900.0
    assert said["data"]["destination"] == "demo"
    assert said["data"]["page"] == "docs/alerts.md#delivery-delay"
    assert said["data"]["engine"] == SENDER
    for wrong in (body + b" ", body.replace(b"950", b"951")):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(wrong, headers)


async def test_a_redirect_is_not_followed(receiver: tuple[Receiver, str]) -> None:
    one, url = receiver

    async def elsewhere() -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": url.replace("/hook", "/elsewhere")})

    one.answer = elsewhere
    assert await tell(url) == Told("http_307")
    assert len(one.seen) == 1


@pytest.mark.parametrize(
    ("status", "header", "told"),
    [
        (500, "", Told("http_500")),
        (503, "17", Told("http_503", 17.0)),
        (429, "99999", Told("http_429", 3_600.0)),
        (410, "", Told("http_410", gone=True)),
        (404, "", Told("http_404")),
    ],
)
async def test_what_the_receiver_says_is_what_comes_back(
    receiver: tuple[Receiver, str], status: int, header: str, told: Told
) -> None:
    one, url = receiver

    async def answer() -> web.StreamResponse:
        return web.Response(status=status, headers={"Retry-After": header} if header else {}, text="lea@example.com")

    one.answer = answer
    assert await tell(url) == told


async def test_a_receiver_that_is_slow_is_given_up(receiver: tuple[Receiver, str]) -> None:
    one, url = receiver

    async def never() -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    one.answer = never
    assert await tell(url, seconds=0.2) == Told("timeout")


async def test_nobody_there_is_said_so(unused_port: int) -> None:
    assert await tell(f"http://127.0.0.1:{unused_port}/") == Told("connection")


async def test_a_secret_that_cannot_be_had_is_said_so_and_nothing_is_sent(receiver: tuple[Receiver, str]) -> None:
    one, url = receiver

    def gone() -> str:
        raise ConfigError(["the file is gone"])

    assert await tell(url, secret=gone) == Told("secret_unreadable")
    assert one.seen == []


def test_neither_url_nor_secret_stands_in_a_repr_or_in_where() -> None:
    one = WebhookNotifier(
        lambda: "https://hooks.example.com/token-that-is-secret",
        lambda: SECRET,
        session=None,  # type: ignore[arg-type]
        clock=SystemClock(),
        sender=SENDER,
        timeout_seconds=1.0,
    )
    assert one.where == "hooks.example.com"
    assert repr(one) == "<WebhookNotifier [hooks.example.com]>"


def test_a_body_is_the_same_however_often_it_is_made() -> None:
    assert body_of(notice(), SENDER) == body_of(notice(), SENDER)
