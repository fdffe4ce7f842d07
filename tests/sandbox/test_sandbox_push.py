"""The sandbox pushes what has changed in it, as RainFocus's source connector does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

KEY = hashlib.sha256(b"lea.martin@example.com").hexdigest()


class Listener:
    def __init__(self) -> None:
        self.url, self.status = "", 202
        self.records: list[Any] = []
        self.authorizations: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("Authorization", ""))
        self.records.append(await request.json())
        return web.json_response({"accepted": 1}, status=self.status)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    there = Listener()
    app = web.Application()
    app.router.add_post("/push", there.take)
    async with TestServer(app) as server:
        there.url = str(server.make_url("/push"))
        yield there


async def edit(client: Any, fields: Any, query: str = "", key: str = KEY) -> tuple[int, Any]:
    data = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    async with client.session.patch(f"/_sandbox/attendees/{key}{query}", data=data) as reply:
        return reply.status, await reply.json()


async def test_an_edit_changes_the_attendee_and_is_pushed(start, attendee, listener) -> None:
    client = await start(push_url=listener.url, push_key="sesame")
    _, stored = await client.store(attendee(city="Lille", zip="59000"))
    status, answer = await edit(client, {"city": "Paris"})
    assert (status, answer["pushed"]) == (200, [{"status": 202, "answer": '{"accepted": 1}'}])
    (one,) = answer["attendees"]
    assert (one["fields"], one["writes"]) == ({"city": "Paris", "zip": "59000"}, 1)
    (record,) = listener.records
    assert record["attendee"] == {
        "registered": "Yes",
        "attendeeId": stored["attendeeId"],
        "email": "lea.martin@example.com",
    }
    assert (record["eventType"], record["event"]) == ("AttendeeUpdated", {"name": "acme27"})
    assert record["timestamp"].endswith("Z")
    assert listener.authorizations == ["Bearer sesame"]
    assert (await client.get("stats"))["pushed"] == {"202": 1}


async def test_an_edit_is_of_every_event_or_of_the_one_that_is_named(start, attendee, listener) -> None:
    client = await start(push_url=listener.url)
    await client.store(attendee())
    await client.store({**attendee(), "event": "other"})
    await edit(client, {"city": "Paris"})
    await edit(client, {"city": "Lyon"}, "?event=other")
    assert [it["event"]["name"] for it in listener.records] == ["acme27", "other", "other"]
    found = (await client.get(f"attendees/{KEY}"))["attendees"]
    assert [it["fields"]["city"] for it in found] == ["Paris", "Lyon"]
    assert len({it["transmissionId"] for it in listener.records}) == 3


async def test_what_the_api_wrote_is_pushed_only_if_that_is_wanted(start, attendee, listener) -> None:
    quiet = await start(push_url=listener.url)
    await quiet.store(attendee())
    await edit(quiet, {"city": "Paris"})
    assert len(listener.records) == 1
    client = await start(push_url=listener.url, push_writes=True)
    await client.store(attendee())
    await edit(client, {"city": "Paris"})
    assert len(listener.records) == 3, "in the order they happened"


async def test_any_record_can_be_pushed(start, listener) -> None:
    client = await start(push_url=listener.url)
    record = {"session": {"sessionId": "1700000000000004MnOp"}, "eventType": "SessionScheduled"}
    async with client.session.post("/_sandbox/push", json=record) as reply:
        assert (await reply.json())["pushed"]["status"] == 202
    assert listener.records == [record]


async def test_an_edit_stands_whoever_hears_of_it(start, attendee) -> None:
    for url in ("", f"http://127.0.0.1:{unused_port()}/push"):
        client = await start(push_url=url)
        await client.store(attendee())
        status, answer = await edit(client, {"city": "Paris"})
        assert (status, answer["pushed"][0]["status"]) == (200, 0)
        assert answer["attendees"][0]["fields"] == {"city": "Paris"}


@pytest.mark.parametrize(
    ("fields", "key", "status"),
    [
        ({"city": "Paris"}, "0" * 64, 404),
        ({"email": "other@example.com"}, KEY, 400),
        ({"shoesize": "44"}, KEY, 400),
        ({"city": 7}, KEY, 400),
        (b"nonsense", KEY, 400),
    ],
)
async def test_what_cannot_be_edited_is_refused(start, attendee, listener, fields, key, status) -> None:
    client = await start(push_url=listener.url)
    await client.store(attendee())
    assert (await edit(client, fields, key=key))[0] == status
    assert listener.records == []
