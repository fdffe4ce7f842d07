"""The generator against a server on loopback, and what it keeps to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import web

from engine.bench.events import Workload
from engine.bench.load import Load
from engine.bench.pacing import Schedule
from engine.bench.wire import Answer, Connection, Site, connect

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers with what `handle` says; `bodies` are the requests it has seen."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.handle: Handle = accept
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        return await self.handle(request)


async def accept(request: web.Request) -> web.StreamResponse:
    return web.json_response({"accepted": 1}, status=202)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    it = Server()
    app = web.Application()
    app.router.add_post("/v1/profiles", it.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield it
    await runner.cleanup()


def load(server: Server, n: int = 1, connections: int = 2, seconds: float = 5.0, **options: object) -> Load:
    workload = Workload("run", n)
    site = Site.of(server.url, "/v1/profiles")
    return Load(site, workload.body, n, connections=connections, seconds=seconds, **options)  # type: ignore[arg-type]


async def test_the_closed_loop_sends_every_body_once_and_ends_by_count(server: Server) -> None:
    result = await load(server, n=3, requests=20).run()
    assert sorted(server.bodies) == sorted(Workload("run", 3).body(request) for request in range(20))
    assert (result.sent, result.accepted_events, result.failed, result.acks.count) == (20, 60, 0, 20)


async def test_the_closed_loop_ends_by_time(server: Server) -> None:
    result = await load(server, seconds=0.05).run()
    assert result.sent == sum(result.statuses.values()) > 0


async def test_the_closed_loop_sends_only_while_it_may(server: Server) -> None:
    result = await load(server, seconds=0.1, may_send=lambda: len(server.bodies) < 3, connections=1).run()
    assert result.sent == 3


async def test_the_open_loop_sends_what_is_due_and_no_more(server: Server) -> None:
    result = await load(server, seconds=0.1, schedule=Schedule(200, 0.1)).run()
    assert (result.sent, result.unsent, result.acks.count) == (20, 0, 20)


async def test_a_latency_counts_from_the_moment_a_request_was_due(server: Server) -> None:
    """The server keeps the only connection busy; the requests that wait for it have waited."""
    gate = asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse:
        if len(server.bodies) == 1:
            asyncio.get_running_loop().call_later(0.2, gate.set)
        await gate.wait()
        return await accept(request)

    server.handle = hold
    result = await load(server, connections=1, seconds=0.05, schedule=Schedule(100, 0.05)).run()
    assert result.acks.count == 5
    assert result.acks.quantile(0.01) > 0.1  # none of them looks fast because it left late


async def test_refused_and_failed_requests_are_not_latencies(server: Server) -> None:
    statuses = iter([202, 503, 400, 202])

    async def mixed(request: web.Request) -> web.StreamResponse:
        return web.Response(status=next(statuses), headers={"Retry-After": "0"})

    server.handle = mixed
    result = await load(server, connections=1, requests=4).run()
    assert (result.acks.count, result.refused, result.failed, result.accepted_events) == (2, 1, 1, 2)


async def test_a_broken_connection_is_replaced_and_counted(server: Server) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        if len(server.bodies) == 2 and request.transport is not None:
            request.transport.abort()
        return await accept(request)

    server.handle = cut
    result = await load(server, connections=1, requests=5).run()
    assert (result.sent, result.failed, result.accepted_events) == (5, 1, 4)


async def test_nobody_there_is_an_os_error() -> None:
    nowhere = Server()
    nowhere.url = "http://127.0.0.1:1"
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        await load(nowhere).run()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"], Answer(202)),
        ([b"HTTP/1.1 503 No\r\ncontent-le", b"ngth: 3\r\nRetry-After: 7\r\n\r", b"\nab", b"c"], Answer(503, 7.0)),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], Answer(0)),
    ],
)
async def test_an_answer_is_read_however_it_is_cut(pieces: list[bytes], expected: Answer) -> None:
    answers: list[Answer] = []
    answered, hung_up = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await answered.wait()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        hung_up.set()

    def done(connection: Connection, answer: Answer) -> None:
        answers.append(answer)
        answered.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    connection = await connect(Site("127.0.0.1", server.sockets[0].getsockname()[1], "/"))
    connection.post(b"{}", done)
    await hung_up.wait()
    connection.close()
    server.close()
    await server.wait_closed()
    assert answers == [expected]


def test_a_site_shows_no_key() -> None:
    site = Site.of("https://engine.example/base/", "/v1/profiles", authorization="Bearer secret")
    assert "secret" not in repr(site)
    assert (site.port, site.tls, site.path) == (443, True, "/base/v1/profiles")
    assert b"Authorization: Bearer secret\r\n" in site.head()


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Site.of(url, "/")
