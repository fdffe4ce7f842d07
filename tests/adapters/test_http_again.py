"""The fast front knows a head again by its bytes: whatever comes behind it is answered as on a new connection."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest
from aiohttp import web
from fronts import FakeIntake, ingress_of, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.adapters.api_keys import Keys
from engine.adapters.http_ingress.fast import Connection
from engine.adapters.http_ingress.fast_again import KnownHead
from engine.adapters.http_ingress.fast_head import HeadReader
from engine.adapters.http_ingress.fast_listener import FastListener
from engine.errors import Overloaded
from engine.model import Append, Lane

BODY = b'[{"email": "lea@example.com"}]'
START = b"POST /v1/profiles HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def request(length: bytes | None = None, body: bytes = BODY, start: bytes = START, more: bytes = b"") -> bytes:
    size = b"%d" % len(body) if length is None else length
    return start + b"Content-Length: %b\r\n%b\r\n" % (size, more) + body


USUAL = request()
TURNS = 5
"""Of the loop between two pieces, so that they are read apart."""
VARIANTS = {
    "the same": USUAL,
    "a longer body": request(body=b'[{"email": "lea.martin@example.com", "city": "Lille"}]'),
    "two at once": USUAL + USUAL,
    "another way to write the length": request(b"0%d" % len(BODY)),
    "a sign before the length": request(b"+%d" % len(BODY)),
    "no length": request(b""),
    "a space in the length": request(b"3 0"),
    "no body": request(b"0", b""),
    "a length that is too small": request(b"%d" % (len(BODY) - 1)),
    "a length that is too large": request(b"%d" % (len(BODY) + 1)),
    "a length beyond all bounds": request(b"9" * 40),
    "another length behind it": request(more=b"Content-Length: 5\r\n"),
    "chunks behind it": request(more=b"Transfer-Encoding: chunked\r\n"),
    "another header behind it": request(more=b"X-More: 1\r\n"),
    "a header that closes": request(more=b"Connection: close\r\n"),
    "another path": request(start=START.replace(b"profiles", b"nothings")),
    "another type": request(start=START.replace(b"json", b"pdf")),
    "another host line": request(start=START.replace(b"Host:", b"Hosts:")),
    "a body that is no JSON": request(body=b"[{]"),
    "an empty line before it": b"\r\n" + USUAL,
    "something behind it": USUAL + b"x",
    "a head without its end": USUAL[: USUAL.index(b"\r\n\r\n")],
    "nothing of the body": USUAL[: USUAL.index(b"\r\n\r\n") + 4],
}


async def answers(port: int, *before: bytes, pieces: list[bytes]) -> tuple[list[bytes], int]:
    """The statuses of all answers to `pieces`, and how many events they have accepted, on a connection that has sent
    `before` and has had its answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    for one in before:
        writer.write(one)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    with suppress(OSError):  # it may have been told to go
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            for _ in range(TURNS):
                await asyncio.sleep(0)
        writer.write_eof()
    with suppress(OSError):
        said += await reader.read()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return re.findall(rb"HTTP/1.1 (\d+)", said), sum(map(int, re.findall(rb'"accepted":(\d+)', said)))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
async def test_what_follows_a_known_head_is_answered_as_if_it_were_not_known(variant: bytes) -> None:
    intake = FakeIntake()
    async with serving("fast", ingress_of(intake, Keys([], clock=lambda: 0.0))) as port:
        expected = await answers(port, pieces=[variant])
        stored = len(intake.appends)
        assert await answers(port, USUAL, USUAL, pieces=[variant]) == expected
        assert len(intake.appends) == 2 * stored + 2


