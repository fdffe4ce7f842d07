"""What is no event a worker asks the core for: the answer is the core's, and the core sees who has asked."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError, ClientResponse, ClientSession, ServerDisconnectedError, UnixConnector, web
from aiohttp.test_utils import TestClient, TestServer

from engine.adapters.http_ingress import ask_the_core, inner, inner_listener, prepare

Client = TestClient[web.Request, web.Application]


def core_app(seen: list[web.BaseRequest]) -> web.Application:
    async def show(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response({"peer": request.remote, "query": dict(request.query), "path": request.raw_path})

    async def echo(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=201, body=await request.read(), headers={"X-More": "one", "Retry-After": "7"})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for number in range(200):
            await response.write(b"%d\n" % number * 1_000)
        return response

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half of it")
        assert request.transport is not None
        request.transport.abort()
        return response

    app = web.Application()
    prepare(app)
    app.router.add_get("/show", show)
    app.router.add_post("/echo", echo)
    app.router.add_get("/stream", stream)
    app.router.add_get("/broken", broken)
    return app


class Both:
    def __init__(self, path: Path, client: Client, seen: list[web.BaseRequest]) -> None:
        self.path, self.client, self.seen = path, client, seen


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    """A worker's application that answers events itself, and the core behind it."""
    seen: list[web.BaseRequest] = []

    async def events(request: web.Request) -> web.Response:
        return web.Response(text="an event")

    async with inner_listener(core_app(seen), shutdown_seconds=0.0) as path:
        app = web.Application()
        prepare(app)
        app.router.add_post("/v1/profiles", events)
        ask_the_core(app, path, connections=4)
        async with TestClient(TestServer(app), auto_decompress=False) as client:
            yield Both(path, client, seen)


async def test_only_events_are_answered_here(both: Both) -> None:
    async with both.client.post("/v1/profiles", data=b"{}") as answer:
        assert await answer.text() == "an event"
    assert both.seen == []
    async with both.client.get("/v1/profiles") as answer:
        assert answer.status == 404, "the core's answer: it has no such address"
        assert (await answer.json(content_type=None))["type"] == "not-found"


async def test_request_and_answer_are_handed_on_as_they_are(both: Both) -> None:
    async with both.client.get("/show?a=1%262&b=%C3%A9") as answer:
        shown = await answer.json()
    assert shown == {"peer": "127.0.0.1", "query": {"a": "1&2", "b": "é"}, "path": "/show?a=1%262&b=%C3%A9"}
    headers = {"Authorization": "Bearer key", "Forwarded": "for=1.2.3.4", "X-Forwarded-For": "1.2.3.4"}
    async with both.client.post("/echo", data=b"body", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (201, b"body")
        assert (answer.headers["X-More"], answer.headers["Retry-After"]) == ("one", "7")
        assert answer.headers.getall("Content-Security-Policy") != []
        assert len(answer.headers.getall("Server")) == 1
    asked = both.seen[-1].headers
    assert {name: asked[name] for name in headers} == headers, "what a proxy has added decides who may ask"
    assert asked["Host"] == f"127.0.0.1:{both.client.port}"


async def test_nobody_can_say_who_he_is_by_himself(both: Both) -> None:
    for name in (inner.PEER, inner.PEER.lower()):
        async with both.client.get("/show", headers={name: "10.0.0.1"}) as answer:
            assert (await answer.json())["peer"] == "127.0.0.1"


async def test_a_long_answer_comes_in_pieces_and_a_head_without_any(both: Both) -> None:
    async with both.client.get("/stream") as answer:
        assert (await answer.read()) == b"".join(b"%d\n" % number * 1_000 for number in range(200))
        assert answer.headers["Content-Type"] == "application/x-ndjson"
    async with both.client.head("/show") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_an_answer_that_breaks_off_is_no_whole_answer(both: Both) -> None:
    with pytest.raises((ClientPayloadError, ServerDisconnectedError)):
        async with both.client.get("/broken") as answer:
            await answer.read()
    async with both.client.get("/show") as answer:
        assert answer.status == 200


async def problem(asked: Awaitable[ClientResponse]) -> tuple[int, str]:
    answer = await asked
    return answer.status, (await answer.json(content_type=None))["type"]


async def test_without_a_core_the_answer_is_503(both: Both) -> None:
    both.path.unlink()
    assert await problem(both.client.get("/show")) == (503, "not-running")


async def test_a_body_is_bounded_in_size_and_time(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await problem(both.client.post("/echo", data=BytesIO(b"x" * (1 << 21)))) == (413, "body-too-large")
    monkeypatch.setattr(inner, "BODY_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", both.client.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
    assert both.seen == []


async def test_a_body_that_waits_for_100_is_asked_for(both: Both) -> None:
    async with both.client.post("/echo", data=b"body", expect100=True) as answer:
        assert (answer.status, await answer.read()) == (201, b"body")


async def test_the_socket_is_private_and_goes_with_the_core(both: Both) -> None:
    assert both.path.parent.stat().st_mode & 0o777 == 0o700


async def test_another_user_is_refused(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_711)
    assert await problem(both.client.get("/show")) == (403, "forbidden")
    assert both.seen == []


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory with a short name."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as made:
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield Path(made)


async def test_the_folder_is_removed_and_those_of_killed_cores_too(place: Path) -> None:
    left = place / f"{inner.PREFIX}left"
    fresh = place / f"{inner.PREFIX}fresh"
    for folder in (left, fresh):
        folder.mkdir()
    os.utime(left, (0, 0))
    async with inner_listener(core_app([]), shutdown_seconds=0.0) as path:
        os.utime(path.parent, (0, 0))
        async with inner_listener(core_app([]), shutdown_seconds=0.0) as other:
            assert path.exists(), "one that is served stays"
            assert other.exists()
            assert not left.exists()
            assert fresh.exists(), "its core may be about to start"
            async with (
                ClientSession(connector=UnixConnector(str(path))) as http,
                http.get("http://core/show") as answer,
            ):
                assert answer.status == 200
    assert os.listdir(place) == [fresh.name]


async def test_a_temporary_directory_with_too_long_a_name_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 70)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(OSError, match="set TMPDIR to a shorter one"):
        async with inner_listener(core_app([]), shutdown_seconds=0.0):
            pytest.fail("it cannot be opened")
    assert os.listdir(long) == []
