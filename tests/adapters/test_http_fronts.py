"""The two fronts of `serve` as listeners: how many, for how long, and how they end. TLS: tests/service/test_mtls.py."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator

import pytest
import uvloop
from fronts import AIOHTTP, FAST, OURS, FakeIntake, ingress_of, listener_of, no_callback_fails

from engine.adapters.api_keys import Keys
from engine.adapters.http_ingress import REFUSED_AT_ONCE, FastListener, Listener, patience

BODY = b'[{"email": "lea@example.com"}]'
JSON = b"Host: localhost\r\nContent-Type: application/json\r\n"
POST = b"POST /v1/profiles HTTP/1.1\r\n" + JSON + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
SLOW = b"POST /v1/profiles HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class House:
    """A listener, its intake, and the connections to it, which end with it."""

    def __init__(self, front: str, *, answer_seconds: float = 60.0, **more: object) -> None:
        self.intake = FakeIntake()
        ingress = ingress_of(self.intake, Keys((), clock=lambda: 0.0), answer_timeout_seconds=answer_seconds)
        self.listener: Listener | FastListener = listener_of(front, ingress, **more)
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> House:
        self._watch = no_callback_fails()
        self._watch.__enter__()
        await self.listener.open()
        self.port = self.listener.port
        return self

    async def __aexit__(self, *_: object) -> None:
        self.intake.gate.set()
        await self.listener.close()
        for writer in self._writers:
            writer.transport.abort()
        self._watch.__exit__(None, None, None)

    async def connect(self, *sent: bytes) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        writer.writelines(sent)
        return reader, writer


def statuses(answer: bytes) -> list[int]:
    return [int(it) for it in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


@pytest.fixture(params=OURS)
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def house(front: str) -> AsyncIterator[House]:
    async with House(front) as it:
        yield it


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=request.param)


# -- how many ---------------------------------------------------------------------------------------------------------


def test_one_connection_too_many_is_told_so_and_the_others_go_on(front: str, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with House(front, max_connections=1) as house:
            reader, writer = await house.connect(POST)
            assert statuses(await one_answer(reader)) == [202]
            second, _ = await house.connect(POST)
            answer = await second.read()
            assert statuses(answer) == [503]
            assert b'"type":"busy"' in answer
            assert b"Retry-After: " in answer
            writer.write(POST)
            assert statuses(await one_answer(reader)) == [202]

    with runner:
        runner.run(main())


async def test_a_place_that_was_left_is_free_again(front: str) -> None:
    async with House(front, max_connections=1) as house:
        for _ in range(5):
            reader, writer = await house.connect(POST.replace(b"Host", b"Connection: close\r\nHost", 1))
            assert statuses(await reader.read()) == [202]
            writer.close()
            await writer.wait_closed()


async def test_of_very_many_connections_too_many_most_are_cut_off(front: str) -> None:
    async with House(front, max_connections=1) as house:
        opened = [await house.connect() for _ in range(1 + 3 * REFUSED_AT_ONCE)]
        for reader, _ in opened[1 + REFUSED_AT_ONCE :]:
            assert await reader.read() == b""
        told, writer = opened[1]
        writer.write(POST)
        assert statuses(await told.read()) == [503]


async def test_many_connections_at_once_share_the_commits(house: House) -> None:
    house.intake.gate.clear()
    opened = [await house.connect(POST) for _ in range(300)]
    await house.intake.entered.wait()
    house.intake.gate.set()
    answers = await asyncio.gather(*(one_answer(reader) for reader, _ in opened))
    assert {one for answer in answers for one in statuses(answer)} == {202}
    assert len(house.intake.appends) == 300


async def test_who_pipelines_without_end_is_read_no_further(house: House) -> None:
    """Beyond what one read has brought in."""
    house.intake.gate.clear()
    reader, _ = await house.connect(POST * 5_000)
    await house.intake.entered.wait()
    for _ in range(20):
        other, _ = await house.connect(PROBE)
        assert statuses(await one_answer(other)) == [200]
    assert house.intake.begun < 3_000
    house.intake.gate.set()
    for _ in range(5_000):
        assert (await one_answer(reader)).startswith(b"HTTP/1.1 202")


# -- for how long -----------------------------------------------------------------------------------------------------


def patient(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    for name, value in seconds.items():
        monkeypatch.setattr(patience, name, value)


@pytest.mark.parametrize("sent", [b"P", b"POST /v1/profiles HTTP/1.1\r\nHost: loc", PROBE + b"GET"])
async def test_who_does_not_finish_a_head_is_given_up(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp ends it with the time for a next request, 75 seconds."""
    patient(monkeypatch, HEAD_SECONDS=0.1)
    async with House(FAST, body_seconds=0.2) as house:
        reader, _ = await house.connect(sent)
        answer = await reader.read()
        assert statuses(answer)[-1:] == [408]
        assert b'"type":"head-timeout"' in answer