IN_PIECES = {
    "amid a header": [b"POST /v1/profiles HTTP/1.1\r\nHost: localhost\r\nX-More: ", USUAL],
    "amid a body": [request(b"%d" % (len(BODY) + len(USUAL))), USUAL],
    "amid the body of who offers another protocol": [
        request(b"%d" % (len(BODY) + len(USUAL)), more=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        USUAL,
    ],
    "amid a chunk": [
        START + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(USUAL),
        USUAL,
        b"\r\n0\r\n\r\n",
    ],
    "behind the last one": [request(more=b"Connection: close\r\n"), USUAL],
    "behind an unreadable one": [b"x\r\n\r\n", USUAL],
}


@pytest.mark.parametrize("pieces", IN_PIECES.values(), ids=IN_PIECES)
async def test_where_no_request_begins_there_is_none(pieces: list[bytes]) -> None:
    intake = FakeIntake()
    async with serving("fast", ingress_of(intake, Keys([], clock=lambda: 0.0))) as port:
        expected = await answers(port, pieces=pieces)
        stored = len(intake.appends)
        assert await answers(port, USUAL, pieces=pieces) == expected
        assert len(intake.appends) == 2 * stored + 1


class SlowFromTheSecondOn(FakeIntake):
    def __init__(self) -> None:
        super().__init__()
        self.first = asyncio.Event()

    async def _commit(self, append: Append, owner: str) -> str:
        id = await super()._commit(append, owner)
        if len(self.appends) == 1:
            self.gate.clear()
            self.entered.clear()
            self.first.set()
        return id


async def test_it_is_begun_behind_a_slow_one_that_was_before_it() -> None:
    intake = SlowFromTheSecondOn()
    slow = request(start=START.replace(b"profiles", b"profiles?lane=backfill"), more=b"Prefer: wait=0\r\n")
    async with serving("fast", ingress_of(intake, Keys([], clock=lambda: 0.0))) as port:
        replies = asyncio.ensure_future(answers(port, USUAL, pieces=[slow, USUAL]))
        await intake.first.wait()
        await intake.entered.wait()
        for _ in range(10 * TURNS):
            await asyncio.sleep(0)
        assert intake.begun == 2, "the slow one is under way"
        intake.gate.set()
        assert await replies == ([b"202", b"202"], 2)
    assert [append.lane for append in intake.appends] == [Lane.LIVE, Lane.BACKFILL, Lane.LIVE]


async def test_a_body_beyond_the_bound_is_refused() -> None:
    intake = FakeIntake()
    large = request(body=b"[%b]" % (b" " * 200))
    async with serving("fast", ingress_of(intake, Keys([], clock=lambda: 0.0), max_body_bytes=100)) as port:
        assert await answers(port, USUAL, pieces=[large]) == ([b"413"], 0)


class FakeTransport(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""


async def test_the_time_of_a_connection_begins_anew_with_each_of_them() -> None:
    intake = FakeIntake()
    listener = FastListener(
        web.Application(), "127.0.0.1", 0, ingress=ingress_of(intake, Keys([], clock=lambda: 0.0)), body_seconds=1.0
    )
    connection = Connection(listener, asyncio.get_running_loop())
    connection.connection_made(FakeTransport())
    connection.data_received(USUAL)
    await asyncio.sleep(0)
    intake.refused = Overloaded("journal-full", "the journal is full", 5.0)
    connection.data_received(USUAL)
    connection.deadline = 0.0
    connection.data_received(USUAL)
    assert connection.deadline > 0.0


async def test_it_may_come_in_pieces_as_well() -> None:
    intake = FakeIntake()
    async with serving("fast", ingress_of(intake, Keys([], clock=lambda: 0.0))) as port:
        for at in range(1, len(USUAL), 7):
            assert await answers(port, USUAL, pieces=[USUAL[:at], USUAL[at:]]) == ([b"202"], 1)


def known(data: bytes) -> KnownHead:
    it = KnownHead()
    raw = [(name, value) for name, _, value in (line.partition(b": ") for line in data.split(b"\r\n")[1:5]) if name]
    it.learn(data, HeadReader("").read(b"POST", "1.1", b"/v1/profiles", raw, 100))
    return it


def test_the_usual_request_is_known_again() -> None:
    it = known(USUAL)
    assert it.body_of(USUAL) == BODY
    assert it.body_of(request(body=b"[]")) == b"[]"


@pytest.mark.parametrize("data", [USUAL + USUAL, USUAL + b"x", request(more=b"content-length: 30\r\n")])
def test_what_is_more_than_one_request_is_not_learned(data: bytes) -> None:
    assert known(data).head is None


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_one_byte_that_is_another_is_not_known(data: st.DataObject) -> None:
    it, changed = known(USUAL), bytearray(USUAL)
    end = USUAL.index(b"\r\n\r\n") + 4
    place = data.draw(st.integers(0, end - 1))
    changed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != USUAL[place]))
    assert it.body_of(bytes(changed)) is None
