"""Each fault: what the caller sees, and whether the attendee was stored."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json

import aiohttp
import pytest

from engine.sandbox import Fault, Settings, create_app
from engine.sandbox.faults import FaultBook, parse_document, parse_flag

EMAIL = "lea.martin@example.com"
KEY = hashlib.sha256(EMAIL.encode()).hexdigest()


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "retry_after", "body"),
    [
        (Fault(kind="status"), 503, "text/html", None, b"503 Error"),
        (Fault(kind="status", status=503, retry_after=1.2), 503, "text/html", "2", b"503 Error"),
        (Fault(kind="status", status=429, retry_after=7), 429, "text/html", "7", b""),
        (Fault(kind="status", status=429), 429, "text/html", None, b""),
        (Fault(kind="status", status=404), 404, "text/html", None, b"Error"),
        (Fault(kind="status", status=403, code="27"), 403, "application/json", None, b"Insufficient access"),
        (Fault(kind="html_500"), 500, "text/html", None, b"<h1>500 Error</h1>"),
        (Fault(kind="error_code", code="124"), 200, "application/json", None, b'"responseCode":"124"'),
        (Fault(kind="error_code", code="9", status=400), 400, "application/json", None, b'"responseCode":"9"'),
        (Fault(kind="redirect", status=302, location="http://127.0.0.1:9/"), 302, "text/html", None, b""),
    ],
)
async def test_an_answered_fault_stores_nothing(
    start, attendee, fault, status, content_type, retry_after, body
) -> None:
    client = await start(faults=[fault])
    reply, text = await client.raw(json=attendee(), allow_redirects=False)
    assert reply.headers.get("Location") == (fault.location if fault.kind == "redirect" else None)
    assert (reply.status, reply.content_type, reply.headers.get("Retry-After")) == (status, content_type, retry_after)
    assert body in text
    assert len(client.sandbox.store) == 0
    assert next(iter(client.sandbox.requests)).fault == fault.kind


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("seconds", "date"), [(None, "14:30:01"), (60, "14:31:00")])
async def test_retry_after_can_be_a_date(start, attendee, status, seconds, date) -> None:
    client = await start(faults=[Fault(kind="status", status=status, retry_after="date", seconds=seconds)])
    reply, _ = await client.raw(json=attendee())
    assert reply.headers["Retry-After"] == f"Mon, 21 Sep 2026 {date} GMT"


@pytest.mark.parametrize(
    ("kind", "stored"), [("reset_before", 0), ("reset_after", 1), ("timeout", 0), ("timeout_after", 1)]
)
async def test_a_cut_connection_leaves_the_caller_without_an_answer(start, attendee, kind, stored) -> None:
    client = await start(faults=[Fault(kind=kind, seconds=30)])
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await client.store(attendee())
    assert caught.value.errno == errno.ECONNRESET
    assert len(client.sandbox.store) == stored
    assert next(iter(client.sandbox.requests)).status == 0
    assert client.clock.slept == ([30] if kind.startswith("timeout") else [])


async def test_a_slow_drip_brings_the_whole_answer_in_pieces(start, attendee) -> None:
    client = await start(faults=[Fault(kind="drip", seconds=10)])
    status, body = await client.store(attendee())
    assert (status, body["responseCode"]) == (200, "0")
    assert len(client.clock.slept) > 10
    assert sum(client.clock.slept) == pytest.approx(10)


@pytest.mark.parametrize(
    ("kind", "content_type", "begin"),
    [
        ("half_answer", "application/json", b'{"responseCode":"0"'),
        ("not_json", "text/html", b"<html>"),
        ("mislabelled", "text/html", b'{"responseCode":"0"'),
    ],
)
async def test_a_spoilt_answer_comes_after_the_write(start, attendee, kind, content_type, begin) -> None:
    client = await start(faults=[Fault(kind=kind)])
    reply, text = await client.raw(json=attendee())
    assert (reply.status, reply.content_type, len(client.sandbox.store)) == (200, content_type, 1)
    assert text.startswith(begin)
    assert text.endswith(b"}") == (kind == "mislabelled")


@pytest.mark.parametrize("kind", ["huge", "bomb"])
@pytest.mark.parametrize("size", [0, 1_000, 200_000])
async def test_a_padded_answer_has_the_envelope_at_its_end(start, attendee, kind, size) -> None:
    client = await start(faults=[Fault(kind=kind, bytes=size)])
    reply, text = await client.raw(json=attendee())
    assert json.loads(text)["responseCode"] == "0"
    assert text[:size] == b" " * size
    assert text[size : size + 1] == b"{"
    assert reply.headers.get("Content-Encoding") == ("gzip" if kind == "bomb" else None)


async def test_a_bomb_is_small_on_the_wire(start, attendee) -> None:
    client = await start(faults=[Fault(kind="bomb", bytes=10_000_000)])
    async with aiohttp.ClientSession(client.sandbox.url, auto_decompress=False) as plain:
        headers = {"Authorization": f"Bearer {client.token}"}
        async with plain.post("/api/acme/v3/attendee/store", json=attendee(), headers=headers) as reply:
            assert len(await reply.read()) < 20_000


async def test_a_stale_connection_answers_once_and_stores_nothing_more(start, attendee) -> None:
    client = await start(faults=[Fault(kind="stale_connection", count=1)])
    assert (await client.store(attendee()))[0] == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.store(attendee("other@example.com"))
    assert [one.email for one in client.sandbox.store] == [EMAIL]
    assert next(iter(client.sandbox.requests)).fault == "stale_connection"
    assert (await client.store(attendee("other@example.com")))[0] == 200


async def test_latency_adds_up_and_the_write_comes_after_it(start, attendee) -> None:
    client = await start(latency_ms=250, faults=[Fault(kind="latency", seconds=1)])
    client.clock.gate = asyncio.Event()
    call = asyncio.create_task(client.store(attendee()))
    await client.clock.sleeping.wait()
    assert (client.clock.slept, len(client.sandbox.store)) == ([1.25], 0)
    client.clock.gate.set()
    assert (await call)[0] == 200


async def test_a_caller_that_left_is_stored_all_the_same(start, attendee) -> None:
    client = await start(latency_ms=1000)
    client.clock.gate = asyncio.Event()
    call = asyncio.create_task(client.store(attendee()))
    await client.clock.sleeping.wait()
    call.cancel()
    await asyncio.wait([call])
    client.clock.gate.set()
    assert call.cancelled()
    assert (await client.get("stats"))["attendees"] == 1


async def test_a_token_storm_revokes_again_and_again(start, attendee) -> None:
    client = await start(faults=[Fault(kind="token_storm", seconds=5)])
    assert (await client.store(attendee()))[0] == 401
    await client.fetch_token()
    assert (await client.store(attendee()))[0] == 200
    client.clock.now += 5
    assert (await client.store(attendee()))[0] == 401
    assert client.sandbox.requests.by_fault == {"token_storm": 2}


async def test_a_fault_of_the_token_endpoint_leaves_the_store_alone(start, attendee) -> None:
    client = await start()
    client.sandbox.set_faults([Fault(kind="status", status=503, path="token")])
    assert (await client.store(attendee()))[0] == 200
    async with client.session.post("/oidc/token", data={}) as reply:
        assert reply.status == 503
    client.sandbox.set_faults([Fault(kind="reset_after", path="any")])
    with pytest.raises(aiohttp.ClientOSError):
        await client.fetch_token()
    assert client.sandbox.tokens.issued == 2


async def test_a_fault_can_concern_one_attendee_only(start, attendee) -> None:
    client = await start(faults=[Fault(kind="html_500", email_sha256=KEY)])
    assert (await client.store(attendee("other@example.com")))[0] == 200
    assert (await client.raw(json=attendee(EMAIL.upper())))[0].status == 500


async def test_a_fault_can_concern_one_event_only(start, attendee) -> None:
    client = await start(faults=[Fault(kind="html_500", event="acme28")])
    assert (await client.store(attendee()))[0] == 200
    assert (await client.raw(json=attendee() | {"event": "acme28"}))[0].status == 500


async def test_an_error_code_for_one_attendee_refuses_only_its_record(start, attendee) -> None:
    client = await start(faults=[Fault(kind="error_code", code="27", email_sha256=KEY)])
    _, body = await client.store([attendee("other@example.com"), attendee()])
    assert [result["responseCode"] for result in body["results"]] == ["0", "27"]
    assert [one.email for one in client.sandbox.store] == ["other@example.com"]


async def test_a_count_and_a_time_end_a_fault(start, attendee) -> None:
    client = await start(faults=[Fault(kind="status", count=1), Fault(kind="html_500", for_seconds=60)])
    seen = [(await client.raw(json=attendee()))[0].status for _ in range(2)]
    client.clock.now += 60
    assert [*seen, (await client.store(attendee()))[0]] == [503, 500, 200]


async def test_faults_are_set_shown_and_cleared_at_run_time(start, attendee) -> None:
    client = await start()
    wanted = [{"kind": "status", "status": 503, "retry_after": "date", "for_seconds": 10}]
    async with client.session.put("/_sandbox/faults", json={"faults": wanted}) as reply:
        assert reply.status == 200
    await client.raw(json=attendee())
    client.clock.now += 4
    (shown,) = (await client.get("faults"))["faults"]
    assert shown == {**wanted[0], "for_seconds": 10.0, "hits": 1, "over": False, "seconds_left": 6.0}
    async with client.session.delete("/_sandbox/faults") as reply:
        assert await reply.json() == {"faults": []}
    assert (await client.store(attendee()))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"7",
        b'[{"kind":"sulk"}]',
        b'[{"kind":"status","probability":2}]',
        b'[{"kind":"status","colour":1}]',
        b'[{"kind":"huge","bytes":-1}]',
        b'[{"kind":"redirect","location":"a\\r\\nb"}]',
    ],
)
async def test_a_fault_that_is_none_changes_nothing(start, body) -> None:
    client = await start(faults=[Fault(kind="status")])
    async with client.session.put("/_sandbox/faults", data=body) as reply:
        assert reply.status == 400
        assert "error" in await reply.json()
    assert [fault["kind"] for fault in (await client.get("faults"))["faults"]] == ["status"]


def test_faults_come_from_a_toml_or_a_json_file(tmp_path) -> None:
    toml, plain = tmp_path / "faults.toml", tmp_path / "faults.json"
    toml.write_text('[[faults]]\nkind = "drip"\nseconds = 3\n')
    plain.write_text(json.dumps([{"kind": "latency"}]))
    assert Settings(faults_file=str(toml), faults=[Fault(kind="status")]).all_faults() == [
        Fault(kind="status"),
        Fault(kind="drip", seconds=3),
    ]
    assert Settings(faults_file=str(plain)).all_faults() == [Fault(kind="latency")]
    toml.write_text("faults = 3 3")
    with pytest.raises(ValueError, match="faults"):
        create_app(Settings(faults_file=str(toml)))


def test_a_flag_says_a_fault_in_one_word() -> None:
    assert parse_flag("kind=status,status=503,probability=0.2,retry_after=date") == Fault(
        kind="status", status=503, probability=0.2, retry_after="date"
    )
    assert parse_flag("kind=latency, seconds=2,") == Fault(kind="latency", seconds=2)
    for wrong in ("status=503", "kind=status,status=999", "kind=status,email_sha256=abc", "sulk"):
        with pytest.raises(ValueError, match="fault"):
            parse_flag(wrong)


def test_the_same_seed_draws_the_same_faults_and_a_further_fault_changes_none() -> None:
    first, second = FaultBook(3), FaultBook(3)
    coin = Fault(kind="html_500", probability=0.5)
    first.set([coin], 0.0)
    second.set([coin, Fault(kind="latency", probability=0.5)], 0.0)
    drawn = [bool(first.draw("store", (), 0.0)) for _ in range(200)]
    assert drawn == [any(fault.kind == "html_500" for fault in second.draw("store", (), 0.0)) for _ in range(200)]
    assert 60 < sum(drawn) < 140


def test_two_faults_of_one_chance_strike_independently() -> None:
    book = FaultBook(3)
    book.set([Fault(kind="html_500", probability=0.5), Fault(kind="latency", probability=0.5)], 0.0)
    assert {len(book.draw("store", (), 0.0)) for _ in range(100)} == {0, 1, 2}


def test_a_document_is_a_list_or_has_one() -> None:
    assert parse_document(b"[]") == parse_document(b"{}") == parse_document(b"", toml=True) == []
