"""Requests of one connection with the same head: each is judged by what counts when it comes."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fronts import FRONTS, FakeIntake, ingress_of, serving

from engine.adapters.api_keys import Keys
from engine.config import IngressKeyConfig
from engine.errors import Overloaded


def key(name: str, **more: float) -> IngressKeyConfig:
    return IngressKeyConfig(name=name, sha256=hashlib.sha256(b"secret").hexdigest(), **more)  # type: ignore[arg-type]


class Producer:
    """`send`: another event of the same kind; the length of the body differs from one to the next."""

    def __init__(self, keys: Keys, intake: FakeIntake, *stream: object) -> None:
        self.keys, self.intake = keys, intake
        self._reader, self._writer = stream
        self._sent = 0

    async def send(self, query: bytes = b"", secret: bytes = b"secret") -> int:
        self._sent += 1
        body = b'[{"email": "%b@example.com"}]' % (b"p" * self._sent)
        head = b"POST /v1/profiles%b HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %b\r\n" % (query, secret)
        more = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._writer.write(head + more + body)  # type: ignore[attr-defined]
        answer: bytes = await self._reader.readuntil(b"\r\n\r\n")  # type: ignore[attr-defined]
        length = re.search(rb"(?i)content-length: (\d+)", answer)
        assert length is not None
        await self._reader.readexactly(int(length[1]))  # type: ignore[attr-defined]
        return int(answer.split()[1])


@asynccontextmanager
async def producing(front: str, **more: float) -> AsyncIterator[Producer]:
    keys, intake = Keys([key("aep", **more)], clock=lambda: 0.0), FakeIntake()
    async with serving(front, ingress_of(intake, keys)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Producer(keys, intake, reader, writer)
        finally:
            writer.close()


@pytest.fixture(params=FRONTS)
async def producer(request: pytest.FixtureRequest) -> AsyncIterator[Producer]:
    async with producing(request.param) as it:
        yield it


async def test_all_of_them_are_taken(producer: Producer) -> None:
    assert [await producer.send() for _ in range(12)] == [202] * 12
    assert len(producer.intake.appends) == 12


async def test_a_key_that_was_taken_away_counts_no_more(producer: Producer) -> None:
    assert await producer.send() == 202
    producer.keys.replace([IngressKeyConfig(name="other", sha256=hashlib.sha256(b"other").hexdigest())])
    assert await producer.send() == 401
    producer.keys.replace([key("aep")])
    assert await producer.send() == 202


async def test_what_a_key_may_do_is_what_it_may_do_now(producer: Producer) -> None:
    assert [await producer.send(), await producer.send()] == [202, 202]
    producer.keys.replace([key("renamed")])
    assert await producer.send() == 202
    assert producer.intake.owners == ["aep", "aep", "renamed"]
    producer.keys.replace([key("aep", scopes=("profiles:view",))])  # type: ignore[arg-type]
    assert await producer.send() == 403


async def test_another_query_is_read(producer: Producer) -> None:
    assert [await producer.send(), await producer.send(b"?source=nobody"), await producer.send()] == [202, 400, 202]
    assert [await producer.send(b"?lane=backfill"), await producer.send(b"?lane=live")] == [202, 202]
    assert [it.lane.name for it in producer.intake.appends] == ["LIVE", "LIVE", "BACKFILL", "LIVE"]


async def test_another_key_is_another_caller(producer: Producer) -> None:
    assert [await producer.send(), await producer.send(secret=b"guess!"), await producer.send()] == [202, 401, 202]


async def test_an_engine_that_refuses_does_so_at_once(producer: Producer) -> None:
    assert await producer.send() == 202
    producer.intake.refused = Overloaded("journal-full", "the journal is full", 5.0)
    assert await producer.send() == 503
    producer.intake.refused = None
    assert await producer.send() == 202


@pytest.mark.parametrize("front", FRONTS)
async def test_a_quota_is_used_up_by_all_of_them(front: str) -> None:
    async with producing(front, max_events_per_second=2) as producer:
        assert [await producer.send() for _ in range(4)] == [202, 202, 429, 429]
