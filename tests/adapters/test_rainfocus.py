"""One attempt against real servers, well-behaved and not: what was sent, when, and what is said about it."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer, unused_port
from aioresponses import aioresponses

from engine.adapters.rainfocus import RainFocusDestination, request_url
from engine.adapters.raw_http import RawTransport
from engine.adapters.sessions import AiohttpTransport, CappedResponse, MeteredRequest, open_session
from engine.config import AccountConfig, DestinationConfig, RetryConfig
from engine.core.handover import Policy
from engine.errors import PermitVoid
from engine.model import Batch, Lane, Membership, Profile, Reply, Trait, Verdict, VerdictKind
from engine.testing.clock import VirtualClock
from engine.transport import REPLY_BYTES, Transport

NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT
OK_BODY = b'{"responseCode":"0","responseMessage":"Success","attendeeId":"1790000000000001QwEr"}'
OK_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(OK_BODY), OK_BODY)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class PlainMapper:
    fingerprint = b"plain"

    def encode(self, content: bytes, traits: int, flag: bool | None) -> bytes:
        return content if flag is None else content[:-1] + b',"in":' + (b"true}" if flag else b"false}")


class FixedClock(VirtualClock):
    def time(self) -> float:
        return NOW


class FakePermit:
    """Writes down when it is used; `then` is what happens at that moment."""

    def __init__(self, token: str = "tok-1", then: Callable[[], Awaitable[None]] | None = None) -> None:
        self.token, self.then = token, then
        self.uses = 0

    async def use(self) -> None:
        self.uses += 1
        if self.then is not None:
            await self.then()


async def turns(count: int = 50) -> None:
    """Let the loop look at its sockets so often; over loopback nothing takes longer."""
    for _ in range(count):
        await asyncio.sleep(0)


async def void() -> None:
    raise PermitVoid


def profile(email: str = "lea.martin@example.com", **more: object) -> Profile:
    content = json.dumps({"email": email}).encode()
    return Profile(email.encode(), content, Trait.EMAIL, Lane.LIVE, 0, 0, 0, 1, NOW, **more)  # type: ignore[arg-type]


def batch_of(destination: RainFocusDestination, profiles: int = 1) -> Batch:
    found = [profile(f"lea{index}@example.com") for index in range(profiles)]
    return Batch(found, [destination.encode(one) for one in found])


@pytest.fixture(autouse=True, params=["aiohttp", "raw"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds of both transports."""
    monkeypatch.setattr(f"{__name__}.KIND", request.param)
    return str(request.param)


KIND = "aiohttp"


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


@asynccontextmanager
async def destination_at(
    url: str,
    *,
    account: dict[str, object] | None = None,
    connections: int = 4,
    timeout_seconds: float = 5.0,
    **more: object,
) -> AsyncIterator[RainFocusDestination]:
    account_config = AccountConfig(base_url=url, **(account or {}))  # type: ignore[arg-type]
    config = DestinationConfig(retry=RetryConfig(timeout_seconds=timeout_seconds), **more)  # type: ignore[arg-type]
    async with transport_of(KIND, url, connections) as transport:
        yield RainFocusDestination(
            config,
            account_config,
            mapper=PlainMapper(),
            policy=Policy(exits=config.exits),
            transport=transport,
            clock=FixedClock(),
            random=random.Random(7),
        )


