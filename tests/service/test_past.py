"""`/v1/runs` and `/v1/outcomes`: what they take, whom they let in, and how they answer."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from test_admin import FakeControl, Serve, key, problem

from engine.history import OutcomeFilter, RunFilter

SEE, WHO, AUDIENCES = "destinations:view", "profiles:view", "segments:view"


async def test_every_condition_reaches_the_engine(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    query = "destination=demo&audience=ups/vip&since=3600&until=1970-01-01T02:00:00Z&limit=7&cursor=abc"
    assert await (await client.get(f"/v1/runs?{query}")).json() == {"runs": [], "next": None}
    assert control.calls == [
        ("runs", RunFilter(consumer="demo", audience="ups/vip", since=3_600.0, until=7_200.0), 7, "abc", False)
    ]


@pytest.mark.parametrize(
    ("query", "audience", "flow"),
    [("", "", False), ("audience=*", None, False), ("format=flow", "", True), ("format=flow&audience=*", None, True)],
)
async def test_audiences_come_when_asked_for(
    serve: Serve, control: FakeControl, query: str, audience: str | None, flow: bool
) -> None:
    client = await serve()
    assert (await client.get(f"/v1/runs?{query}")).status == 200
    assert control.calls == [("runs", RunFilter(audience=audience), 100, "", flow)]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=x", "since=x", "format=xml", "cursor=bad", "state=kept", "typo=1"),
        *("format=flow&limit=101", "format=flow&audience=ups/vip", "limit=1&limit=2"),
    ],
)
async def test_what_is_not_understood_is_refused(serve: Serve, query: str) -> None:
    client = await serve()
    await problem(await client.get(f"/v1/runs?{query}"), 400, "bad-request")


async def test_an_unknown_destination_is_not_found(serve: Serve) -> None:
    client = await serve()
    for path in ("/v1/runs", "/v1/outcomes"):
        await problem(await client.get(f"{path}?destination=nobody"), 404, "not-found")


async def test_audiences_need_a_scope_of_their_own(serve: Serve, control: FakeControl) -> None:
    client = await serve(key("ops", SEE), key("boss", SEE, AUDIENCES))
    assert (await client.get("/v1/runs", headers={"X-API-Key": "ops"})).status == 200
    for query in ("audience=*", "audience=ups/vip", "audience=*&format=flow"):
        refused = await client.get(f"/v1/runs?{query}", headers={"X-API-Key": "ops"})
        assert AUDIENCES in (await problem(refused, 403, "forbidden"))["detail"]
    assert len(control.calls) == 1
    assert (await client.get("/v1/runs?audience=*", headers={"X-API-Key": "boss"})).status == 200


async def test_an_export_needs_both_scopes(serve: Serve, control: FakeControl) -> None:
    client = await serve(key("ops", SEE), key("crm", WHO), key("boss", SEE, WHO))
    for name, scope in (("ops", WHO), ("crm", SEE)):
        refused = await client.get("/v1/outcomes", headers={"X-API-Key": name})
        assert scope in (await problem(refused, 403, "forbidden"))["detail"]
    assert control.calls == []
    assert (await client.get("/v1/outcomes", headers={"X-API-Key": "boss"})).status == 200


async def test_an_export_is_every_page_of_every_destination(serve: Serve, control: FakeControl) -> None:
    client = await serve()
    answer = await client.get("/v1/outcomes?since=10&outcome=delivered")
    assert answer.content_type == "application/x-ndjson"
    rows: list[dict[str, Any]] = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert [row["destination"] for row in rows] == ["demo"] * 3 + ["other"] * 3
    assert control.calls == [
        ("outcomes", OutcomeFilter(consumer=name, outcome="delivered", since=10.0)) for name in ("demo", "other")
    ]


async def test_an_export_as_csv_has_one_head(serve: Serve) -> None:
    client = await serve()
    answer = await client.get("/v1/outcomes?format=csv")
    assert answer.content_type == "text/csv"
    assert [row["outcome"] for row in csv.DictReader(io.StringIO(await answer.text()))] == ["delivered"] * 6


@pytest.mark.parametrize("query", ["format=xml", "outcome=lost", "class=expired", "since=x"])
async def test_an_export_of_what_is_not_understood_is_refused(serve: Serve, query: str) -> None:
    client = await serve()
    await problem(await client.get(f"/v1/outcomes?{query}"), 400, "bad-request")
