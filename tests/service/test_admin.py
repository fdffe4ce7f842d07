"""The admin API behind a real aiohttp server, with a control made up here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from engine.adapters.api_keys import Keys
from engine.adapters.http_ingress import Access, Ingress
from engine.adapters.inflate import inflate
from engine.config import IngressConfig, IngressKeyConfig, effective
from engine.config.access import NEEDED
from engine.core.exports import row_of_entry
from engine.errors import NoSpace, Overloaded, Stopped, StorageFailed
from engine.history import OutcomeFilter, RunFilter
from engine.metrics import Metrics
from engine.model import HeldKind, LedgerEntry, LetterState
from engine.ports import LetterFilter
from engine.profiles.changes import ChangeReader
from engine.service import create_admin_app, create_service_app, document
from engine.service.openapi import SCOPES
from engine.service.operations import ADMIN, INGRESS

EMAIL = "lea@example.com"
KEY = hashlib.sha256(EMAIL.encode()).hexdigest()


class FakeControl:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.paused: set[str] = set()
        self.error: Exception | None = None

    def _call(self, *call: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(call)

    def readiness(self) -> list[str]:
        return []

    def status(self) -> dict[str, object]:
        self._call("status")
        return {"ready": True, "destinations": self.destinations()}

    def destinations(self) -> list[dict[str, object]]:
        return [
            {"name": name, "state": "paused" if name in self.paused else "active", "counts": {"pending": 1}}
            for name in ("demo", "other")
        ]

    async def test_destination(self, name: str, /, *, store_email: str | None = None) -> dict[str, object]:
        self._call("test", name, store_email)
        return {"ok": True, "steps": []}

    async def pause(self, name: str, /) -> None:
        self._call("pause", name)
        self.paused.add(name)

    async def resume(self, name: str, /) -> None:
        self._call("resume", name)
        self.paused.discard(name)

    async def lookup(self, key: bytes, /) -> dict[str, object]:
        self._call("lookup", key)
        return {"key": key.hex(), "destinations": {"demo": {"state": "settled", "outcome": "delivered"}}}

    async def traces(self, key: bytes, texts: Any, /, **how: Any) -> dict[str, object]:
        self._call("traces", key.hex(), texts, how)
        return {"key": key.hex(), "done": True, "waiting_for": [], "ok": True, "found": 0, "files": []}

    async def forget(self, key: bytes, /) -> dict[str, object]:
        self._call("forget", key)
        return {"key": key.hex(), "offset": 7}

    async def letters(
        self, which: LetterFilter, limit: int, /, *, after: int = 0, with_content: bool = False
    ) -> dict[str, object]:
        self._call("letters", which, limit, after, with_content)
        return {"letters": [], "next": None, "total": 0}

    async def replay(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        self._call("replay", which, dry_run)
        return {"matched": 2, "replayed": 0 if dry_run else 2}

    async def purge(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        self._call("purge", which, dry_run)
        return {"matched": 2, "purged": 0 if dry_run else 2}

    async def audit(self) -> dict[str, object]:
        self._call("audit")
        return {"ok": True, "destinations": {}, "problems": []}

    async def runs(self, which: RunFilter, limit: int, /, *, cursor: str = "", flow: bool = False) -> dict[str, object]:
        self._call("runs", which, limit, cursor, flow)
        if cursor == "bad":
            raise ValueError
        return {"runs": [], "next": None}

    async def outcomes(self, which: OutcomeFilter, /) -> AsyncIterator[list[dict[str, object]]]:
        self._call("outcomes", which)
        for number in range(3):
            yield [row_of_entry(which.consumer, LedgerEntry(bytes([number]) * 32, "delivered", "", 1, at=1.5))] * number

    def alerts(self) -> dict[str, object]:
        self._call("alerts")
        return {"alerts": [], "targets": []}

    async def test_notification(self, target: str, /) -> dict[str, object]:
        self._call("test_notification", target)
        if target != "oncall":
            raise KeyError(target)
        return {"target": target, "ok": True, "result": "ok", "seconds": 0.0}

    async def backup(self, directory: Path, /) -> dict[str, object]:
        self._call("backup", directory)
        return {"files": ["journal.db", "state.db"], "bytes": 2}

    def metrics(self) -> bytes:
        self._call("metrics")
        return b"engine_events_accepted_total 1\n"


Client = TestClient[web.Request, web.Application]
Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def serve(control: FakeControl) -> AsyncIterator[Serve]:
    clients: list[Client] = []

    async def start(*keys: IngressKeyConfig, app: web.Application | None = None) -> Client:
        client: Client = TestClient(TestServer(app or create_admin_app(lambda: control, Access(Keys(keys)))))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


def key(name: str, *scopes: Any) -> IngressKeyConfig:
    return IngressKeyConfig(name=name, sha256=hashlib.sha256(name.encode()).hexdigest(), scopes=scopes)


async def problem(answer: ClientResponse, status: int, type: str) -> dict[str, Any]:
    body = await answer.json(content_type=None)
    assert (answer.status, body.get("type")) == (status, type), body
    assert answer.content_type == "application/problem+json"
    assert "@" not in json.dumps(body)
    return dict(body)


def service_app(control: FakeControl) -> web.Application:
    access = Access(Keys())
    ingress = Ingress(
        IngressConfig(),
        {},
        changes=ChangeReader(max_events=1),
        intake=lambda: pytest.fail("no events here"),
        readiness=list,
        access=access,
        inflate=inflate,
        metrics=Metrics(),
    )
    return create_service_app(ingress, lambda: control, access)


# -- profiles ---------------------------------------------------------------------------------------------------------


async def test_a_person_is_found_by_address_or_by_key(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    by_email = await client.post("/v1/profiles/lookup", json={"email": EMAIL.upper()})
    by_key = await client.get(f"/v1/profiles/{KEY}")
    assert await by_email.json() == await by_key.json()
    assert control.calls == [("lookup", bytes.fromhex(KEY))] * 2


@pytest.mark.parametrize("text", [EMAIL, "0" * 63, "0" * 65, "g" * 64, "lookup"])
async def test_an_address_in_a_url_is_refused(serve: Serve, control: FakeControl, text: str) -> None:
    client = await serve()
    for answer in (await client.get(f"/v1/profiles/{text}"), await client.delete(f"/v1/profiles/{text}")):
        if text != "lookup" or answer.status != 405:
            assert "POST /v1/profiles/lookup" in (await problem(answer, 400, "bad-request"))["detail"]
    assert control.calls == []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"email": 1}', b'{"email": "nobody"}', b'{"email": "a@b.example", "x": 1}', b"[", b'"x@y.z"']
)
async def test_a_lookup_needs_an_address(serve: Serve, control: FakeControl, body: bytes) -> None:
    client = await serve()
    answer = await client.post("/v1/profiles/lookup", data=body, headers={"Content-Type": "application/json"})
    await problem(answer, 400, "bad-request")
    assert control.calls == []


async def test_forgetting_is_accepted_not_done(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    answer = await client.delete(f"/v1/profiles/{KEY}")
    assert (answer.status, await answer.json()) == (202, {"key": KEY, "offset": 7})


async def test_traces_are_searched_for_by_body_and_never_by_url(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    body = {"email": "Lea@Example.com", "values": ["+33320000000"], "offset": 7, "wait_seconds": 20}
    answer = await client.post("/v1/profiles/traces", json=body)
    assert (answer.status, (await answer.json())["ok"]) == (200, True)
    ((name, _, texts, how),) = control.calls
    assert (name, texts, how) == (
        "traces",
        ["Lea@Example.com", "+33320000000"],
        {"offset": 7, "wait_seconds": 20.0},
    )


@pytest.mark.parametrize("more", [{"values": ["59"]}, {"wait_seconds": 21}, {"values": "all"}, {"key": "0"}])
async def test_what_cannot_be_searched_for_is_refused(serve: Serve, control: FakeControl, more: dict[str, Any]) -> None:
    client = await serve()
    answer = await client.post("/v1/profiles/traces", json={"email": "lea@example.com"} | more)
    await problem(answer, 400, "bad-request")
    assert control.calls == []


# -- destinations -----------------------------------------------------------------------------------------------------


async def test_destinations_are_listed_and_shown(serve: Serve) -> None:
    client = await serve()
    listed = await (await client.get("/v1/destinations")).json()
    assert [it["name"] for it in listed["destinations"]] == ["demo", "other"]
    assert (await (await client.get("/v1/destinations/demo")).json())["name"] == "demo"


async def test_pausing_and_resuming_answer_with_the_new_state(serve: Serve) -> None:
    client = await serve()
    assert (await (await client.post("/v1/destinations/demo/pause")).json())["state"] == "paused"
    assert (await (await client.post("/v1/destinations/demo/resume", json={})).json())["state"] == "active"


async def test_an_unknown_destination_is_not_found_whatever_is_asked(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    for order in ("test", "pause", "resume"):
        await problem(await client.post(f"/v1/destinations/what/{order}"), 404, "not-found")
    await problem(await client.get("/v1/destinations/what"), 404, "not-found")
    await problem(await client.get("/v1/dead-letters?destination=what"), 404, "not-found")
    assert control.calls == []


async def test_a_key_error_inside_is_no_unknown_destination(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    control.error = KeyError("inside")
    await problem(await client.post("/v1/destinations/demo/pause"), 500, "server-error")


async def test_a_test_writes_only_the_attendee_it_was_told(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    await client.post("/v1/destinations/demo/test")
    await client.post("/v1/destinations/demo/test", json={"store_email": EMAIL})
    await problem(await client.post("/v1/destinations/demo/test", json={"store_email": "x"}), 400, "bad-request")
    assert control.calls == [("test", "demo", None), ("test", "demo", EMAIL)]


@pytest.mark.parametrize("given", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
async def test_what_a_form_can_send_gives_no_orders(serve: Serve, control: FakeControl, given: str) -> None:
    client = await serve()
    for path in ("destinations/demo/pause", "dead-letters/replay", "profiles/lookup", "backup"):
        for data in (b"", b"{}"):
            answer = await client.post(f"/v1/{path}", data=data, headers={"Content-Type": given})
            await problem(answer, 415, "unsupported-media-type")
    assert control.calls == []


# -- dead letters -----------------------------------------------------------------------------------------------------

EVERYTHING = LetterFilter(
    consumer="demo",
    ids=(1, 2),
    kind=HeldKind.DEAD,
    reason="http_400",
    key=bytes.fromhex(KEY),
    state=None,
    since=1_700_000_000.5,
    until=1_767_225_600.0,
)


async def test_dead_letters_are_filtered_and_paged(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    query = {"destination": "demo", "ids": "1,2", "class": "dead_lettered", "reason": "http_400", "key": KEY}
    query |= {"state": "all", "since": "1700000000.5", "until": "2026-01-01T00:00:00Z", "limit": "7", "after": "40"}
    assert (await client.get("/v1/dead-letters", params=query)).status == 200
    await client.get("/v1/dead-letters")
    assert control.calls == [("letters", EVERYTHING, 7, 40, False), ("letters", LetterFilter(), 100, 0, False)]


async def test_replay_takes_its_conditions_from_query_or_body(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    body = {"destination": "demo", "class": "expired", "id": "3,4", "dry_run": True}
    assert await (await client.post("/v1/dead-letters/replay", json=body)).json() == {"matched": 2, "replayed": 0}
    await client.post("/v1/dead-letters/replay?destination=demo", json={"ids": [3, 4], "since": 5})
    assert control.calls == [
        ("replay", LetterFilter(consumer="demo", kind=HeldKind.EXPIRED, ids=(3, 4)), True),
        ("replay", LetterFilter(consumer="demo", ids=(3, 4), since=5.0), False),
    ]
    twice = await client.post("/v1/dead-letters/replay?reason=a", json={"reason": "b"})
    await problem(twice, 400, "bad-request")


async def test_only_kept_letters_are_replayed(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    for state in ("all", "replayed", "purged"):
        await problem(await client.post("/v1/dead-letters/replay", json={"state": state}), 400, "bad-request")
    assert control.calls == []


async def test_purging_asks_by_query(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    await client.delete("/v1/dead-letters?reason=x&dry_run=true")
    await client.delete("/v1/dead-letters?state=replayed")
    assert control.calls == [
        ("purge", LetterFilter(reason="x"), True),
        ("purge", LetterFilter(state=LetterState.REPLAYED), False),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "reasn=x",
        "email=lea@example.com",
        "class=waiting",
        "class=lea@example.com",
        "state=new",
        "since=yesterday",
        "since=nan",
        "until=-1",
        "until=1e300",
        "key=12",
        "ids=1,x",
        "ids=",
        "dry_run=maybe",
        "reason=a&reason=b",
        "ids=" + ",".join(["1"] * 1001),
    ],
)
async def test_a_condition_that_is_not_understood_never_selects_everything(
    serve: Serve, control: FakeControl, query: str
) -> None:
    client = await serve()
    await problem(await client.delete(f"/v1/dead-letters?{query}"), 400, "bad-request")
    assert control.calls == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=-1", "content=perhaps", "dry_run=true"])
async def test_pages_have_limits(serve: Serve, control: FakeControl, query: str) -> None:
    client = await serve()
    await problem(await client.get(f"/v1/dead-letters?{query}"), 400, "bad-request")


@pytest.mark.parametrize("body", ['{"class": 1}', '{"ids": true}', '{"dry_run": 2}', '{"reason": []}', "[]", "{"])
async def test_bodies_are_checked_too(serve: Serve, control: FakeControl, body: str) -> None:
    client = await serve()
    headers = {"Content-Type": "application/json"}
    await problem(await client.post("/v1/dead-letters/replay", data=body, headers=headers), 400, "bad-request")
    assert control.calls == []


async def test_the_content_of_letters_needs_the_right_to_see_profiles(serve: Serve, control: FakeControl) -> None:
    client = await serve(key("ops", "destinations:view"), key("boss", "destinations:view", "profiles:view"))
    refused = await client.get("/v1/dead-letters?content=true", headers={"X-API-Key": "ops"})
    assert "profiles:view" in (await problem(refused, 403, "forbidden"))["detail"]
    assert (await client.get("/v1/dead-letters?content=true", headers={"X-API-Key": "boss"})).status == 200
    assert [call[4] for call in control.calls] == [True]


# -- books ------------------------------------------------------------------------------------------------------------


async def test_status_runs_and_audit_answer(serve: Serve) -> None:
    client = await serve()
    assert (await (await client.get("/v1/status")).json())["ready"] is True
    assert await (await client.get("/v1/runs")).json() == {"runs": [], "next": None}
    assert (await (await client.get("/v1/audit")).json())["ok"] is True


async def test_alerts_are_listed_and_a_target_is_told_of_a_test(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    assert await (await client.get("/v1/alerts")).json() == {"alerts": [], "targets": []}
    answer = await client.post("/v1/alerts/test", json={"target": "oncall"})
    assert (await answer.json())["ok"] is True
    assert control.calls == [("alerts",), ("test_notification", "oncall")]
    await problem(await client.post("/v1/alerts/test", json={"target": "nobody"}), 404, "not-found")
    await problem(await client.post("/v1/alerts/test", json={}), 400, "bad-request")


async def test_a_backup_goes_where_it_was_told(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    assert (await client.post("/v1/backup", json={"directory": "/srv/copy"})).status == 200
    assert control.calls == [("backup", Path("/srv/copy"))]
    for directory in ("copy", "", "../copy"):
        await problem(await client.post("/v1/backup", json={"directory": directory}), 400, "bad-request")
    control.error = PermissionError(13, "Permission denied", "/srv/copy")
    await problem(await client.post("/v1/backup", json={"directory": "/srv/copy"}), 400, "bad-request")


async def test_metrics_are_prometheus_text_and_outlive_the_engine(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"engine_events_accepted_total" in await answer.read()

    def stopped() -> FakeControl:
        raise Stopped("the engine is not running")

    client = await serve(app=create_admin_app(stopped, Access(Keys()), metrics=Metrics()))
    assert b"engine_events_accepted_total 0.0" in await (await client.get("/metrics")).read()
    answer = await client.get("/v1/status")
    await problem(answer, 503, "not-running")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("error", "status", "type"),
    [
        (Stopped("over"), 503, "not-running"),
        (Overloaded("journal-full", "full", 9.0), 503, "journal-full"),
        (NoSpace("disk-full", "full"), 503, "disk-full"),
        (StorageFailed("broken"), 503, "storage-failed"),
        (ValueError(EMAIL), 500, "server-error"),
    ],
)
async def test_failures_of_the_engine_are_problems(
    serve: Serve, control: FakeControl, caplog: pytest.LogCaptureFixture, error: Exception, status: int, type: str
) -> None:
    client = await serve()
    control.error = error
    await problem(await client.delete(f"/v1/profiles/{KEY}"), status, type)
    assert EMAIL not in caplog.text
    assert KEY not in caplog.text


# -- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [it for it in ADMIN if it.scope], ids=lambda it: it.id)
async def test_every_operation_needs_exactly_its_scope(serve: Serve, control: FakeControl, operation: Any) -> None:
    right = {operation.scope, *filter(None, [operation.also]), *sorted(NEEDED.get(operation.scope, []))[-1:]}
    others = {scope for scope in SCOPES if operation.scope not in effective({scope}) | {scope}}
    client = await serve(key("right", *sorted(right)), key("wrong", *sorted(others)))
    path = operation.path.replace("{key}", KEY).replace("{name}", "demo")
    await problem(await client.request(operation.method, path), 401, "unauthorized")
    wrong = await client.request(operation.method, path, headers={"X-API-Key": "wrong"})
    assert operation.scope in (await problem(wrong, 403, "forbidden"))["detail"]
    assert control.calls == []
    right = await client.request(operation.method, path, headers={"Authorization": "Bearer right"})
    assert right.status in (200, 202, 400)


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"X-Forwarded-For": "::1"}, {"Origin": "http://a.example"}]
)
async def test_without_keys_only_this_machine_may_ask(
    serve: Serve, control: FakeControl, headers: dict[str, str]
) -> None:
    client = await serve()
    for method, path in (
        ("GET", "/v1/status"),
        ("POST", "/v1/destinations/demo/pause"),
        ("GET", "/"),
        ("GET", "/metrics"),
    ):
        await problem(await client.request(method, path, headers=headers), 403, "not-local")
    assert control.calls == []


# -- dashboard and document -------------------------------------------------------------------------------------------


async def test_the_dashboard_loads_without_a_key_and_may_load_nothing_foreign(serve: Serve) -> None:
    client = await serve(key("ops", "destinations:view"))
    for path, content_type in (
        ("/", "text/html"),
        ("/assets/dashboard.js", "text/javascript"),
        ("/assets/dashboard.css", "text/css"),
    ):
        answer = await client.get(path)
        assert (answer.status, answer.content_type, answer.charset) == (200, content_type, "utf-8")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'; img-src 'self' data:;" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "http" + "://" not in await answer.text()


async def test_the_dashboard_has_nothing_inline_and_makes_no_markup_of_data(serve: Serve) -> None:
    client = await serve()
    page = await (await client.get("/")).text()
    script = await (await client.get("/assets/dashboard.js")).text()
    assert '<link rel="icon" href="data:,">' in page, "or every browser asks for /favicon.ico and logs the 404"
    assert "<script>" not in page
    assert "style=" not in page
    assert " on" + "click=" not in page
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"):
        assert danger not in script
    for id in re.findall(r'\bat\("([^"]+)"', script):
        assert f'id="{id}"' in page


async def test_every_label_of_the_dashboard_belongs_to_something(serve: Serve) -> None:
    page = await (await (await serve()).get("/")).text()
    for name in ("for", "aria-labelledby"):
        targets = [part.split('"')[0] for part in page.split(f' {name}="')[1:]]
        assert targets
        for target in targets:
            assert f'id="{target}"' in page


async def test_every_route_is_documented_and_every_entry_has_a_route(serve: Serve, control: FakeControl) -> None:
    app = service_app(control)
    routes = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    client = await serve(app=app)
    described = await (await client.get("/openapi.json")).json()
    entries = {(method.upper(), path) for path, entry in described["paths"].items() for method in entry}
    assert entries == routes
    assert (await client.get("/livez")).status == 200
    assert (await client.get("/v1/status")).status == 200


def test_the_document_refers_only_to_what_it_holds() -> None:
    described = document("1")
    text = json.dumps(described)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/')[1:]}:
        place: Any = described
        for step in reference.split("/"):
            place = place[step]
    used = {operation.id for operation in (*INGRESS, *ADMIN)}
    assert len(used) == len(INGRESS) + len(ADMIN)
    for path, entry in described["paths"].items():
        for operation in entry.values():
            named = {it["name"] for it in operation["parameters"] if it.get("in") == "path"}
            assert named == {part.split("}")[0] for part in path.split("{")[1:]}
            assert "default" in operation["responses"]
