"""The webhook against a real HTTP server: what it posts, that its signature verifies, and what answers mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from engine.adapters.rainfocus import failed
from engine.adapters.sessions import AiohttpTransport, MeteredRequest, open_session
from engine.adapters.webhook import WebhookDestination, verdict_of
from engine.core.signature import is_signed
from engine.errors import PermitVoid
from engine.model import Batch, Lane, Profile, Reply, VerdictKind
from engine.profiles.changes import ChangeReader, join_changes
from engine.testing.clock import VirtualClock

KEYS = [b"a" * 32, b"b" * 32]
NOW = 1_790_000_000.0


class FixedClock(VirtualClock):
    def time(self) -> float:
        return NOW


class Permit:
    token = ""
    uses = 0

    async def use(self) -> None:
        self.uses += 1


def changes(*names: str, key: bytes = b"k" * 32) -> Profile:
    content = b""
    for name in names:
        record = {"attendee": {"email": "lea@example.com"}, "eventType": name, "timestamp": f"2026-{name}"}
        (event,) = ChangeReader(max_events=1).read(json.dumps(record).encode(), "application/json").events
        content = join_changes(content, event.content)[0] if content else event.content
    return Profile(key, content, 0, Lane.LIVE, 0, 0, 0, len(names), 0.0)


class Receiver:
    """Keeps what it is posted and answers as it is told."""

    def __init__(self) -> None:
        self.status, self.headers, self.text = 200, dict[str, str](), "fine"
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[web.Request], Awaitable[web.Response]] | None = None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(status=self.status, headers=self.headers, text=self.text)


@asynccontextmanager
async def webhook(url: str, timeout_seconds: float = 5.0) -> AsyncIterator[WebhookDestination]:
    async with open_session(url, connections=2, request_class=MeteredRequest) as session:
        yield WebhookDestination(
            *("hook", url, KEYS),
            timeout_seconds=timeout_seconds,
            transport=AiohttpTransport(session),
            clock=FixedClock(),
            failed=failed,
        )


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, WebhookDestination]]:
    there = Receiver()
    app = web.Application()
    app.router.add_post("/hook", there.take)
    async with TestServer(app) as server, webhook(str(server.make_url("/hook"))) as hook:
        yield there, hook


Both = tuple[Receiver, WebhookDestination]


async def post(hook: WebhookDestination, profile: Profile) -> Reply:
    return await hook.send(Batch([profile], [hook.encode(profile)]), Permit())


async def test_everything_that_waits_for_one_attendee_is_posted_in_order(receiver: Both) -> None:
    there, hook = receiver
    reply = await post(hook, changes("01", "02", "03"))
    assert (reply.verdicts[0].kind, reply.status) == (VerdictKind.OK, 200)
    ((headers, body),) = there.requests
    said = json.loads(body)
    assert (said["type"], said["timestamp"], said["data"]["key"]) == ("rainfocus.change", "2026-03", "6b" * 32)
    assert [it["record"]["eventType"] for it in said["data"]["events"]] == ["01", "02", "03"]
    assert len({it["id"] for it in said["data"]["events"]}) == 3
    assert headers["content-type"] == "application/json"


async def test_the_receiver_can_verify_it_with_either_secret(receiver: Both) -> None:
    there, hook = receiver
    await post(hook, changes("01"))
    ((headers, body),) = there.requests
    assert [is_signed(key, headers, body, NOW) for key in KEYS] == [True, True]
    assert not is_signed(b"c" * 32, headers, body, NOW)
    assert not is_signed(KEYS[0], headers, body + b" ", NOW)


async def test_the_same_events_have_the_same_id_and_more_events_another(receiver: Both) -> None:
    """So that a receiver may drop what it has seen, and never drops what it has not."""
    there, hook = receiver
    for names in (["01"], ["01"], ["01", "02"]):
        await post(hook, changes(*names))
    first, again, more = (headers["webhook-id"] for headers, _ in there.requests)
    assert first == again != more
    ids = [[it["id"] for it in json.loads(body)["data"]["events"]] for _, body in there.requests]
    assert ids[0] == ids[1] == ids[2][:1]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, VerdictKind.OK) for status in (200, 201, 202, 204, 299)),
        *((status, VerdictKind.RETRY) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((status, VerdictKind.CONFIG) for status in (301, 302, 307, 401, 403, 404, 405, 410)),
        *((status, VerdictKind.REJECT) for status in (400, 409, 413, 415, 422)),
    ],
)
def test_what_a_status_means(status: int, kind: VerdictKind) -> None:
    verdict = verdict_of(status, b"no lea@example.com here")
    assert verdict.kind == kind
    assert "lea" not in verdict.excerpt


async def test_a_receiver_may_ask_for_silence(receiver: Both) -> None:
    there, hook = receiver
    there.status, there.headers = 503, {"Retry-After": "7"}
    reply = await post(hook, changes("01"))
    assert (reply.retry_after_seconds, reply.throttled, reply.destination_fault) == (7.0, True, True)


async def test_redirects_are_not_followed(receiver: Both) -> None:
    there, hook = receiver
    there.status, there.headers = 307, {"Location": "/hook"}
    reply = await post(hook, changes("01"))
    assert (reply.verdicts[0].kind, len(there.requests)) == (VerdictKind.CONFIG, 1)


async def test_nobody_there_is_the_receiver_s_fault_and_nothing_was_sent() -> None:
    async with webhook(f"http://127.0.0.1:{unused_port()}/hook") as hook:
        reply = await post(hook, changes("01"))
    assert (reply.verdicts[0].kind, reply.verdicts[0].reason) == (VerdictKind.RETRY, "connect_refused")
    assert reply.destination_fault


async def test_a_connection_that_breaks_after_the_request_leaves_its_end_unknown(receiver: Both) -> None:
    there, hook = receiver

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    there.answer = cut
    assert (await post(hook, changes("01"))).verdicts[0].kind == VerdictKind.UNKNOWN


async def test_a_permit_that_is_void_sends_nothing(receiver: Both) -> None:
    there, hook = receiver

    class Void(Permit):
        async def use(self) -> None:
            raise PermitVoid

    profile = changes("01")
    with pytest.raises(PermitVoid):
        await hook.send(Batch([profile], [hook.encode(profile)]), Void())
    assert there.requests == []


async def test_a_record_without_a_time_has_none() -> None:
    record = b'{"attendee":{"email":"lea@example.com"},"timestamp":17}'
    (event,) = ChangeReader(max_events=1).read(record, "application/json").events
    profile = Profile(event.key, event.content, 0, Lane.LIVE, 0, 0, 0, 1, 0.0)
    async with webhook("https://hook.example") as hook:
        assert set(json.loads(hook.encode(profile))) == {"type", "data"}
        assert repr(hook) == "<WebhookDestination hook>"