async def test_who_drips_a_head_is_given_up_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch, HEAD_SECONDS=0.3)
    async with House(FAST, body_seconds=0.2) as house:
        reader, writer = await house.connect(b"GET /livez HTTP/1.1\r\nX-A: ")

        async def beside() -> None:
            other, _ = await house.connect(PROBE)
            await one_answer(other)

        async def drip() -> None:
            while True:
                writer.write(b"a")
                await beside()

        dripping = asyncio.create_task(drip())
        assert statuses(await reader.read()) == [408]
        dripping.cancel()
        await asyncio.wait({dripping})
        await beside()  # and so is whoever was let in meanwhile


@pytest.mark.parametrize("sent", [b"", PROBE], ids=["from the start", "behind a request"])
async def test_who_asks_for_nothing_is_let_go(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch, KEEPALIVE_SECONDS=0.1)
    async with House(FAST, body_seconds=0.2) as house:
        reader, _ = await house.connect(sent)
        assert statuses(await reader.read()) == ([200] if sent else [])


async def test_who_does_not_read_the_answers_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch, WRITE_SECONDS=0.1)
    door = socket.create_server(("127.0.0.1", 0))
    door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # whoever comes in by it has as little
    async with House(FAST, body_seconds=0.2, sock=door) as house:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            sock.connect(("127.0.0.1", house.port))
            sock.setblocking(False)
            with pytest.raises(ConnectionError):
                await send_without_end(sock)
        assert isinstance(house.listener, FastListener)
        assert not house.listener.connections


async def send_without_end(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(sock, POST * 200)


async def test_a_commit_that_lasts_is_no_lack_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch, KEEPALIVE_SECONDS=0.05, HEAD_SECONDS=0.05)
    async with House(FAST, body_seconds=0.05) as house:
        house.intake.gate.clear()
        reader, _ = await house.connect(POST)
        other, _ = await house.connect()
        assert await other.read() == b""  # by now its patience is over
        house.intake.gate.set()
        assert statuses(await one_answer(reader)) == [202]


# -- how they end -----------------------------------------------------------------------------------------------------


def test_who_waits_for_an_answer_gets_it_and_the_others_are_let_go(front: str, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with House(front) as house:
            idle, _ = await house.connect(PROBE)
            assert statuses(await one_answer(idle)) == [200]
            house.intake.gate.clear()
            direct, _ = await house.connect(POST)
            await house.intake.entered.wait()
            house.intake.entered.clear()
            slow, _ = await house.connect(SLOW + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
            await house.intake.entered.wait()
            closing = asyncio.create_task(house.listener.close())
            assert await idle.read() == b""
            house.intake.gate.set()
            for reader in (direct, slow):
                assert statuses(await reader.read()) == [202]
            await closing
            with pytest.raises(ConnectionRefusedError):
                await house.connect()

    with runner:
        runner.run(main())


async def test_an_answer_at_the_end_says_that_it_is_the_last(house: House, front: str) -> None:
    if front == AIOHTTP:  # it only closes the connection behind it
        return
    house.intake.gate.clear()
    reader, _ = await house.connect(POST)
    await house.intake.entered.wait()
    closing = asyncio.create_task(house.listener.close())
    await asyncio.sleep(0)
    house.intake.gate.set()
    assert b"Connection: close\r\n" in await reader.read()
    await closing


async def test_who_hangs_at_the_end_is_cut_off(front: str) -> None:
    async with House(front, shutdown_seconds=0.1, answer_seconds=0.5) as house:
        house.intake.gate.clear()
        hanging = [await house.connect(it) for it in (POST, POST[:-5], SLOW, b"POST /v1")]
        await house.intake.entered.wait()
        async with asyncio.timeout(10):
            await house.listener.close()
        for reader, _ in hanging:
            assert [it for it in statuses(await lost(reader)) if it < 400] == []
        assert house.intake.cancelled == 0


async def lost(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_both_fronts_run_on_both_loops(front: str, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with House(front) as house:
            reader, _ = await house.connect(POST, PROBE, SLOW, b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), POST)
            assert [statuses(await one_answer(reader)) for _ in range(4)] == [[202], [200], [202], [202]]

    with runner:
        runner.run(main())
