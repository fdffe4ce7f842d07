from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop
from aiohttp import ClientSession, web

from engine.adapters.http_ingress import REFUSED_AT_ONCE, Listener, prepare


def application() -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"{len(await request.read())} bytes")

    app = web.Application()
    prepare(app)
    app.router.add_post("/", hello)
    return app


async def test_a_listener_serves_and_leaves_bodies_as_they_came() -> None:
    listener = Listener(application(), "127.0.0.1", 0)
    await listener.open()
    try:
        async with ClientSession() as session:
            headers = {"Content-Encoding": "gzip"}
            async with session.post(f"http://127.0.0.1:{listener.port}/", data=b"no gzip", headers=headers) as answer:
                assert await answer.text() == "7 bytes"
    finally:
        await listener.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_one_connection_too_many_is_told_so_and_the_others_go_on(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_one_connection_too_many())


async def _one_connection_too_many() -> None:
    listener = Listener(application(), "127.0.0.1", 0, max_connections=1)
    await listener.open()
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(request)
        assert (await reader.readuntil(b"bytes")).startswith(b"HTTP/1.1 200")
        second, too_many = await asyncio.open_connection("127.0.0.1", listener.port)
        too_many.write(request)
        answer = await second.read()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: " in answer
        assert b'"type":"busy"' in answer
        writer.write(request)
        assert (await reader.readuntil(b"bytes")).startswith(b"HTTP/1.1 200")
        for each in (writer, too_many):
            each.close()
    finally:
        await listener.close()


async def test_of_very_many_connections_too_many_most_are_cut_off() -> None:
    """To be told so they would have to stay open, and what is open is bounded."""
    listener = Listener(application(), "127.0.0.1", 0, max_connections=1)
    await listener.open()
    try:
        opened = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(1 + 3 * REFUSED_AT_ONCE)]
        cut = [reader for reader, _ in opened[1 + REFUSED_AT_ONCE :]]
        for reader in cut:
            assert await reader.read() == b""
        told, writer = opened[1]
        writer.write(b"POST / HTTP/1.1\r\n")
        assert (await told.read()).startswith(b"HTTP/1.1 503")
        for _, each in opened:
            each.close()
    finally:
        await listener.close()


async def test_a_request_that_is_no_http_leaves_no_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener(application(), "127.0.0.1", 0)
    await listener.open()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET /lea@example.com NONSENSE\r\nlea@example.com\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.")
        writer.close()
    finally:
        await listener.close()
    assert caplog.text == ""


async def test_an_address_in_use_is_an_error_and_leaves_nothing_open() -> None:
    first = Listener(application(), "127.0.0.1", 0)
    await first.open()
    second = Listener(application(), "127.0.0.1", first.port)
    with pytest.raises(OSError, match=r"(?i)already in use"):
        await second.open()
    await second.close()
    await first.close()


async def test_a_socket_that_is_bound_already_is_taken_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener(application(), "", 0, sock=sock)
        await listener.open()
        assert listener.port == sock.getsockname()[1]
        async with ClientSession() as session, session.post(f"http://127.0.0.1:{listener.port}/", data=b"hi") as answer:
            assert await answer.text() == "2 bytes"
        await listener.close()


async def test_two_listeners_share_a_port_when_both_ask_for_it() -> None:
    first = Listener(application(), "127.0.0.1", 0, reuse_port=True)
    await first.open()
    second = Listener(application(), "127.0.0.1", first.port, reuse_port=True)
    await second.open()
    assert second.port == first.port
    await first.close()
    async with ClientSession() as session, session.post(f"http://127.0.0.1:{second.port}/", data=b"hi") as answer:
        assert await answer.text() == "2 bytes"
    await second.close()