@asynccontextmanager
async def http(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


class Raw:
    """A TCP peer that does what `peer` says, and knows its connections."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.connections = 0
        self.requests = 0
        self.asked, self.gone = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._peer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        self.requests += 1
        self.asked.set()
        return head + await reader.readexactly(int(length.group(1)) if length else 0)


@asynccontextmanager
async def raw(
    peer: Callable[[Raw, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, Raw]]:
    async def bound(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer(host, reader, writer)

    host = Raw(bound)
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", host
    finally:
        server.close()
        await server.wait_closed()


def answering(status: int, body: bytes = OK_BODY, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return handler


async def reply_to(handler: Handler, **more: object) -> Reply:
    async with http(handler) as url, destination_at(url, **more) as destination:  # type: ignore[arg-type]
        return await destination.send(batch_of(destination), FakePermit())


# -- what is sent -----------------------------------------------------------------------------------------------------


async def sent(profiles: int = 1, **more: object) -> tuple[web.Request, bytes]:
    seen: list[tuple[web.Request, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request, await request.read()))
        return web.Response(body=OK_BODY)

    async with http(handler) as url, destination_at(url, **more) as destination:  # type: ignore[arg-type]
        await destination.send(batch_of(destination, profiles), FakePermit("tok-9"))
    (only,) = seen
    return only


async def test_a_request_is_what_rainfocus_expects() -> None:
    request, body = await sent(account={"api_profile_id": "demoProfile01"})
    assert (request.method, request.raw_path) == ("POST", "/api/demo/v3/attendee/store")
    assert request.headers["Authorization"] == "Bearer tok-9"
    assert request.headers["Content-Type"] == request.headers["Accept"] == "application/json"
    assert request.headers["apiProfile"] == "demoProfile01"
    assert request.headers["User-Agent"] == "rainfocus-engine"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", request.headers["traceparent"])
    assert body == b'{"email": "lea0@example.com"}'


async def test_no_api_profile_no_header() -> None:
    request, _ = await sent()
    assert "apiProfile" not in request.headers


async def test_an_array_carries_the_whole_batch() -> None:
    _, body = await sent(3, encoding="array")
    assert [one["email"] for one in json.loads(body)] == ["lea0@example.com", "lea1@example.com", "lea2@example.com"]


async def test_a_body_beyond_a_mebibyte_leaves_as_it_is() -> None:
    seen: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        seen.extend([len(part) async for part in request.content.iter_any()])
        return web.Response(body=OK_BODY)

    async with http(handler) as url, destination_at(url) as destination:
        record = b'{"a":"' + b"x" * (1 << 21) + b'"}'
        reply = await destination.send(Batch([profile()], [record]), FakePermit())
    assert reply.verdicts[0].kind == VerdictKind.OK
    assert sum(seen) == len(record)


@pytest.mark.parametrize(
    ("event_in", "template", "expected"),
    [
        ("body", "{base}/store", "http://h/store"),
        ("query", "{base}/store", "http://h/store?event=a%2Fb%26c"),
        ("both", "{base}/store?x=%2F1", "http://h/store?x=%2F1&event=a%2Fb%26c"),
        ("body", "{base}/api/{org_id}/v3/x", "http://h/api/de%20mo%2F/v3/x"),
    ],
)
def test_the_url_holds_codes_encoded(event_in: str, template: str, expected: str) -> None:
    config = DestinationConfig(event_code="a/b&c", event_in=event_in, url_template=template)  # type: ignore[arg-type]
    assert str(request_url(config, AccountConfig(base_url="http://h/", org_id="de mo/"))) == expected


async def test_the_fingerprint_covers_what_shapes_a_record() -> None:
    found = set()
    for more in (
        {},
        {"event_code": "other"},
        {"event_in": "both"},
        {"url_template": "{base}/v2"},
        {"encoding": "array"},
    ):
        async with destination_at("http://127.0.0.1:1", **more) as destination:  # type: ignore[arg-type]
            found.add(destination.fingerprint)
    async with destination_at("http://127.0.0.1:1", description="other") as destination:
        found.add(destination.fingerprint)
    assert len(found) == 5
    assert all(len(one) <= 64 for one in found)


async def test_encode_hands_the_flag_of_an_exit_to_the_mapper() -> None:
    left = {"ups/a": Membership(False, NOW)}
    async with destination_at("http://127.0.0.1:1", exits="flag:in") as destination:
        assert destination.encode(profile()) == b'{"email": "lea.martin@example.com"}'
        assert destination.encode(profile(audiences=left)) == b'{"email": "lea.martin@example.com","in":false}'


# -- what is answered -------------------------------------------------------------------------------------------------


async def test_a_success() -> None:
    reply = await reply_to(answering(200))
    assert reply == Reply([Verdict(VerdictKind.OK, attendee_id="1790000000000001QwEr")], status=200)


async def test_a_refusal_is_not_the_destinations_fault() -> None:
    reply = await reply_to(answering(400, b'{"responseCode":"103","responseMessage":"missing: email"}'))
    assert reply.verdicts == [Verdict(VerdictKind.REJECT, "response_code_103", "missing: email")]
    assert (reply.status, reply.destination_fault, reply.throttled) == (400, False, False)


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("Mon, 21 Sep 2026 14:13:50 GMT", 30.0), ("soon", None), ("86400", 3600.0)]
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_destination_that_asks_for_silence(status: int, value: str, seconds: float | None) -> None:
    reply = await reply_to(answering(status, b"", **{"Retry-After": value}))
    assert reply.verdicts[0].kind == VerdictKind.RETRY
    assert reply.retry_after_seconds == seconds
    assert reply.throttled
    assert reply.destination_fault


async def test_an_html_500() -> None:
    reply = await reply_to(answering(500, b"<html><h1>Oops</h1></html>", **{"Content-Type": "text/html"}))
    assert reply.verdicts == [Verdict(VerdictKind.RETRY, "http_500", "<html><h1>Oops</h1></html>")]
    assert reply.destination_fault
    assert not reply.throttled


async def test_a_redirect_is_not_followed() -> None:
    requests: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    reply = await reply_to(handler)
    assert reply.verdicts[0].kind == VerdictKind.CONFIG
    assert requests == ["/api/demo/v3/attendee/store"]


async def test_configured_codes_are_heard() -> None:
    reply = await reply_to(answering(200, b'{"responseCode":"15"}'), response_codes={"15": VerdictKind.OK})
    assert reply.verdicts == [Verdict(VerdictKind.OK)]


async def test_each_result_of_an_array_counts() -> None:
    results = b'{"responseCode":"1","results":[{"responseCode":"0"},{"responseCode":"27"}]}'
    async with http(answering(200, results)) as url, destination_at(url, encoding="array") as destination:
        assert destination.profiles_per_request > 1000
        reply = await destination.send(batch_of(destination, 2), FakePermit())
    assert [one.kind for one in reply.verdicts] == [VerdictKind.OK, VerdictKind.REJECT]


async def test_a_cookie_is_not_sent_back() -> None:
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(body=OK_BODY, headers={"Set-Cookie": "session=1; Path=/"})

    async with http(handler) as url, destination_at(url) as destination:
        for _ in range(2):
            await destination.send(batch_of(destination), FakePermit())
    assert cookies == [None, None]


async def test_a_huge_reply_is_cut_and_its_connection_closed() -> None:
    read: list[int] = []

    async def endless(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            read.append(65536)

    async with raw(endless) as (url, host), destination_at(url) as destination:
        reply = await destination.send(batch_of(destination), FakePermit())
        await asyncio.wait_for(host.gone.wait(), 10)
    assert reply.verdicts[0].reason == "no_envelope"
    assert sum(read) < REPLY_BYTES * 32


# -- the permit -------------------------------------------------------------------------------------------------------


async def test_the_permit_is_used_between_the_open_connection_and_the_first_byte() -> None:
    order: list[str] = []
    connected = asyncio.Event()

    async def peer(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order.append("connected")
        connected.set()
        while not reader.at_eof():
            first = await reader.read(1)
            if not first:
                return
            order.append("first byte")
            await host.request(reader)
            writer.write(OK_REPLY)

    async def use() -> None:
        await connected.wait()
        order.append("used")
        await turns()
        order.append("allowed")

    async with raw(peer) as (url, _), destination_at(url) as destination:
        for _ in range(2):
            permit = FakePermit(then=use)
            reply = await destination.send(batch_of(destination), permit)
            assert reply.verdicts[0].kind == VerdictKind.OK
            assert permit.uses == 1
    assert order == ["connected", *["used", "allowed", "first byte"] * 2]


async def test_a_void_permit_sends_nothing_and_leaves_the_connection_usable() -> None:
    async def peer(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await host.request(reader)
            writer.write(OK_REPLY)

    async with raw(peer) as (url, host), destination_at(url, connections=1) as destination:
        for then in (void, None, void, None):
            if then is None:
                reply = await destination.send(batch_of(destination), FakePermit())
                assert reply.verdicts[0].kind == VerdictKind.OK
            else:
                with pytest.raises(PermitVoid):
                    await destination.send(batch_of(destination), FakePermit(then=then))
        assert (host.connections, host.requests) == (1, 2)


async def test_the_time_limit_runs_from_the_permit_on() -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.4)

    async with http(answering(200)) as url, destination_at(url, timeout_seconds=0.3) as destination:
        reply = await destination.send(batch_of(destination), FakePermit(then=slowly))
    assert reply.verdicts[0].kind == VerdictKind.OK


async def test_a_connection_lost_while_the_permit_was_waited_for_carried_nothing() -> None:
    hang_up = asyncio.Event()

    async def peer(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang_up.wait()

    async def use() -> None:
        hang_up.set()
        await turns()

    async with raw(peer) as (url, host), destination_at(url) as destination:
        reply = await destination.send(batch_of(destination), FakePermit(then=use))
    assert reply == Reply([Verdict(VerdictKind.RETRY, "connect_failed")], destination_fault=True)
    assert host.requests == 0


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_a_refused_connection_costs_no_permit() -> None:
    permit = FakePermit()
    async with destination_at(f"http://127.0.0.1:{unused_port()}") as destination:
        reply = await destination.send(batch_of(destination), permit)
    assert reply == Reply([Verdict(VerdictKind.RETRY, "connect_refused")], destination_fault=True)
    assert permit.uses == 0


async def test_an_unknown_host() -> None:
    async with destination_at("http://nowhere.invalid") as destination:
        reply = await destination.send(batch_of(destination), FakePermit())
    assert reply.verdicts == [Verdict(VerdictKind.RETRY, "connect_dns")]
    assert reply.destination_fault


async def test_a_server_that_does_not_speak_tls() -> None:
    async def peer(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw(peer) as (url, _), destination_at(url.replace("http:", "https:")) as destination:
        reply = await destination.send(batch_of(destination), FakePermit())
    assert reply.verdicts == [Verdict(VerdictKind.RETRY, "connect_tls")]


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def lost(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await host.request(reader)
    await reset(writer)


async def lost_early(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    await reset(writer)


async def lost_in_the_reply(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await host.request(reader)
    writer.write(OK_REPLY[:-10])
    await writer.drain()
    await reset(writer)


async def ended_in_the_reply(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await host.request(reader)
    writer.write(OK_REPLY[:-10])
    await writer.drain()


async def silent(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await host.request(reader)
    await reader.read(1)
    host.gone.set()


async def dripping(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await host.request(reader)
    for byte in OK_REPLY:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def nonsense(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await host.request(reader)
    writer.write(b"what?\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (lost, "connection_lost"),
        (lost_early, "connection_lost"),
        (lost_in_the_reply, "connection_lost"),
        (ended_in_the_reply, "connection_lost"),
        (silent, "timeout"),
        (dripping, "timeout"),
        (nonsense, "bad_http"),
    ],
)
async def test_after_the_first_byte_nobody_knows_and_nothing_is_sent_twice(
    peer: Callable[[Raw, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], reason: str
) -> None:
    permit = FakePermit()
    async with raw(peer) as (url, host), destination_at(url, timeout_seconds=0.3) as destination:
        reply = await destination.send(batch_of(destination), permit)
    assert reply.verdicts == [Verdict(VerdictKind.UNKNOWN, reason)]
    assert reply.destination_fault
    assert host.connections == permit.uses == 1


async def test_a_reused_connection_that_dies_is_not_silently_tried_again() -> None:
    async def once(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(OK_REPLY)
        await host.request(reader)
        await reset(writer)

    async with raw(once) as (url, host), destination_at(url) as destination:
        first = await destination.send(batch_of(destination), FakePermit())
        second = await destination.send(batch_of(destination), FakePermit())
    assert first.verdicts[0].kind == VerdictKind.OK
    assert second.verdicts == [Verdict(VerdictKind.UNKNOWN, "connection_lost")]
    assert (host.connections, host.requests) == (1, 2)


async def test_a_failing_status_counts_though_its_body_never_ends() -> None:
    async def peer(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(b"HTTP/1.1 429 Slow down\r\nRetry-After: 9\r\nContent-Length: 50\r\n\r\n")
        await reader.read(1)
        host.gone.set()

    async with raw(peer) as (url, host), destination_at(url, timeout_seconds=0.3) as destination:
        reply = await destination.send(batch_of(destination), FakePermit())
        await asyncio.wait_for(host.gone.wait(), 10)
    assert (reply.status, reply.retry_after_seconds, reply.verdicts[0].kind) == (429, 9.0, VerdictKind.RETRY)


async def test_cancellation_closes_the_connection() -> None:
    async with raw(silent) as (url, host), destination_at(url) as destination:
        task = asyncio.create_task(destination.send(batch_of(destination), FakePermit()))
        await asyncio.wait_for(host.asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(host.gone.wait(), 10)


async def test_a_failure_is_everyones_in_the_batch() -> None:
    async with raw(lost) as (url, _), destination_at(url, encoding="array") as destination:
        reply = await destination.send(batch_of(destination, 3), FakePermit())
    assert [one.kind for one in reply.verdicts] == [VerdictKind.UNKNOWN] * 3


# -- the session ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["aiohttp"], indirect=True)
async def test_a_proxy_of_the_environment_is_used_but_never_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[bytes] = []

    async def proxy(host: Raw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        targets.append(await host.request(reader))
        writer.write(OK_REPLY)

    async with raw(proxy) as (proxy_url, _), http(answering(200)) as url:
        monkeypatch.setenv("http_proxy", proxy_url.replace("//", "//user:pass@"))
        monkeypatch.setenv("no_proxy", "")
        for target in ("http://rainfocus.invalid", url):
            async with destination_at(target) as destination:
                reply = await destination.send(batch_of(destination), FakePermit())
                assert reply.verdicts[0].kind == VerdictKind.OK
    (only,) = targets
    assert only.startswith(b"POST http://rainfocus.invalid/api/demo/v3/attendee/store HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n" in only
    assert b"\r\nAuthorization: Bearer tok-1\r\n" in only


class MockedResponse(CappedResponse):
    """aioresponses knows nothing of `stream_writer`, which aiohttp demands."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **({"stream_writer": SimpleNamespace(output_size=0)} | named))  # type: ignore[arg-type]


@asynccontextmanager
async def mocked_destination() -> AsyncIterator[RainFocusDestination]:
    async with ClientSession() as session:
        yield RainFocusDestination(
            DestinationConfig(),
            AccountConfig(base_url="http://rainfocus.test"),
            mapper=PlainMapper(),
            policy=Policy(),
            transport=AiohttpTransport(session),
            clock=FixedClock(),
            random=random.Random(7),
        )


STORE = "http://rainfocus.test/api/demo/v3/attendee/store"


@pytest.mark.parametrize("kind", ["aiohttp"], indirect=True)
async def test_a_single_call_and_its_verdict() -> None:
    with aioresponses() as mocked:
        mocked.post(STORE, body=OK_BODY, response_class=MockedResponse)
        mocked.post(STORE, status=401, body=b'{"responseCode":"5"}', response_class=MockedResponse)
        async with mocked_destination() as destination:
            replies = [await destination.send(batch_of(destination), FakePermit()) for _ in range(2)]
    assert [reply.verdicts[0].kind for reply in replies] == [VerdictKind.OK, VerdictKind.AUTH]


async def test_nothing_that_is_shown_holds_a_secret_or_an_address() -> None:
    refused = answering(400, b'{"responseCode":"9","responseMessage":"bad lea0@example.com, Bearer"}')
    async with http(refused) as url, destination_at(url, account={"client_secret": "s3cret"}) as destination:
        reply = await destination.send(batch_of(destination), FakePermit("tok-secret"))
        shown = repr(destination) + repr(reply)
    assert "example.com" not in shown
    assert "tok-secret" not in shown
    assert "s3cret" not in shown
