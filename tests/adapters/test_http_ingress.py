"""The ingress behind a real aiohttp server, with an intake and a reader made up here."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from engine.adapters.api_keys import Keys
from engine.adapters.http_ingress import Access, Ingress, create_ingress_app
from engine.adapters.inflate import inflate
from engine.config import IngressConfig, IngressKeyConfig
from engine.errors import Overloaded, Stopped
from engine.metrics import Metrics
from engine.model import Append, Event, Lane, Rejection
from engine.profiles.formats import BodyUnreadable, Parsed, TooManyEvents

JSON = {"Content-Type": "application/json"}
GOOD = {"email": "lea@example.com"}


class FakeReader:
    """One JSON array; a record without "email" is rejected, a "phone" is dropped."""

    def __init__(self) -> None:
        self.media_types: list[str] = []

    def read(self, body: bytes, media_type: str) -> Parsed:
        self.media_types.append(media_type)
        try:
            records = json.loads(body)
        except ValueError:
            raise BodyUnreadable("not JSON", "line 1") from None
        if len(records) > 5:
            raise TooManyEvents(5)
        good = [i for i, record in enumerate(records) if "email" in record]
        rejected = [Rejection(i, "email", "missing") for i in range(len(records)) if i not in good]
        dropped = [Rejection(i, "phone", "not_a_phone") for i in good if "phone" in records[i]]
        events = [Event(hashlib.sha256(records[i]["email"].encode()).digest(), b"{}") for i in good]
        return Parsed(events, rejected, dropped, len(records), good)


class FakeIntake:
    def __init__(self) -> None:
        self.refused: Overloaded | None = None
        self.error: Exception | None = None
        self.appends: list[Append] = []
        self.owners: list[str] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0
        self.waited: list[float] = []

    def refusal(self) -> Overloaded | None:
        return self.refused

    async def accept(self, append: Append, /, *, owner: str = "") -> str:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        self.appends.append(append)
        self.owners.append(owner)
        return f"receipt-{len(self.appends)}"

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None:
        index = int(id.rpartition("-")[2]) if id.startswith("receipt-") else 0
        if not 0 < index <= len(self.owners) or self.owners[index - 1] != owner:
            return None
        return {"id": id, "state": "settled" if self.waited else "pending", "destinations": {"demo": {"pending": 0}}}

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool:
        self.waited.append(timeout_seconds)
        return True


class Bench:
    """One ingress, its fakes, and clients to it."""

    def __init__(self, config: IngressConfig, keys: Keys) -> None:
        self.intake, self.reader, self.metrics = FakeIntake(), FakeReader(), Metrics()
        self.reasons: list[str] = []
        self.keys = keys
        readers = {"default": (self.reader, Lane.LIVE), "crm": (self.reader, Lane.BACKFILL)}
        self.ingress = Ingress(
            config,
            readers,
            changes=self.reader,
            intake=lambda: self.intake,
            readiness=lambda: self.reasons,
            access=Access(keys),
            inflate=inflate,
            metrics=self.metrics,
            random=random.Random(1),
        )
        self.client: TestClient[web.Request, web.Application]

    async def post(self, records: Any, path: str = "/v1/profiles", **more: Any) -> ClientResponse:
        more.setdefault("headers", JSON)
        data = records if isinstance(records, bytes) else json.dumps(records).encode()
        return await self.client.post(path, data=data, **more)

    @property
    def port(self) -> int:
        assert self.client.port is not None
        return self.client.port


Make = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    clients: list[TestClient[web.Request, web.Application]] = []

    async def build(
        *keys: IngressKeyConfig,
        mount: str = "",
        ready: Callable[[web.Application], object] | None = None,
        unpack: bool = False,
        **settings: Any,
    ) -> Bench:
        bench = Bench(IngressConfig(**settings), Keys(keys, clock=lambda: 0.0))
        app = create_ingress_app(bench.ingress)
        if mount:
            outer = web.Application()
            outer.add_subapp(mount, app)
            app = outer
        server = TestServer(app)
        await server.start_server(auto_decompress=unpack)
        bench.client = TestClient(server, auto_decompress=False)
        clients.append(bench.client)
        return bench

    yield build
    for client in clients:
        await client.close()


def key(name: str, secret: str, **more: Any) -> IngressKeyConfig:
    return IngressKeyConfig(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), **more)


def bearer(secret: str) -> dict[str, str]:
    return {**JSON, "Authorization": f"Bearer {secret}"}


async def problem(answer: ClientResponse, status: int, type: str) -> dict[str, Any]:
    body = await answer.json(content_type=None)
    assert (answer.status, body.get("type")) == (status, type), body
    assert answer.content_type == "application/problem+json"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert "@" not in json.dumps(body)
    return dict(body)


async def raw(bench: Bench, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(request)
    await writer.drain()
    return reader, writer


def head_of_length(length: int) -> bytes:
    lines = ["POST /v1/profiles HTTP/1.1", "Host: localhost", *(f"{name}: {it}" for name, it in JSON.items())]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_events_are_accepted_with_a_receipt(make: Make) -> None:
    bench = await make()
    answer = await bench.post([GOOD, GOOD])
    assert answer.status == 202
    assert await answer.json() == {"accepted": 2, "rejected": [], "dropped": [], "receipt": "receipt-1"}
    assert answer.headers["Location"] == "/v1/receipts/receipt-1"
    (append,) = bench.intake.appends
    assert (len(append.events), append.source, append.lane) == (2, "default", Lane.LIVE)


async def test_a_bad_record_leaves_the_others_alone(make: Make) -> None:
    bench = await make()
    answer = await bench.post([{}, {**GOOD, "phone": "?"}])
    assert answer.status == 207
    body = await answer.json()
    assert body["accepted"] == 1
    assert body["rejected"] == [{"index": 0, "field": "email", "reason": "missing"}]
    assert body["dropped"] == [{"index": 1, "field": "phone", "reason": "not_a_phone"}]
    assert bench.metrics.events_rejected == {"missing": 1}
    assert bench.metrics.fields_dropped == {"not_a_phone": 1}
    assert bench.metrics.answers == {"207": 1}


async def test_when_all_are_bad_nothing_is_stored(make: Make) -> None:
    bench = await make()
    answer = await bench.post([{}])
    assert answer.status == 422
    assert (await answer.json())["receipt"] is None
    assert "Location" not in answer.headers
    assert bench.intake.appends == []


async def test_an_empty_list_is_no_error(make: Make) -> None:
    bench = await make()
    answer = await bench.post([])
    assert answer.status == 202
    assert await answer.json() == {"accepted": 0, "rejected": [], "dropped": [], "receipt": None}


async def test_a_body_that_cannot_be_read_says_where(make: Make) -> None:
    bench = await make()
    body = await problem(await bench.post(b"{"), 400, "unreadable-body")
    assert body["place"] == "line 1"


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)])
async def test_an_empty_body_is_an_error(make: Make, data: bytes) -> None:
    bench = await make()
    headers = {**JSON, "Content-Encoding": "gzip"} if data else JSON
    await problem(await bench.post(data, headers=headers), 400, "empty-body")


async def test_too_many_events_are_refused(make: Make) -> None:
    bench = await make()
    assert (await problem(await bench.post([GOOD] * 6), 413, "too-many-events"))["limit"] == 5


async def test_a_large_body_is_parsed_beside_the_loop(make: Make) -> None:
    bench = await make()
    answer = await bench.post([{**GOOD, "city": "x" * 400_000}])
    assert answer.status == 202


# -- media types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=UTF-8", "application/json"),
        ("application/vnd.adobe.xdm+json", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/jsonl", "application/x-ndjson"),
        ('text/csv; header=present; charset="utf-8"', "text/csv"),
    ],
)
async def test_media_types_that_are_understood(make: Make, given: str, understood: str) -> None:
    bench = await make()
    assert (await bench.post([GOOD], headers={"Content-Type": given})).status == 202
    assert bench.reader.media_types == [understood]


@pytest.mark.parametrize(
    "given",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/json; charset=latin-1",
        "text/html+json",
    ],
)
async def test_what_a_form_can_send_is_refused(make: Make, given: str) -> None:
    bench = await make()
    body = await problem(await bench.post([GOOD], headers={"Content-Type": given}), 415, "unsupported-media-type")
    assert "application/json" in body["supported"]
    assert bench.intake.appends == []


async def test_a_missing_media_type_is_refused(make: Make) -> None:
    bench = await make()
    answer = await bench.client.post("/v1/profiles", data=b"[]", skip_auto_headers=["Content-Type"])
    await problem(answer, 415, "unsupported-media-type")


# -- compression and limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unpack", [False, True], ids=["ours", "unpacked by the server"])
async def test_compressed_bodies_are_understood(make: Make, unpack: bool) -> None:
    bench = await make(unpack=unpack)
    answer = await bench.post(gzip.compress(b'[{"email": "a"}]'), headers={**JSON, "Content-Encoding": "gzip"})
    assert answer.status == 202


@pytest.mark.parametrize("unpack", [False, True], ids=["ours", "unpacked by the server"])
async def test_a_bomb_is_refused(make: Make, unpack: bool) -> None:
    bench = await make(unpack=unpack, max_decompressed_bytes=100_000)
    bomb = gzip.compress(b" " * 30_000_000)
    answer = await bench.post(bomb, headers={**JSON, "Content-Encoding": "gzip"})
    await problem(answer, 413, "body-too-large")
    assert bench.reader.media_types == []


async def test_a_damaged_compression_is_unreadable(make: Make) -> None:
    bench = await make()
    answer = await bench.post(b"[]", headers={**JSON, "Content-Encoding": "gzip"})
    await problem(answer, 400, "unreadable-body")


async def test_an_unknown_compression_is_refused_with_what_is_known(make: Make) -> None:
    bench = await make()
    answer = await bench.post(b"[]", headers={**JSON, "Content-Encoding": "br"})
    await problem(answer, 415, "unsupported-encoding")
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, zstd"


async def test_a_body_declared_too_large_is_refused_before_it_is_read(make: Make) -> None:
    bench = await make(max_body_bytes=1_000)
    head = head_of_length(1001)
    reader, writer = await raw(bench, head)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


async def test_a_body_that_turns_out_too_large_is_refused_while_it_is_read(make: Make) -> None:
    bench = await make(max_body_bytes=1_000)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100
            await asyncio.sleep(0)

    await problem(await bench.client.post("/v1/profiles", data=chunks(), headers=JSON), 413, "body-too-large")


async def test_a_slow_body_is_given_up(make: Make) -> None:
    bench = await make(body_timeout_seconds=0.05)
    head = head_of_length(50) + b"["
    reader, writer = await raw(bench, head)
    answer = await reader.readuntil(b"}")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"type":"body-timeout"' in answer


async def test_the_body_is_asked_for_only_when_it_is_wanted(make: Make) -> None:
    bench = await make(key("aep", "one"))
    head = (
        b"POST /v1/profiles HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\nExpect: 100-continue\r\n"
    )
    reader, writer = await raw(bench, head + b"\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401")
    writer.close()
    reader, writer = await raw(bench, head + b"X-API-Key: one\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"[]")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 202")
    writer.close()


async def test_a_caller_that_hangs_up_in_mid_body_is_no_fault(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = await make()
    head = head_of_length(50) + b"["
    _, writer = await raw(bench, head)
    writer.close()
    await writer.wait_closed()
    assert (await bench.post([GOOD])).status == 202
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


# -- refusals, time and cancellation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["journal-full", "disk-full", "draining", "busy", "something-new"])
async def test_a_refusal_comes_before_the_body_is_read(make: Make, type: str) -> None:
    bench = await make()
    bench.intake.refused = Overloaded(type, "not now", 10.0)
    head = head_of_length(50)
    reader, writer = await raw(bench, head)
    answer = await reader.readuntil(b"}")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 503")
    assert f'"type":"{type}"'.encode() in answer
    assert b"Retry-After: " in answer


async def test_a_refused_caller_that_sends_its_body_anyway_sees_the_answer(make: Make) -> None:
    bench = await make()
    bench.intake.refused = Overloaded("journal-full", "full", 10.0)
    answer = await bench.post(b" " * 900_000)
    await problem(answer, 503, "journal-full")


async def test_retry_after_is_whole_seconds_spread_around_what_was_asked(make: Make) -> None:
    bench = await make()
    bench.intake.refused = Overloaded("journal-full", "full", 100.0)
    seen = {int((await bench.post([GOOD])).headers["Retry-After"]) for _ in range(40)}
    assert len(seen) > 5
    assert min(seen) >= 80
    assert max(seen) <= 120


async def test_an_intake_that_fails_is_told_apart(make: Make) -> None:
    bench = await make()
    bench.intake.error = Overloaded("disk-full", "no space", 3.0)
    await problem(await bench.post([GOOD]), 503, "disk-full")
    bench.intake.error = Stopped("the engine has stopped")
    answer = await bench.post([GOOD])
    await problem(answer, 503, "not-running")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_an_unexpected_fault_says_nothing_of_what_was_sent(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = await make()
    bench.intake.error = ValueError("lea@example.com")
    await problem(await bench.post([GOOD]), 500, "server-error")
    assert "ValueError" in caplog.text
    assert "lea@" not in caplog.text


async def test_a_commit_that_is_late_is_answered_in_time_and_goes_on(make: Make) -> None:
    bench = await make(answer_timeout_seconds=0.05)
    bench.intake.gate.clear()
    answer = await bench.post([GOOD])
    body = await problem(answer, 503, "commit-timeout")
    assert "may still be" in body["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    bench.intake.gate.set()
    await bench.ingress.close()
    assert len(bench.intake.appends) == 1
    assert bench.intake.cancelled == 0


async def test_a_caller_that_hangs_up_in_mid_commit_loses_nothing(make: Make) -> None:
    bench = await make()
    bench.intake.gate.clear()
    body = b'[{"email": "a"}]'
    head = head_of_length(len(body))
    _, writer = await raw(bench, head + body)
    await bench.intake.entered.wait()
    writer.close()
    await writer.wait_closed()
    await bench.client.get("/livez")
    bench.intake.gate.set()
    await bench.ingress.close()
    assert (len(bench.intake.appends), bench.intake.cancelled) == (1, 0)


async def test_a_commit_that_fails_after_its_answer_fails_quietly(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = await make(answer_timeout_seconds=0.05)
    bench.intake.gate.clear()
    bench.intake.error = Stopped("gone")
    await problem(await bench.post([GOOD]), 503, "commit-timeout")
    bench.intake.gate.set()
    await bench.ingress.close()
    assert "never retrieved" not in caplog.text


# -- receipts and preferences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "seconds"), [("wait=3", 3), ("respond-async, wait=5", 5), ("WAIT = 7", 7), ("wait=99999", 60)]
)
async def test_who_prefers_to_wait_gets_the_state_too(make: Make, prefer: str, seconds: int) -> None:
    bench = await make()
    answer = await bench.post([GOOD], headers={**JSON, "Prefer": prefer})
    assert answer.status == 202
    body = await answer.json()
    assert (body["state"], body["destinations"], body["accepted"]) == ("settled", {"demo": {"pending": 0}}, 1)
    assert answer.headers["Preference-Applied"] == f"wait={seconds}"
    assert bench.intake.waited == [seconds]


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=soon", "await=3", "return=minimal"])
async def test_a_preference_that_is_not_understood_is_ignored(make: Make, prefer: str) -> None:
    bench = await make()
    answer = await bench.post([GOOD], headers={**JSON, "Prefer": prefer})
    assert answer.status == 202
    assert "Preference-Applied" not in answer.headers
    assert bench.intake.waited == []


async def test_a_receipt_can_be_asked_for(make: Make) -> None:
    bench = await make()
    location = (await bench.post([GOOD])).headers["Location"]
    answer = await bench.client.get(location)
    assert answer.status == 200
    assert (await answer.json())["state"] == "pending"


async def test_another_keys_receipt_is_not_found(make: Make) -> None:
    bench = await make(key("aep", "one"), key("crm", "two"))
    location = (await bench.post([GOOD], headers=bearer("one"))).headers["Location"]
    assert (await bench.client.get(location, headers=bearer("one"))).status == 200
    await problem(await bench.client.get(location, headers=bearer("two")), 404, "not-found")
    await problem(await bench.client.get("/v1/receipts/what", headers=bearer("one")), 404, "not-found")
    await problem(await bench.client.get(location), 401, "unauthorized")


async def test_a_stopped_engine_does_not_deny_its_receipts(make: Make) -> None:
    bench = await make()
    bench.intake.refused = Overloaded("draining", "stopping", 5.0)
    await problem(await bench.client.get("/v1/receipts/receipt-1"), 503, "draining")


async def test_below_another_application_the_addresses_follow(make: Make) -> None:
    bench = await make(mount="/ingest")
    answer = await bench.post([GOOD], "/ingest/v1/profiles")
    assert answer.headers["Location"] == "/ingest/v1/receipts/receipt-1"
    assert (await bench.client.get(answer.headers["Location"])).status == 200
    await problem(await bench.client.get("/ingest/what"), 404, "not-found")
    await problem(await bench.client.put("/ingest/v1/profiles"), 405, "method-not-allowed")


# -- who may ask ------------------------------------------------------------------------------------------------------


async def test_with_keys_a_key_with_the_scope_is_needed(make: Make) -> None:
    bench = await make(key("aep", "one"), key("ops", "two", scopes=("destinations:view",)))
    assert (await bench.post([GOOD], headers=bearer("one"))).status == 202
    assert (await bench.post([GOOD], headers={**JSON, "X-API-Key": "one"})).status == 202
    assert bench.intake.owners == ["aep", "aep"]
    missing = await bench.post([GOOD])
    await problem(missing, 401, "unauthorized")
    assert missing.headers["WWW-Authenticate"].startswith("Bearer")
    await problem(await bench.post([GOOD], headers=bearer("wrong")), 401, "unauthorized")
    refused = await bench.post([GOOD], headers=bearer("two"))
    await problem(refused, 403, "forbidden")
    assert 'scope="profiles:write"' in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8080"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": "192.168.0.7"},
        {"Forwarded": "for=192.0.2.60"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "localhost"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
    ],
    ids=lambda headers: "=".join(*headers.items()),
)
async def test_without_keys_only_this_machine_may_ask(make: Make, headers: dict[str, str]) -> None:
    bench = await make()
    body = await problem(await bench.post([GOOD], headers={**JSON, **headers}), 403, "not-local")
    assert "keys" in body["detail"]
    assert bench.intake.appends == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:8080", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:8080"])
async def test_every_name_of_this_machine_is_good(make: Make, host: str) -> None:
    bench = await make()
    assert (await bench.post([GOOD], headers={**JSON, "Host": host, "Origin": f"http://{host}"})).status == 202


async def test_with_keys_a_proxy_and_any_host_are_welcome(make: Make) -> None:
    bench = await make(key("aep", "one"))
    headers = {**bearer("one"), "Host": "events.example", "X-Forwarded-For": "192.0.2.60"}
    assert (await bench.post([GOOD], headers=headers)).status == 202


async def test_the_source_is_asked_for_or_the_keys_or_the_first(make: Make) -> None:
    bench = await make(key("any", "one"), key("bound", "two", source="crm"))
    await bench.post([GOOD], headers=bearer("one"))
    await bench.post([GOOD], "/v1/profiles?source=crm", headers=bearer("one"))
    await bench.post([GOOD], headers=bearer("two"))
    await bench.post([GOOD], "/v1/profiles?source=crm", headers=bearer("two"))
    assert [append.source for append in bench.intake.appends] == ["default", "crm", "crm", "crm"]
    refused = await bench.post([GOOD], "/v1/profiles?source=default", headers=bearer("two"))
    await problem(refused, 403, "forbidden")
    unknown = await bench.post([GOOD], "/v1/profiles?source=lea@example.com", headers=bearer("one"))
    assert "crm" in (await problem(unknown, 400, "bad-request"))["detail"]


async def test_the_lane_is_asked_for_or_the_sources(make: Make) -> None:
    bench = await make()
    for query in ("", "?source=crm", "?lane=backfill", "?source=crm&lane=live"):
        assert (await bench.post([GOOD], "/v1/profiles" + query)).status == 202
    assert [append.lane for append in bench.intake.appends] == [Lane.LIVE, Lane.BACKFILL, Lane.BACKFILL, Lane.LIVE]
    for query in ("?lane=replay", "?lane=LIVE", "?lane=0"):
        await problem(await bench.post([GOOD], "/v1/profiles" + query), 400, "bad-request")


async def test_a_quota_is_the_keys_own(make: Make) -> None:
    bench = await make(key("small", "one", max_events_per_second=2), key("other", "two"))
    assert (await bench.post([GOOD] * 3, headers=bearer("one"))).status == 202
    refused = await bench.post([GOOD], headers=bearer("one"))
    await problem(refused, 429, "quota")
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await bench.post([GOOD], headers=bearer("two"))).status == 202


async def test_events_that_were_not_stored_do_not_count_for_the_quota(make: Make) -> None:
    bench = await make(key("small", "one", max_events_per_second=2))
    bench.intake.error = Overloaded("disk-full", "no space", 3.0)
    await problem(await bench.post([GOOD] * 2, headers=bearer("one")), 503, "disk-full")
    bench.intake.error = None
    assert (await bench.post([GOOD] * 2, headers=bearer("one"))).status == 202


# -- probes and the rest ----------------------------------------------------------------------------------------------


async def test_probes_answer_everybody_and_give_reasons_to_those_who_may_ask(make: Make) -> None:
    bench = await make(key("aep", "one"))
    assert (await bench.client.get("/livez")).status == 200
    ready = await bench.client.get("/readyz")
    assert (ready.status, await ready.json()) == (200, {"ready": True})
    bench.reasons.append("journal-full")
    silent = await bench.client.get("/readyz")
    assert (silent.status, await silent.json()) == (503, {"ready": False})
    told = await bench.client.get("/readyz", headers=bearer("one"))
    assert await told.json() == {"ready": False, "reasons": ["journal-full"]}


async def test_without_keys_reasons_stay_on_this_machine(make: Make) -> None:
    bench = await make()
    bench.reasons.append("draining")
    assert (await (await bench.client.get("/readyz")).json())["reasons"] == ["draining"]
    evil = await bench.client.get("/readyz", headers={"Host": "evil.example"})
    assert (evil.status, await evil.json()) == (503, {"ready": False})


async def test_every_answer_carries_the_security_headers_and_no_version(make: Make) -> None:
    bench = await make()
    for answer in (await bench.post([GOOD]), await bench.client.get("/what"), await bench.client.get("/livez")):
        assert answer.headers["Server"] == "rainfocus-engine"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_other_addresses_and_methods_are_problems_too(make: Make) -> None:
    bench = await make()
    await problem(await bench.client.get("/what"), 404, "not-found")
    refused = await bench.client.get("/v1/profiles")
    await problem(refused, 405, "method-not-allowed")
    assert refused.headers["Allow"] == "POST"


async def test_answers_and_their_time_are_counted(make: Make) -> None:
    bench = await make()
    await bench.post([GOOD])
    await bench.post(b"{")
    await bench.post([GOOD], headers={"Content-Type": "text/plain"})
    assert bench.metrics.answers == {"202": 1, "400": 1, "415": 1}
    assert sum(bench.metrics.ack_seconds.counts) == 2


# -- what RainFocus pushes --------------------------------------------------------------------------------------------

CHANGES = "/v1/sources/rainfocus"


async def test_changes_are_answered_like_events(make: Make) -> None:
    bench = await make()
    answer = await bench.post([GOOD, {}], CHANGES)
    assert answer.status == 207
    assert await answer.json() == {
        "accepted": 1,
        "rejected": [{"index": 1, "field": "email", "reason": "missing"}],
        "dropped": [],
        "receipt": "receipt-1",
    }
    assert answer.headers["Location"] == "/v1/receipts/receipt-1"
    assert (await bench.post([{}], CHANGES)).status == 422


async def test_changes_have_no_source_so_that_every_destination_hears_of_them(make: Make) -> None:
    bench = await make()
    await bench.post([GOOD], f"{CHANGES}?source=crm&lane=backfill")
    assert [(append.source, append.lane) for append in bench.intake.appends] == [("", Lane.LIVE)]


async def test_changes_do_not_come_as_csv(make: Make) -> None:
    bench = await make()
    answer = await bench.post(b"email\na@example.com\n", CHANGES, headers={"Content-Type": "text/csv"})
    await problem(answer, 415, "unsupported-media-type")


async def test_changes_are_refused_as_events_are(make: Make) -> None:
    bench = await make()
    bench.intake.refused = Overloaded("journal-full", "no room", 7.0)
    answer = await bench.post([GOOD], CHANGES)
    await problem(answer, 503, "journal-full")
    assert bench.intake.appends == []


async def test_who_may_speak_for_rainfocus(make: Make) -> None:
    """A key of the source "rainfocus", or of none; and the former may do nothing else."""
    bench = await make(key("rf", "rf", source="rainfocus"), key("crm", "crm", source="crm"), key("any", "any"))
    statuses = {name: (await bench.post([GOOD], CHANGES, headers=bearer(name))).status for name in ("rf", "crm", "any")}
    assert statuses == {"rf": 202, "crm": 403, "any": 202}
    refused = await bench.post([GOOD], headers=bearer("rf"))
    assert "may only write to /v1/sources/rainfocus" in (await problem(refused, 403, "forbidden"))["detail"]
    refused = await bench.post([GOOD], "/v1/profiles?source=crm", headers=bearer("rf"))
    await problem(refused, 403, "forbidden")
    await problem(await bench.post([GOOD], CHANGES), 401, "unauthorized")
    some = await make(key("some", "some", destinations=("demo",)))
    refused = await some.post([GOOD], CHANGES, headers=bearer("some"))
    assert "concerns every destination" in (await problem(refused, 403, "forbidden"))["detail"]
