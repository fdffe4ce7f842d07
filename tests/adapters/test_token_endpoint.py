"""`POST /oauth/token` over real HTTP: RFC 6749 as AEP speaks it, and those who try something else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from engine import Config, Engine
from engine.adapters.api_keys import Keys
from engine.adapters.http_ingress import Access, Denials, create_ingress_app
from engine.config import IngressClientConfig
from engine.testing.destination import FakeDestination

ID, SECRET = "aep", "s3cret of it: 100% +ok"
FORM = "application/x-www-form-urlencoded"
GRANT = {"grant_type": "client_credentials"}
POSTED = GRANT | {"client_id": ID, "client_secret": SECRET}
LEA = {"email": "lea@example.com", "city": "Lille"}


def basic(client_id: str, secret: str, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {base64.b64encode(f'{client_id}:{secret}'.encode()).decode()}"}


class HandClock:
    now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A running engine, its ingress on a real server, and a clock for tokens that moves by hand."""

    def __init__(self, engine: Engine, client: TestClient[web.Request, web.Application], clock: HandClock) -> None:
        self.engine, self.client, self.clock = engine, client, clock

    async def ask(self, form: Any = POSTED, *, path: str = "/oauth/token", **more: Any) -> ClientResponse:
        """`form`: fields, pairs, or bytes as they are."""
        data = form if isinstance(form, bytes) else urlencode(form).encode()
        headers = {"Content-Type": FORM} | more.pop("headers", {})
        return await self.client.post(path, data=data, headers=headers, **more)

    async def token(self, form: Any = POSTED, **more: Any) -> str:
        answer = await self.ask(form, **more)
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["access_token"])

    async def post(self, token: str, *events: dict[str, Any]) -> ClientResponse:
        return await self.client.post("/v1/profiles", json=[*events], headers={"Authorization": f"Bearer {token}"})


Make = Callable[..., Awaitable[Bench]]


