"""What no client with good intentions sends, on every front: what two readers could understand differently is refused,
and nothing behind it is answered; nobody can keep the engine waiting, nor its connections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from fronts import AIOHTTP, ASGI, FAST, FRONTS, OURS, ROUTER, FakeIntake, ingress_of, serving

from engine.adapters.api_keys import Keys
from engine.config import IngressKeyConfig

KEY = IngressKeyConfig(name="aep", sha256="2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683")  # "key"
LINE = b"POST /v1/profiles HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
JSON = b"X-API-Key: key\r\nContent-Type: application/json\r\n"
BODY = b'[{"email": "lea@example.com"}]'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
GOOD = LINE + HOST + JSON + LENGTH + b"\r\n" + BODY
HIDDEN = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""What stands behind an attack; it must not be answered."""


def head(*lines: bytes, body: bytes = BODY) -> bytes:
    return LINE + HOST + JSON + b"".join(lines) + b"\r\n" + body


REFUSED = {
    "length and chunked": head(LENGTH, CHUNKED, body=CHUNKS),
    "chunked and length": head(CHUNKED, LENGTH, body=CHUNKS),
    "the same length twice": head(LENGTH, LENGTH),
    "two lengths": head(LENGTH, b"Content-Length: 3\r\n"),
    "a list of lengths": head(b"Content-Length: 30, 30\r\n"),
    "a length with a sign": head(b"Content-Length: +30\r\n"),
    "a negative length": head(b"Content-Length: -30\r\n"),
    "a length in hex": head(b"Content-Length: 0x1e\r\n"),
    "a length with a space inside": head(b"Content-Length: 3 0\r\n"),
    "an endless length": head(b"Content-Length: 99999999999999999999999999\r\n"),
    "an empty length": head(b"Content-Length: \r\n"),
    "a space before the colon": head(b"Content-Length : 30\r\n"),
    "an encoding that ends in chunked": head(b"Transfer-Encoding: xchunked\r\n", body=CHUNKS),
    "another encoding before chunked": head(b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS),
    "another encoding after chunked": head(b"Transfer-Encoding: chunked, identity\r\n", body=CHUNKS),
    "chunked twice": head(CHUNKED, CHUNKED, body=CHUNKS),
    "chunked behind a vertical tab": head(b"Transfer-Encoding: \x0bchunked\r\n", body=CHUNKS),
    "chunked in HTTP/1.0": head(CHUNKED, body=CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a folded header": head(b"X-A: a\r\n b\r\n", LENGTH),
    "a header folded with a tab": head(b"X-A: a\r\n\tb\r\n", LENGTH),
    "a folded first header": LINE + b" " + HOST + JSON + LENGTH + b"\r\n" + BODY,
    "NUL in a value": head(b"X-A: a\x00b\r\n", LENGTH),
    "a control character in a value": head(b"X-A: a\x01b\r\n", LENGTH),
    "NUL in a name": head(b"X\x00A: a\r\n", LENGTH),
    "a space in a name": head(b"X A: a\r\n", LENGTH),
    "a quote in a name": head(b'"X": a\r\n', LENGTH),
    "an empty name": head(b": a\r\n", LENGTH),
    "no colon": head(b"nonsense\r\n", LENGTH),
    "lines without CR": GOOD.replace(b"\r\n", b"\n"),
    "one line without CR": head(b"X-A: a\n", LENGTH),
    "CR alone": head(b"X-A: a\rX-B: b\r\n", LENGTH),
    "a head that ends without CR": GOOD.replace(b"\r\n\r\n", b"\r\n\n"),
    "a size in C's hex": head(CHUNKED, body=b"0x1e\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a negative size": head(CHUNKED, body=b"-1e\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a size that overflows": head(CHUNKED, body=b"1000000000000001e\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a size before a space": head(CHUNKED, body=b"1e \r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a size without CR": head(CHUNKED, body=b"1e\n" + BODY + b"\r\n0\r\n\r\n"),
    "no size": head(CHUNKED, body=b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": head(CHUNKED, body=b"1d\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk that does not end": head(CHUNKED, body=b"1e\r\n" + BODY + b"XX0\r\n\r\n"),
    "NUL in an extension": head(CHUNKED, body=b"1e;a=\x00\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a line break in an extension": head(CHUNKED, body=b"1e;a\n" + BODY + b"\r\n0\r\n\r\n"),
    "a length in the trailer": head(CHUNKED, body=CHUNKS[:-2] + b"Content-Length: 3\r\n\r\n"),
    "two hosts": LINE + HOST + HOST + JSON + LENGTH + b"\r\n" + BODY,
    "no host": LINE + JSON + LENGTH + b"\r\n" + BODY,
    "a space in the target": GOOD.replace(b"/v1/profiles", b"/v1/profiles x"),
    "a control character in the target": GOOD.replace(b"/v1/profiles", b"/v1/profiles?\x01"),
    "a high byte in the target": GOOD.replace(b"/v1/profiles", b"/v1/profiles?\xff"),
    "a target of another host": GOOD.replace(b"/v1/profiles", b"http://elsewhere.example/v1/profiles"),
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2": GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "HTTP/1.2": GOOD.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in lower case": GOOD.replace(b"POST", b"post"),
    "an unknown method": GOOD.replace(b"POST", b"STORE"),
    "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    "no HTTP": b"lea@example.com\r\n\r\n",
}

QUOTED = {
    *("a chunk that does not end", "a chunk that is longer than it says", "a head that ends without CR"),
    *("a line break in an extension", "a size without CR", "lines without CR", "no HTTP"),
}
DECIDED_ELSEWHERE = {
    ROUTER: {"CONNECT", "HTTP/2", "a target of another host", "another encoding before chunked"} | QUOTED,
    ASGI: {"HTTP/0.9", "HTTP/2", "a target of another host"},
}
"""Where the server is not ours: aiohttp's, as a host runs it, takes the first of these and quotes the others in its
refusal; uvicorn understands the request line of these in its own way. Neither finds another end of a request."""


class Target:
    def __init__(self, port: int, intake: FakeIntake) -> None:
        self.port, self.intake = port, intake

    async def say(self, *parts: bytes, eof: bool = False) -> bytes:
        """All that is answered until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            if eof:
                writer.write_eof()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def target(front: str) -> AsyncIterator[Target]:
    intake = FakeIntake()
    limits = {"body_timeout_seconds": 0.5, "answer_timeout_seconds": 60.0}
    ingress = ingress_of(intake, Keys([KEY], clock=lambda: 0.0), **limits)
    options = {"body_seconds": 0.5} if front == FAST else {}
    async with serving(front, ingress, **options) as port:
        yield Target(port, intake)


def closing(request: bytes) -> bytes:
    return request.replace(HOST, HOST + b"Connection: close\r\n", 1)


def statuses(answer: bytes) -> list[int]:
    return [int(it) for it in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


@pytest.mark.parametrize("attack", REFUSED)
async def test_what_is_ambiguous_is_refused_and_ends_the_connection(target: Target, front: str, attack: str) -> None:
    async with asyncio.timeout(10):
        answer = await target.say(REFUSED[attack] + HIDDEN)
    if attack in DECIDED_ELSEWHERE.get(front, ()):
        assert statuses(answer)
        return
    assert target.intake.appends == []
    assert [it for it in statuses(answer) if it < 400] == []
    assert len(statuses(answer)) <= 1
    assert b"lea@example.com" not in answer


# -- what is unusual and still right ----------------------------------------------------------------------------------

RIGHT = {
    "the absolute form": GOOD.replace(b"/v1/profiles", b"http://localhost/v1/profiles", 1),
    "chunks": head(CHUNKED, body=CHUNKS),
    "many chunks": head(CHUNKED, body=b"".join(b"1\r\n%c\r\n" % it for it in BODY) + b"0\r\n\r\n"),
    "an extension": head(CHUNKED, body=CHUNKS.replace(b"\r\n[", b";a=b\r\n[", 1)),
    "a trailer": head(CHUNKED, body=CHUNKS[:-2] + b"X-API-Key: other\r\nX-Sum: 1\r\n\r\n"),
    "empty lines first": b"\r\n\r\n" + GOOD,
    "an empty header": head(b"X-Empty:\r\n", LENGTH),
    "no space behind colons": GOOD.replace(b": localhost", b":localhost"),
    "tabs around a value": head(b"X-A:\t a \t\r\n", LENGTH),
    "zeros before a length": head(b"Content-Length: 00%d\r\n" % len(BODY)),
    "a high byte in a value": head(b"X-A: \xc3\xa9\xff\r\n", LENGTH),
    "names in capitals": GOOD.replace(b"Content-Type", b"CONTENT-TYPE"),
}


@pytest.mark.parametrize("request_", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
async def test_what_is_only_unusual_is_understood(target: Target, request_: bytes, cut: bool) -> None:
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    sent = request_ + last
    async with asyncio.timeout(20):
        answer = await target.say(*([bytes([it]) for it in sent] if cut else [sent]))
    assert statuses(answer) == [202, 200]
    assert len(target.intake.appends) == 1


@pytest.mark.parametrize("front", [ROUTER, AIOHTTP, FAST])
async def test_a_key_in_a_trailer_is_none(target: Target) -> None:
    """uvicorn puts trailers among the headers, where nobody can tell them apart."""
    without = LINE + HOST + b"Content-Type: application/json\r\n" + CHUNKED + b"\r\n"
    answer = await target.say(closing(without + CHUNKS[:-2] + b"X-API-Key: key\r\n\r\n"))
    assert statuses(answer) == [401]
    assert target.intake.appends == []


async def test_a_body_behind_an_offer_of_another_protocol_is_a_body(target: Target, front: str) -> None:
    """Java's client offers HTTP/2 with every request; the parser then takes the body for that other protocol."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    hidden = b"DELETE /v1/receipts/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    smuggled = head(offer, b"Content-Length: %d\r\n" % len(hidden), body=hidden)
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(smuggled + HIDDEN)
    assert statuses(await reader.readuntil(b"}")) == [400]  # the body is no JSON, or uvicorn leaves it out
    if front == FAST:
        assert statuses(await reader.read()) == [200]
    writer.transport.abort()  # aiohttp and uvicorn wait for that other protocol
    assert target.intake.appends == []


async def test_http_1_0_ends_with_its_answer_unless_asked_to_stay(target: Target, front: str) -> None:
    old = GOOD.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert statuses(await target.say(old)) == [202]
    answer = await target.say(old.replace(HOST, HOST + b"Connection: keep-alive\r\n") + old)
    if front == ASGI:  # uvicorn does not stay
        assert statuses(answer) == [202]
    else:
        assert statuses(answer) == [202, 202]
        assert b"connection: keep-alive" in answer.lower()


async def test_who_says_close_is_answered_and_closed(target: Target) -> None:
    answer = await target.say(closing(GOOD))
    assert statuses(answer) == [202]
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("front", [FAST])
async def test_what_comes_behind_the_last_request_takes_nothing_from_it(target: Target) -> None:
    """aiohttp answers 400 to both, and uvicorn drops the connection: nothing is stored then."""
    assert statuses(await target.say(closing(GOOD) + HIDDEN)) == [202]


async def test_head_has_a_length_and_no_body(target: Target) -> None:
    answer = await target.say(b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN)
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert b"content-length: 13" in first.lower()
    assert rest.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("front", [ROUTER, AIOHTTP, FAST])
async def test_every_answer_carries_the_security_headers(target: Target) -> None:
    """uvicorn's own refusals carry none."""
    for sent in (GOOD, b"GET /what HTTP/1.1\r\nHost: localhost\r\n\r\n", LINE + HOST + b"\r\n"):
        answer = (await target.say(closing(sent))).lower()
        for name in (b"server: rainfocus-engine", b"x-content-type-options: nosniff", b"cache-control: no-store"):
            assert name in answer


@pytest.mark.parametrize("front", OURS)
async def test_what_is_no_http_is_answered_as_everything_else(target: Target) -> None:
    answer = (await target.say(b"lea@example.com\r\n\r\n")).lower()
    assert b"server: rainfocus-engine" in answer
    assert b"x-content-type-options: nosniff" in answer
    assert b'"type":"bad-request"' in answer


# -- order and ends ---------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_their_order(target: Target) -> None:
    """Direct, slow and refused ones by turns."""
    packed = LINE + HOST + JSON + CHUNKED + b"\r\n" + CHUNKS
    probe = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    bad = head(b"Content-Length: 1\r\n", body=b"{")
    nobody = b"GET /what HTTP/1.1\r\nHost: localhost\r\n\r\n"
    round_ = GOOD + packed + probe + bad + GOOD + nobody + packed
    async with asyncio.timeout(20):
        answer = await target.say(round_ * 10 + HIDDEN)
    assert statuses(answer) == [202, 202, 200, 400, 202, 404, 202] * 10 + [200]
    assert [len(it.events) for it in target.intake.appends] == [1] * 40


async def test_every_request_is_judged_by_its_own_head(target: Target) -> None:
    """However much it is like the one before it."""
    longer = b" " * 5 + BODY
    different = [
        (GOOD, 202),
        (GOOD.replace(b"X-API-Key: key", b"X-API-Key: kex"), 401),
        (GOOD.replace(b"X-API-Key", b"X-Api-Kex"), 401),
        (GOOD.replace(LENGTH, b"Content-Length: %d\r\n" % len(longer)).replace(BODY, longer), 202),
        (GOOD.replace(b"application/json", b"application/jsox"), 415),
        (GOOD.replace(b"/v1/profiles", b"/v1/profiles?source=default"), 202),
        (GOOD.replace(b"/v1/profiles", b"/v1/profiles?source=defaulx"), 400),
        (GOOD.replace(b"POST", b"PUT"), 405),
        (GOOD, 202),
    ]
    async with asyncio.timeout(20):
        answer = await target.say(b"".join(one + GOOD for one, _ in different) + HIDDEN)
    assert statuses(answer) == [it for _, status in different for it in (status, 202)] + [200]


async def test_very_many_pipelined_requests_are_all_answered(target: Target) -> None:
    async with asyncio.timeout(30):
        answer = await target.say(GOOD * 2_000 + HIDDEN)
    assert statuses(answer) == [202] * 2_000 + [200]


async def test_an_answer_that_is_ready_waits_for_the_one_before_it(target: Target) -> None:
    target.intake.gate.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(GOOD + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    await target.intake.entered.wait()
    assert statuses(await Target(target.port, target.intake).say(HIDDEN)) == [200]  # all is ready, and nothing is out
    target.intake.gate.set()
    assert statuses(await reader.read()) == [202, 200]
    writer.close()


@pytest.mark.parametrize("front", [FAST])
async def test_who_has_said_everything_still_hears_the_answers(target: Target) -> None:
    """For aiohttp and uvicorn whoever closes one half has left: what was committed stays, unanswered."""
    answer = await target.say(GOOD + GOOD, eof=True)
    assert statuses(answer) == [202, 202]
    assert len(target.intake.appends) == 2


async def test_a_body_that_breaks_off_is_not_used(target: Target) -> None:
    for half in (GOOD[:-5], head(CHUNKED, body=CHUNKS[:-12])):
        answer = await target.say(half, eof=True)
        assert [it for it in statuses(answer) if it < 400] == []
    assert statuses(await target.say(HIDDEN)) == [200]
    assert target.intake.appends == []


async def test_a_caller_who_leaves_while_the_commit_runs_does_not_end_it(target: Target) -> None:
    target.intake.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(GOOD)
    await target.intake.entered.wait()
    writer.transport.abort()
    assert statuses(await target.say(HIDDEN)) == [200]
    target.intake.gate.set()
    assert statuses(await target.say(closing(GOOD))) == [202]
    assert (len(target.intake.appends), target.intake.cancelled) == (2, 0)


async def test_who_is_refused_in_mid_body_and_leaves_disturbs_nobody(target: Target) -> None:
    """The answer is out before the request is in."""
    endless = head(CHUNKED, body=b"4000\r\n" + b" " * 0x4000 + b"\r\n")
    for sent in (endless.replace(JSON, b"Content-Type: text/plain\r\n"), endless.replace(b"key", b"wrong", 1)):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(sent)
        assert statuses(await reader.readuntil(b"}"))[0] in (401, 415)
        writer.write(b"4000\r\n")
        writer.write_eof()
        await reader.read()
        writer.close()
    assert statuses(await target.say(closing(GOOD))) == [202]


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        head(*(b"X-%d: a\r\n" % it for it in range(2_000)), LENGTH),
        head(b"X-A: " + b"a" * 200_000 + b"\r\n", LENGTH),
        head(b"X" * 200_000 + b": a\r\n", LENGTH),
        GOOD.replace(b"/v1/profiles", b"/v1/profiles?" + b"a" * 200_000),
    ],
    ids=["headers", "a value", "a name", "a target"],
)
@pytest.mark.parametrize("front", [ROUTER, AIOHTTP, FAST])
async def test_a_head_without_end_is_refused(target: Target, sent: bytes) -> None:
    """uvicorn has no such bound for httptools: a proxy in front of it does."""
    answer = await target.say(sent + HIDDEN)
    assert [it for it in statuses(answer) if it < 400] == []
    assert len(answer) < 2_000
    assert target.intake.appends == []


@pytest.mark.parametrize("front", [FAST])
@pytest.mark.parametrize(
    "tail", [b"1;" + b"a" * 200_000, CHUNKS[:-2] + b"X-A: " + b"a" * 200_000], ids=["an extension", "a trailer"]
)
async def test_more_around_chunks_than_in_them_is_refused(target: Target, tail: bytes) -> None:
    """aiohttp and uvicorn give up with the time for a body."""
    assert statuses(await target.say(head(CHUNKED, body=tail))) == [400]


async def test_who_does_not_send_the_body_is_given_up(target: Target) -> None:
    async with asyncio.timeout(10):
        for half in (GOOD[:-5], head(CHUNKED, body=CHUNKS[:-12])):
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(half)
            assert statuses(await reader.readuntil(b"}")) == [408]
            writer.close()


async def test_who_stops_in_a_body_keeps_no_other_waiting(target: Target) -> None:
    stalled = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(200)]
    for _, writer in stalled:
        writer.write(GOOD[:-5])
    answers = await asyncio.gather(*(target.say(closing(GOOD)) for _ in range(20)))
    assert {one for answer in answers for one in statuses(answer)} == {202}
    for _, writer in stalled:
        writer.transport.abort()
