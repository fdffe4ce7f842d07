"""One POST against servers that answer in every way they can, well and badly: the same words from both transports."""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import socket
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from unittest import mock

import pytest

from engine.adapters import sessions
from engine.adapters.raw_http import RawTransport, pool, reaching
from engine.adapters.sessions import AiohttpTransport, MeteredRequest, open_session
from engine.errors import PermitVoid
from engine.transport import REPLY_BYTES, Answer, Route, Transport

BODY = b'{"responseCode":"0"}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\n%b\r\n%x\r\n%b\r\n0\r\nRetry-After: 9\r\n\r\n"
)

Peer = Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=["aiohttp", "raw", "raw-on-uvloop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    kind, _, loop = str(request.param).partition("-on-")
    make = pytest.importorskip("uvloop").new_event_loop if loop else asyncio.new_event_loop
    monkeypatch.setattr(f"{__name__}.new_event_loop", make)
    return kind


new_event_loop = asyncio.new_event_loop


def in_loop(test: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """In the loop that `kind` names."""

    @wraps(test)
    def run(**fixtures: object) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(test(**fixtures))

    return run


@pytest.fixture
def only_raw(kind: str) -> None:
    """What aiohttp does not promise, or says in other words."""
    if kind != "raw":
        pytest.skip("of raw connections")


class Server:
    """A TCP peer that does what `peer` says, and knows its connections and whole requests."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.url, self.connections, self.requests, self.ports = "", 0, list[bytes](), list[int]()
        self.asked, self.gone, self.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._peer(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
        return self.requests[-1]


@asynccontextmanager
async def serving(peer: Peer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    there = Server(peer)
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0, ssl=tls)
    there.url = f"http{'s' if tls else ''}://{host}:{server.sockets[0].getsockname()[1]}/store?x=%2F"
    try:
        yield there
    finally:
        server.close()
        await server.wait_closed()


def answering(*replies: bytes, close: bool = False) -> Peer:
    """One after the other to each connection, the last one for ever; `close`: hang up after each."""

    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while True:
            await there.request(reader)
            there.ports.append(writer.get_extra_info("peername")[1])
            writer.write(replies[min(number, len(replies) - 1)])
            await writer.drain()
            number += 1
            if close:
                return

    return peer


class Permit:
    token = "tok"

    def __init__(self, then: Callable[[], Awaitable[None]] | None = None) -> None:
        self.uses, self.then = 0, then

    async def use(self) -> None:
        self.uses += 1
        if self.then is not None:
            await self.then()


@asynccontextmanager
async def transport_of(kind: str, url: str, connections: int = 4) -> AsyncIterator[Transport]:
    if kind == "raw":
        transport: Transport = RawTransport(connections=connections)
    else:
        transport = AiohttpTransport(open_session(url, connections=connections, request_class=MeteredRequest))
    try:
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def route_to(kind: str, url: str, connections: int = 4, timeout_seconds: float = 5.0) -> AsyncIterator[Route]:
    async with transport_of(kind, url, connections) as transport:
        yield transport.route(url, {"Content-Type": "application/json"}, timeout_seconds=timeout_seconds)


async def post(route: Route, body: bytes = b"{}", permit: Permit | None = None) -> Answer:
    return await route.post(body, {"Authorization": "Bearer tok"}, permit or Permit())


async def answer_to(kind: str, peer: Peer, times: int = 1, **more: object) -> tuple[list[Answer], Server]:
    async with serving(peer) as there, route_to(kind, there.url, **more) as route:  # type: ignore[arg-type]
        return [await post(route) for _ in range(times)], there


# -- replies that are well --------------------------------------------------------------------------------------------


@in_loop
async def test_what_is_sent(kind: str) -> None:
    async with serving(answering(PLAIN)) as there, route_to(kind, there.url) as route:
        assert await post(route, b'{"a":1}') == Answer(sent=True, status=200, body=BODY)
    head, _, body = there.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    named = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert first == "POST /store?x=%2F HTTP/1.1"
    assert named == {
        "host": there.url.split("/")[2],
        "user-agent": "rainfocus-engine",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": "Bearer tok",
        "content-length": "7",
    }
    assert body == b'{"a":1}'


@pytest.mark.parametrize(
    "reply",
    [
        PLAIN,
        CHUNKED % (BODY[:5], len(BODY) - 5, BODY[5:]),
        b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN,
        b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + PLAIN,
        PLAIN.replace(b"\r\n\r\n", b"\r\nX-Odd: caf\xe9\r\nSet-Cookie: a=b\r\n\r\n", 1),
    ],
    ids=["length", "chunked", "continue", "interim", "odd-headers"],
)
@pytest.mark.parametrize("drip", [False, True], ids=["whole", "byte-by-byte"])
@in_loop
async def test_a_reply_is_read_to_its_end_and_the_connection_used_again(kind: str, reply: bytes, drip: bool) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await there.request(reader)
            for byte in reply if drip else [reply]:
                writer.write(byte if isinstance(byte, bytes) else bytes([byte]))
                await asyncio.sleep(0)

    answers, there = await answer_to(kind, peer, times=3)
    assert answers == [Answer(sent=True, status=200, body=BODY)] * 3
    assert (there.connections, len(there.requests)) == (1, 3)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
        PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1),
    ],
    ids=["until-the-end", "1.0", "1.0-with-a-length", "close"],
)
@in_loop
async def test_a_reply_that_ends_its_connection_is_followed_by_a_new_one(kind: str, reply: bytes) -> None:
    answers, there = await answer_to(kind, answering(reply, close=True), times=2)
    assert answers == [Answer(sent=True, status=200, body=BODY)] * 2
    assert there.connections == 2


@pytest.mark.parametrize("status", [204, 304])
@in_loop
async def test_a_status_without_a_body_ends_with_its_head(kind: str, status: int) -> None:
    answers, there = await answer_to(kind, answering(b"HTTP/1.1 %d No\r\nRetry-After: 3\r\n\r\n" % status), times=2)
    assert answers == [Answer(sent=True, status=status, retry_after="3")] * 2
    assert there.connections == 1


@in_loop
async def test_switching_protocols_is_a_status_as_any_other_and_nothing_more_is_read(kind: str, only_raw: None) -> None:
    reply = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\0"
    answers, there = await answer_to(kind, answering(reply), times=2)
    assert answers == [Answer(sent=True, status=101)] * 2
    assert there.connections == 2


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY)), ("gzip", BODY), ("br", BODY)],
    ids=["gzip", "deflate", "mislabelled", "unknown"],
)
@in_loop
async def test_what_comes_packed_is_unpacked(kind: str, encoding: str, packed: bytes) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b"
    answers, _ = await answer_to(kind, answering(reply % (encoding.encode(), len(packed), packed)))
    assert answers[0].body == BODY


# -- replies that are too much ----------------------------------------------------------------------------------------


@in_loop
async def test_a_long_reply_is_cut_and_its_connection_closed(kind: str) -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (4 * REPLY_BYTES, b"x" * (4 * REPLY_BYTES))
    answers, there = await answer_to(kind, answering(long), times=2)
    assert [len(answer.body) for answer in answers] == [REPLY_BYTES] * 2
    assert [answer.reason for answer in answers] == ["", ""]
    assert there.connections == 2


@in_loop
async def test_a_bomb_is_unpacked_to_no_more_than_is_read(kind: str) -> None:
    packed = gzip.compress(b"\0" * (20 * REPLY_BYTES))
    reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    answers, _ = await answer_to(kind, answering(reply))
    assert len(answers[0].body) == REPLY_BYTES


@pytest.mark.parametrize(
    "endless",
    [b"X-More: " + b"x" * 4_000 + b"\r\n", b"x" * 4_000, b"\r\nHTTP/1.1 100 Continue\r\nX-More: x\r\n"],
    ids=["headers", "one-header", "interim-replies"],
)
@in_loop
async def test_a_head_that_never_ends_is_no_http(kind: str, only_raw: None, endless: bytes) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(endless)
            await writer.drain()

    answers, _ = await answer_to(kind, peer)
    assert (answers[0].sent, answers[0].reason) == (True, "bad_http")


# -- replies that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        b"what?\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ],
    ids=["text", "tls", "ssh", "no-status", "two-lengths", "negative", "bad-chunk", "both-lengths"],
)
@in_loop
async def test_what_is_no_http_leaves_the_end_unknown(kind: str, reply: bytes) -> None:
    answers, there = await answer_to(kind, answering(reply), times=2)
    for answer in answers:
        assert (answer.sent, answer.reason, answer.body) == (True, "bad_http", b"")
    assert there.connections == 2


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"", 0),
        (b"HTTP/1.1 200", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", 0),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 0),
        (PLAIN[:-1], 200),
        ((CHUNKED % (BODY[:5], len(BODY) - 5, BODY[5:]))[:-20], 200),
        (b"HTTP/1.1 503 No\r\nRetry-After: 9\r\nContent-Length: 50\r\n\r\n<html>", 503),
    ],
    ids=["nothing", "in-the-status", "in-the-head", "after-continue", "in-the-body", "in-a-chunk", "503"],
)
@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
@in_loop
async def test_a_reply_that_breaks_off_is_a_lost_connection(kind: str, reply: bytes, status: int, reset: bool) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.request(reader)
        writer.write(reply)
        await writer.drain()
        await there.go_on.wait()
        if reset:
            writer.transport.abort()

    async with serving(peer) as there, route_to(kind, there.url) as route:
        under_way = asyncio.ensure_future(post(route))
        await asyncio.wait_for(there.asked.wait(), 10)
        for _ in range(50):
            await asyncio.sleep(0)
        there.go_on.set()
        answer = await under_way
    assert (answer.sent, answer.reason, answer.body) == (True, "connection_lost", b"")
    assert answer.status == status
    assert answer.retry_after == ("9" if status == 503 else None)
    assert there.connections == 1


@in_loop
async def test_a_reply_that_drips_is_over_when_its_time_is(kind: str) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.request(reader)
        writer.write(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 9999999\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    answers, _ = await answer_to(kind, peer, timeout_seconds=0.2)
    assert answers == [Answer(sent=True, reason="timeout", status=429, retry_after="7")]


# -- what comes unasked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [PLAIN, b"HTTP/1.1 200", b"garbage", PLAIN + PLAIN], ids=["another", "half", "garbage", "two"]
)
@in_loop
async def test_what_comes_behind_a_reply_is_never_taken_for_the_next_one(
    kind: str, only_raw: None, more: bytes
) -> None:
    wrong = more.replace(BODY, b'{"responseCode":"9"}')
    answers, there = await answer_to(kind, answering(PLAIN + wrong), times=3)
    assert answers == [Answer(sent=True, status=200, body=BODY)] * 3
    assert there.connections == 3


@in_loop
async def test_what_comes_while_nobody_asks_ends_the_connection_before_it_is_used(kind: str, only_raw: None) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.request(reader)
        writer.write(PLAIN)
        await there.go_on.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()
        there.gone.set()

    async with serving(peer) as there, route_to(kind, there.url) as route:
        first = await post(route)
        there.go_on.set()
        await asyncio.wait_for(there.gone.wait(), 10)
        second = await post(route)
    assert [first.body, second.body] == [BODY, BODY]
    assert there.connections == 2


@in_loop
async def test_a_connection_that_was_closed_while_idle_is_not_used(kind: str) -> None:
    closed = asyncio.Event()

    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.request(reader)
        writer.write(PLAIN)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with serving(peer) as there, route_to(kind, there.url) as route:
        for _ in range(3):
            closed.clear()
            assert (await post(route)).reason == ""
            await asyncio.wait_for(closed.wait(), 10)
            for _ in range(50):
                await asyncio.sleep(0)
    assert (there.connections, len(there.requests)) == (3, 3)


@in_loop
async def test_a_farewell_while_the_permit_is_waited_for_costs_nothing(kind: str, only_raw: None) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Too many connections\r\n\r\n")
        await writer.drain()
        await reader.read()
        there.gone.set()

    async with serving(peer) as there, route_to(kind, there.url) as route:

        async def until_gone() -> None:
            await asyncio.wait_for(there.gone.wait(), 10)

        answer = await post(route, permit=Permit(until_gone))
    assert answer == Answer(reason="connect_failed")
    assert there.requests == []


# -- the request ------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_reply_before_the_request_has_left_is_heard_and_its_connection_closed(kind: str) -> None:
    """The rest of the request would be taken for the next one."""

    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await there.go_on.wait()
        there.requests.append(await reader.read())

    async with serving(peer) as there, route_to(kind, there.url, connections=1, timeout_seconds=1.0) as route:
        answer = await post(route, b"x" * (32 << 20))
        there.go_on.set()
        await post(route)
    assert (answer.sent, answer.status, answer.reason) == (True, 413, "")
    assert there.connections == 2


@in_loop
async def test_a_large_body_arrives_whole(kind: str) -> None:
    body = bytes(range(256)) * (20 << 12)
    async with serving(answering(PLAIN)) as there, route_to(kind, there.url, timeout_seconds=30.0) as route:
        for _ in range(2):
            assert (await post(route, body)).reason == ""
    assert all(request.endswith(body) for request in there.requests)
    assert there.connections == 1


@in_loop
async def test_whoever_does_not_read_the_request_runs_into_the_time_limit(kind: str) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.go_on.wait()

    async with serving(peer) as there, route_to(kind, there.url, timeout_seconds=0.2) as route:
        answer = await post(route, b"x" * (32 << 20))
        there.go_on.set()
    assert answer == Answer(sent=True, reason="timeout")


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\rb"])
@in_loop
async def test_no_line_break_gets_into_a_header(kind: str, value: str) -> None:
    async with serving(answering(PLAIN)) as there, route_to(kind, there.url) as route:
        with pytest.raises(ValueError, match=r"\b(line break|[Nn]ewline|character)"):
            await route.post(b"{}", {"Authorization": value}, Permit())
    assert there.requests == []


# -- permits and places -----------------------------------------------------------------------------------------------


@in_loop
async def test_a_void_permit_leaves_its_connection_to_the_next(kind: str) -> None:
    async def void() -> None:
        raise PermitVoid

    async with serving(answering(PLAIN)) as there, route_to(kind, there.url, connections=1) as route:
        for _ in range(3):
            with pytest.raises(PermitVoid):
                await post(route, permit=Permit(void))
        assert (await post(route)).body == BODY
    assert (there.connections, len(there.requests)) == (1, 1)


@in_loop
async def test_no_more_connections_are_used_at_once_than_there_may_be(kind: str) -> None:
    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await there.request(reader)
            await there.go_on.wait()
            writer.write(PLAIN)

    async with serving(peer) as there, route_to(kind, there.url, connections=3) as route:
        posts = [asyncio.ensure_future(post(route)) for _ in range(10)]
        async with asyncio.timeout(10):
            while len(there.requests) < 3:  # noqa: ASYNC110 - it is the other side that counts
                await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert there.connections == len(there.requests) == 3
        there.go_on.set()
        assert [answer.body for answer in await asyncio.gather(*posts)] == [BODY] * 10
    assert there.connections == 3


@pytest.mark.parametrize("when", ["permit", "reply", "place"])
@in_loop
async def test_whoever_is_cancelled_leaves_no_place_taken_and_no_connection_open(kind: str, when: str) -> None:
    waiting = asyncio.Event()

    async def for_ever() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def peer(there: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.request(reader)
        if len(there.requests) > 1:
            writer.write(PLAIN)
        else:
            waiting.set()
        await reader.read()
        there.gone.set()

    async with serving(peer) as there, route_to(kind, there.url, connections=1) as route:
        first = asyncio.ensure_future(post(route, permit=Permit(for_ever if when == "permit" else None)))
        await asyncio.wait_for(waiting.wait(), 10)
        if when == "place":
            second = asyncio.ensure_future(post(route))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        if when != "permit":
            await asyncio.wait_for(there.gone.wait(), 10)
            assert (await post(route)).body == BODY


@in_loop
async def test_whoever_is_cancelled_while_it_connects_leaves_no_place_taken(kind: str, only_raw: None) -> None:
    connecting, real = asyncio.Event(), reaching._connected

    async def never(addresses: object) -> socket.socket:
        connecting.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async with serving(answering(PLAIN)) as there, route_to(kind, there.url, connections=1) as route:
        with mock.patch.object(reaching, "_connected", never):
            first = asyncio.ensure_future(post(route))
            await asyncio.wait_for(connecting.wait(), 10)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        assert reaching._connected is real
        assert (await post(route)).body == BODY


@in_loop
async def test_idle_connections_are_closed_ahead_of_the_other_side(kind: str, only_raw: None) -> None:
    with mock.patch.object(pool, "KEEPALIVE_SECONDS", 0.05):
        async with serving(answering(PLAIN)) as there, route_to(kind, there.url) as route:
            await asyncio.gather(*(post(route) for _ in range(3)))
            await asyncio.wait_for(there.gone.wait(), 10)
            assert (await post(route)).body == BODY
    assert there.connections in (2, 3, 4)


@in_loop
async def test_the_connection_that_was_used_last_is_used_next(kind: str, only_raw: None) -> None:
    """So that those that are too many grow old."""
    async with serving(answering(PLAIN)) as there, route_to(kind, there.url) as route:
        await asyncio.gather(*(post(route) for _ in range(3)))
        seen = there.connections
        for _ in range(5):
            await post(route)
    assert there.connections == seen == 3
    assert len(set(there.ports[3:])) == 1


@in_loop
async def test_every_host_has_connections_of_its_own(kind: str) -> None:
    plain = answering(PLAIN)
    async with serving(plain) as one, serving(plain) as other, transport_of(kind, one.url) as transport:
        routes = [transport.route(there.url, {}, timeout_seconds=5.0) for there in (one, other)]
        for route in routes * 2:
            assert (await post(route)).body == BODY
    assert (one.connections, other.connections) == (1, 1)


# -- reaching it ------------------------------------------------------------------------------------------------------


@in_loop
async def test_what_listens_on_one_address_only_is_found_behind_those_that_do_not_answer(only_raw: None) -> None:
    async with serving(answering(PLAIN), host="two.example") as there:
        port = int(there.url.split(":")[2].split("/")[0])

        async def resolve(host: str, asked: int) -> list[object]:
            assert (host, asked) == ("two.example", port)
            stream = socket.SOCK_STREAM
            return [
                (socket.AF_INET6, stream, 0, "", ("::1", port, 0, 0)),
                (socket.AF_INET, stream, 0, "", ("127.0.0.2", 1)),
                (socket.AF_INET, stream, 0, "", ("127.0.0.1", port)),
            ]

        with mock.patch.object(reaching, "resolve", resolve):
            async with route_to("raw", there.url) as route:
                assert (await post(route)).body == BODY
    assert there.requests[0].startswith(b"POST /store?x=%%2F HTTP/1.1\r\nHost: two.example:%d\r\n" % port)


@in_loop
async def test_a_name_is_asked_for_once_in_a_while_however_many_want_it(only_raw: None) -> None:
    asked: list[str] = []

    async with serving(answering(PLAIN, close=True), host="named.example") as there:
        port = int(there.url.split(":")[2].split("/")[0])

        async def resolve(host: str, asked_port: int) -> list[object]:
            asked.append(host)
            await asyncio.sleep(0)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

        with mock.patch.object(reaching, "resolve", resolve):
            async with route_to("raw", there.url) as route:
                await asyncio.gather(*(post(route) for _ in range(8)))
    assert asked == ["named.example"]


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".example"])
@in_loop
async def test_a_name_that_is_not_known(kind: str, host: str) -> None:
    permit = Permit()
    async with route_to(kind, f"http://{host}/") as route:
        assert await post(route, permit=permit) == Answer(reason="connect_dns")
    assert permit.uses == 0


@in_loop
async def test_nobody_there(kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with route_to(kind, f"http://127.0.0.1:{taken.getsockname()[1]}/", connections=1) as route:
            for _ in range(3):  # none of them keeps the place
                assert await post(route) == Answer(reason="connect_refused")


@in_loop
async def test_a_host_that_does_not_answer_is_given_up(kind: str) -> None:
    async def never(*given: object, **named: object) -> None:
        await asyncio.Event().wait()

    with (
        mock.patch.object(pool, "CONNECT_SECONDS", 0.05),
        mock.patch.object(sessions, "CONNECT_SECONDS", 0.05),
        mock.patch("aiohappyeyeballs.start_connection", never),
        mock.patch("aiohttp.connector.aiohappyeyeballs.start_connection", never),
    ):
        async with route_to(kind, "http://127.0.0.1:1/") as route:
            assert await post(route) == Answer(reason="connect_timeout")


@pytest.mark.parametrize("url", ["ftp://h/", "/path", "https:///x"])
@in_loop
async def test_what_is_no_url_is_refused_at_once(only_raw: None, url: str) -> None:
    async with transport_of("raw", url) as transport:
        with pytest.raises(ValueError, match="not a URL"):
            transport.route(url, {}, timeout_seconds=1.0)


# -- TLS --------------------------------------------------------------------------------------------------------------


@contextmanager
def trusting(context: ssl.SSLContext) -> Iterator[None]:
    """In place of the certificates of the system."""
    real = sessions.TCPConnector
    with (
        mock.patch.object(reaching, "tls_context", return_value=context),
        mock.patch.object(sessions, "TCPConnector", lambda **given: real(**given, ssl=context)),
    ):
        yield


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) of localhost, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    who = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(folder / "key"), "-out", str(folder / "cert"))
    subprocess.run((openssl, "req", "-x509", *curve, *who, *files), capture_output=True, check=True)
    return folder / "cert", folder / "key"


def server_side(certificate: tuple[Path, Path], named: list[str]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda connection, name, context: named.append(name)  # type: ignore[assignment]
    return context


@in_loop
async def test_over_tls_the_name_is_said_and_checked_and_the_connection_kept(
    kind: str, certificate: tuple[Path, Path]
) -> None:
    named: list[str] = []
    trust = ssl.create_default_context(cafile=certificate[0])
    body = b"x" * (3 << 20)
    async with serving(answering(PLAIN), "localhost", server_side(certificate, named)) as there:
        with trusting(trust):
            async with route_to(kind, there.url) as route:
                for _ in range(3):
                    assert await post(route, body) == Answer(sent=True, status=200, body=BODY)
    assert named == ["localhost"]
    assert there.connections == 1
    assert all(request.endswith(body) for request in there.requests)


@pytest.mark.parametrize("trouble", ["not-trusted", "another-host"])
@in_loop
async def test_whoever_cannot_prove_who_it_is_hears_nothing(
    kind: str, certificate: tuple[Path, Path], trouble: str
) -> None:
    permit = Permit()
    host = "localhost" if trouble == "not-trusted" else "127.0.0.1"
    trust = ssl.create_default_context(cafile=None if trouble == "not-trusted" else certificate[0])
    async with serving(answering(PLAIN), host, server_side(certificate, [])) as there:
        with trusting(trust):
            async with route_to(kind, there.url) as route:
                for _ in range(2):
                    assert await post(route, permit=permit) == Answer(reason="connect_tls")
    assert (there.requests, permit.uses) == ([], 0)


def test_the_certificates_of_the_system_are_verified() -> None:
    context = reaching.tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context is reaching.tls_context()