def client(name: str = ID, secret: str = SECRET, **more: Any) -> IngressClientConfig:
    return IngressClientConfig(**({"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest()} | more))


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    opened: list[Any] = []

    async def build(*clients: IngressClientConfig, **ingress: Any) -> Bench:
        config = Config.from_dict({"journal": {"kind": "memory"}, "ingress": ingress}, base=tmp_path)
        engine = Engine(config, destinations={"demo": FakeDestination()})
        await engine.__aenter__()
        clock = HandClock()
        keys = Keys((), clients or (client(),), time=clock, clock=clock)
        access = Access(keys, Denials(engine.metrics, clock=clock))
        server = TestServer(create_ingress_app(engine.ingress(access)))
        await server.start_server(auto_decompress=False)
        http: TestClient[web.Request, web.Application] = TestClient(server)
        opened.extend([http, engine])
        return Bench(engine, http, clock)

    yield build
    for it in opened[::2]:
        await it.close()
    for it in opened[1::2]:
        await it.__aexit__()


async def refused(answer: ClientResponse, status: int, error: str) -> dict[str, str]:
    """RFC 6749, 5.2; nothing of what was sent comes back."""
    text = await answer.text()
    body = json.loads(text)
    assert (answer.status, body["error"]) == (status, error), body
    assert answer.content_type == "application/json"
    assert {*body} == {"error", "error_description"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert not [it for it in (SECRET, "gu3ss", "mallory") if it in text]
    return dict(body)


# -- as it should be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "more"),
    [
        (POSTED, {}),
        (GRANT, {"headers": basic(ID, SECRET)}),
        (GRANT | {"client_id": ID}, {"headers": basic(ID, SECRET)}),
        (GRANT, {"headers": basic(ID, quote(SECRET, safe=""))}),
        (GRANT, {"headers": basic(ID, SECRET, "basic")}),
        (POSTED, {"headers": {"Content-Type": f"{FORM}; charset=UTF-8"}}),
        (POSTED | {"scope": "", "resource": "x"}, {"path": "/oauth/token?tenant=1"}),
    ],
    ids=["form", "basic", "basic and id", "basic, encoded", "lower case", "charset", "more that is ignored"],
)
async def test_id_and_secret_are_exchanged_for_a_token(make: Make, form: Any, more: Any) -> None:
    bench = await make(client(token_seconds=3_600, scopes=("profiles:write", "profiles:view")))
    answer = await bench.ask(form, **more)
    body = await answer.json()
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    token = body.pop("access_token")
    assert body == {"token_type": "Bearer", "expires_in": 3_600, "scope": "profiles:write profiles:view"}
    assert (await bench.post(token, LEA)).status == 202


async def test_as_aep_does_it(make: Make) -> None:
    """Fetch a token, send batches under it; when it has ended be refused, fetch another, and go on."""
    bench = await make(client(token_seconds=86_400))
    token = await bench.token(GRANT, headers=basic(ID, SECRET))
    answer = await bench.post(token, LEA, {"email": "tom@example.com"})
    assert (answer.status, (await answer.json())["accepted"]) == (202, 2)
    bench.clock.now += 86_400 + 61
    ended = await bench.post(token, LEA)
    assert (ended.status, (await ended.json()).get("type")) == (401, "unauthorized")
    assert 'error="invalid_token"' in ended.headers["WWW-Authenticate"]
    assert "/oauth/token" in (await ended.json())["detail"]
    another = await bench.token(GRANT, headers=basic(ID, SECRET))
    assert another != token
    answer = await bench.post(another, LEA)
    receipt = (await answer.json())["receipt"]
    assert answer.status == 202
    shown = await bench.client.get(f"/v1/receipts/{receipt}", headers={"Authorization": f"Bearer {another}"})
    assert shown.status == 200
    assert bench.engine.metrics.denied == {"expired_token": 1}


async def test_a_narrowed_token_may_do_no_more_than_it_asked_for(make: Make) -> None:
    bench = await make(client(scopes=("profiles:write", "profiles:view")))
    answer = await bench.ask(POSTED | {"scope": "profiles:view"})
    assert (await answer.json())["scope"] == "profiles:view"
    refusal = await bench.post((await answer.json())["access_token"], LEA)
    assert (refusal.status, (await refusal.json()).get("type")) == (403, "forbidden")
    assert 'scope="profiles:write"' in refusal.headers["WWW-Authenticate"]


# -- as it should not be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grant", ["password", "authorization_code", "refresh_token", "CLIENT_CREDENTIALS", "mallory"])
async def test_another_grant_is_not_supported(make: Make, grant: str) -> None:
    bench = await make()
    await refused(await bench.ask(POSTED | {"grant_type": grant}), 400, "unsupported_grant_type")


@pytest.mark.parametrize(
    "scope", ["profiles:erase", "profiles:write profiles:erase", "mallory", "profiles:write  x", " "]
)
async def test_a_scope_that_the_client_does_not_have_is_invalid(make: Make, scope: str) -> None:
    bench = await make()
    await refused(await bench.ask(POSTED | {"scope": scope}), 400, "invalid_scope")
    assert bench.engine.metrics.denied == {"client_scope": 1}


PAIRS = [*POSTED.items()]


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"\xff=1",
        b"grant_type=%ff",
        {key: value for key, value in POSTED.items() if key != "grant_type"},
        POSTED | {"grant_type": ""},
        [*PAIRS, ("grant_type", "client_credentials")],
        [*PAIRS, ("client_secret", "gu3ss")],
        [*PAIRS, ("scope", ""), ("scope", "profiles:write")],
        [*PAIRS, ("other", "1"), ("other", "2")],
        [*PAIRS, *((f"p{number}", "1") for number in range(40))],
        b"{}",
    ],
    ids=[
        *("empty", "not UTF-8", "not UTF-8 inside", "no grant", "empty grant", "grant twice", "secret twice"),
        *("scope twice", "anything twice", "very many", "JSON"),
    ],
)
async def test_a_request_that_is_not_well_formed_is_invalid(make: Make, form: Any) -> None:
    bench = await make()
    await refused(await bench.ask(form), 400, "invalid_request")
    assert bench.engine.metrics.denied == {}


@pytest.mark.parametrize("form", [POSTED, GRANT | {"client_secret": SECRET}, GRANT | {"client_id": "mallory"}])
async def test_a_client_authenticates_once(make: Make, form: Any) -> None:
    """Also when both are right."""
    bench = await make()
    await refused(await bench.ask(form, headers=basic(ID, SECRET)), 400, "invalid_request")


@pytest.mark.parametrize("name", ["client_secret", "client_id", "grant_type", "scope"])
async def test_nothing_of_it_stands_in_the_url(make: Make, name: str) -> None:
    bench = await make()
    form = {key: value for key, value in POSTED.items() if key != name}
    answer = await bench.ask(form, path=f"/oauth/token?{urlencode({name: POSTED.get(name, 'x')})}")
    await refused(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    ("form", "authorization"),
    [
        (POSTED | {"client_secret": "gu3ss"}, None),
        (POSTED | {"client_id": "mallory"}, None),
        (POSTED | {"client_id": ID.upper()}, None),
        (POSTED | {"client_secret": SECRET + " "}, None),
        (GRANT, None),
        (GRANT | {"client_id": ID}, None),
        (POSTED | {"client_secret": ""}, None),
        (GRANT, "Bearer gu3ss"),
        (GRANT, "Basic"),
        (GRANT, "Basic !!!!"),
        (GRANT, "Basic " + base64.b64encode(b"\xff\xfe:x").decode()),
        (GRANT, "Basic " + base64.b64encode(ID.encode()).decode()),
        (GRANT, "Basic " + base64.b64encode(f":{SECRET}".encode()).decode()),
        (GRANT, "Basic " + base64.b64encode(b"mallory:gu3ss").decode()),
        (GRANT, "Basic " + base64.b64encode(f"{ID}:gu3ss".encode()).decode()),
    ],
)
async def test_whoever_is_not_a_client_hears_the_same(make: Make, form: Any, authorization: str | None) -> None:
    bench = await make()
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await bench.ask(form, headers=headers)
    await refused(answer, 401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert bench.engine.metrics.denied == {"client_secret": 1}


async def test_an_unknown_id_and_a_wrong_secret_cannot_be_told_apart(make: Make) -> None:
    bench = await make()
    answers = [await bench.ask(POSTED | it) for it in ({"client_secret": "gu3ss"}, {"client_id": "mallory"})]
    bodies = [(it.status, await it.text(), {**it.headers, "Date": ""}) for it in answers]
    assert bodies[0] == bodies[1]


async def test_guesses_are_slowed_down_and_the_owner_is_not_locked_out(make: Make) -> None:
    bench = await make(client(), client("other", "another secret of 20"))
    for _ in range(10):
        await refused(await bench.ask(POSTED | {"client_secret": "gu3ss"}), 401, "invalid_client")
    answer = await bench.ask(POSTED | {"client_secret": "gu3ss"})
    await refused(answer, 429, "invalid_client")
    assert 4 <= int(answer.headers["Retry-After"]) <= 8
    assert (await bench.post(await bench.token(), LEA)).status == 202
    await refused(await bench.ask(POSTED | {"client_id": "other"}), 401, "invalid_client")
    bench.clock.now += 6.0
    await refused(await bench.ask(POSTED | {"client_secret": "gu3ss"}), 401, "invalid_client")


# -- what is not about OAuth ------------------------------------------------------------------------------------------


async def problem(answer: ClientResponse, status: int, type: str) -> None:
    body = await answer.json(content_type=None)
    assert (answer.status, body["type"]) == (status, type), body
    assert answer.content_type == "application/problem+json"
    assert SECRET not in json.dumps(body)


@pytest.mark.parametrize("given", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_only_a_form_is_taken(make: Make, given: str) -> None:
    bench = await make()
    await problem(await bench.ask(POSTED, headers={"Content-Type": given}), 415, "unsupported-media-type")


async def test_a_compressed_form_is_refused(make: Make) -> None:
    bench = await make()
    await problem(await bench.ask(POSTED, headers={"Content-Encoding": "gzip"}), 415, "unsupported-encoding")


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(make: Make) -> None:
    bench = await make()
    await problem(await bench.ask(POSTED | {"x": "y" * 8_192}), 413, "body-too-large")
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.client.port)
    head = (
        f"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(head.encode() + (b"1000\r\n" + b"a" * 4_096 + b"\r\n") * 3)  # and more would come
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_body_that_does_not_come_is_given_up(make: Make) -> None:
    bench = await make(body_timeout_seconds=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.client.port)
    head = f"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 50\r\n\r\ngrant"
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
    writer.close()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1"])
async def test_a_page_gets_no_token_and_cannot_try_secrets(make: Make, origin: str) -> None:
    """A form is what a page of a stranger can send without asking first."""
    bench = await make()
    await problem(await bench.ask(headers={"Origin": origin}), 403, "forbidden")
    assert bench.engine.metrics.denied == {"from_a_page": 1}


async def test_other_methods_are_refused(make: Make) -> None:
    bench = await make()
    for method in ("GET", "PUT", "OPTIONS"):
        await problem(await bench.client.request(method, "/oauth/token"), 405, "method-not-allowed")


async def test_without_clients_there_are_no_tokens_and_strangers_get_no_answer(make: Make, tmp_path: Path) -> None:
    bench = await make()
    server = TestServer(create_ingress_app(bench.engine.ingress(Access(Keys()))))
    async with TestClient(server) as http:
        data, headers = urlencode(POSTED).encode(), {"Content-Type": FORM}
        await refused(await http.post("/oauth/token", data=data, headers=headers), 401, "invalid_client")
        stranger = headers | {"Host": "evil.example"}
        await problem(await http.post("/oauth/token", data=data, headers=stranger), 403, "not-local")


async def test_below_a_program_that_embeds_the_engine_tokens_work_too(tmp_path: Path) -> None:
    tables = {"ingress": {"clients": [{"name": ID, "sha256": hashlib.sha256(SECRET.encode()).hexdigest()}]}}
    engine = Engine(Config.from_dict(tables, base=tmp_path), destinations={"demo": FakeDestination()})
    app = web.Application()
    app.add_subapp("/ingest", engine.ingress_app())
    async with TestClient(TestServer(app)) as http:
        data, headers = urlencode(POSTED).encode(), {"Content-Type": FORM}
        await problem(await http.post("/ingest/oauth/token", data=data, headers=headers), 503, "not-running")
        async with engine:
            answer = await http.post("/ingest/oauth/token", data=data, headers=headers)
            token = (await answer.json())["access_token"]
            assert (tmp_path / "var" / "token.key").stat().st_mode & 0o777 == 0o600
            authorization = {"Authorization": f"Bearer {token}"}
            assert (await http.post("/ingest/v1/profiles", json=LEA, headers=authorization)).status == 202


async def test_neither_secret_nor_token_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bench = await make()
    token = await bench.token()
    await bench.token(GRANT, headers=basic(ID, SECRET))
    await bench.ask(POSTED | {"client_secret": "gu3ss-of-mine"})
    await bench.ask(POSTED | {"client_id": "mallory@example.com"})
    await bench.post(token[:-1] + "~", LEA)
    bench.clock.now += 90_000
    await bench.post(token, LEA)
    said = "\n".join(str(vars(it)) for it in caplog.records if it.name.startswith("engine"))
    assert "a token was issued" in said
    assert "'reason': 'client_secret'" in said
    hidden = (SECRET, quote(SECRET), "gu3ss-of-mine", "mallory", token, token[:30], token.rpartition(".")[2])
    assert not [it for it in hidden if it in said]
