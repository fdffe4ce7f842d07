"""The sink as a store and as an instrument."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import msgspec
import pytest

from benchmarks.client import STORE_PATH, token
from benchmarks.parts import stored
from benchmarks.shapes import Shape
from benchmarks.sink import Sink, Stats
from benchmarks.sinks import Records


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    it = Sink()
    await it.listen()
    yield it
    it.close()


def url(sink: Sink) -> str:
    return f"http://127.0.0.1:{sink.port}"


async def stats(session: aiohttp.ClientSession, sink: Sink) -> Stats:
    async with session.get(f"{url(sink)}/_sink/stats") as response:
        return msgspec.json.decode(await response.read(), type=Stats)


async def test_it_gives_tokens_and_notes_every_record(sink: Sink) -> None:
    shape = Shape(repeats=0.5)
    body = b"[" + b",".join(stored(shape, it) for it in range(10)) + b"]"
    assert await token(url(sink))
    async with aiohttp.ClientSession() as session:
        async with session.post(url(sink) + STORE_PATH, data=body) as response:
            assert (await response.json())["responseCode"] == "0"
        found = await stats(session, sink)
        assert (found.records, found.requests, found.newest) == (10, 1, 9)
        async with session.get(f"{url(sink)}/_sink/records") as response:
            records = Records.of(await response.read())
    assert [(person, version) for _, person, version in records] == [(shape.person_of(it), it) for it in range(10)]


async def test_a_request_in_pieces_is_one_request(sink: Sink) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    body = stored(Shape(), 1)
    for part in (b"POST /api/x HTTP/1.1\r\nContent-", b"Length: %d\r\n\r\n" % len(body), body[:10], body[10:]):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert sink.book.stats().records == 1


async def test_requests_behind_each_other_are_all_answered(sink: Sink) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    body = stored(Shape(), 1)
    writer.write((b"POST /api/x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body) * 3)
    answers = [await reader.readuntil(b"}") for _ in range(3)]
    writer.close()
    assert len(answers) == sink.book.stats().requests == 3


async def test_a_chunked_request_is_cut_off_rather_than_miscounted(sink: Sink) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    writer.write(b"POST /api/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        assert await reader.read(1) == b""
    writer.close()
    assert sink.book.stats().requests == 0


async def test_while_it_is_away_connections_are_refused_and_then_not(sink: Sink) -> None:
    gone = asyncio.Event()
    sink.leave(gone.wait())
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", sink.port)
    gone.set()
    await sink.back()
    _, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    writer.close()
