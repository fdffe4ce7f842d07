"""The whole loop over real sockets and files: engine, sandbox, and a receiver of forwarded changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from engine.assembly.service import Service
from engine.config import Config
from engine.core.signature import is_signed, secret_bytes
from engine.profiles.identity import key_of
from engine.sandbox import Sandbox, Settings, running_sandbox

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LEA = {"email": "lea.martin@example.com", "city": "Lille", "countryid": "FR"}
KEY = key_of("lea.martin@example.com").hex()


class Receiver:
    """Somebody else's system: verifies, and keeps each event once."""

    def __init__(self) -> None:
        self.url = ""
        self.events: dict[str, Any] = {}
        self.refused = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        now = float(headers["webhook-timestamp"])
        if not is_signed(secret_bytes(SECRET), headers, body, now):
            self.refused += 1
            return web.Response(status=401)
        for event in json.loads(body)["data"]["events"]:
            self.events[event["id"]] = event["record"]
        return web.Response(status=204)


class Loop:
    def __init__(self, service: Service, sandbox: Sandbox, receiver: Receiver, session: aiohttp.ClientSession) -> None:
        self.service, self.sandbox, self.receiver, self.session = service, sandbox, receiver, session

    async def send(self, profile: dict[str, str]) -> dict[str, int]:
        """Hand it in and wait; what became of it at the destination."""
        url = f"{self.service.urls['ingress']}/v1/profiles"
        async with self.session.post(url, json=profile, headers={"Prefer": "wait=10"}) as answer:
            assert answer.status == 202, await answer.text()
            counts = (await answer.json())["destinations"]["demo"]
        return {outcome: n for outcome, n in counts.items() if n}

    async def edit(self, **fields: str) -> Any:
        """Somebody edits Lea in RainFocus, which tells us of it."""
        async with self.session.patch(f"{self.sandbox.url}/_sandbox/attendees/{KEY}", json=fields) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["pushed"]

    @property
    def city(self) -> str:
        (lea,) = self.sandbox.store.find(KEY)
        return lea.fields["city"]

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        with anyio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for is on the other side of a socket
                await anyio.sleep(0.01)


@asynccontextmanager
async def running(directory: Path, **sandbox_settings: Any) -> AsyncIterator[Loop]:
    receiver, port = Receiver(), unused_port()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    push_url = f"http://127.0.0.1:{port}/v1/sources/rainfocus"
    async with (
        TestServer(app) as server,
        running_sandbox(Settings(port=0, push_url=push_url, **sandbox_settings)) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        rate = {"requests_per_second": 500.0, "burst": 5}
        config = Config.from_dict(
            {
                "ingress": {"port": port},
                "account": [{"base_url": sandbox.url, "rate": rate}],
                "destination": [{"name": "demo", "batch": {"linger_ms": 0}}],
                "forward": [{"url": str(server.make_url("/hook")), "secret": SECRET, "rate": rate}],
            },
            base=directory,
        )
        async with Service(config) as service:
            yield Loop(service, sandbox, receiver, session)


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[Loop]:
    async with running(tmp_path) as it:
        yield it


async def test_what_was_edited_in_rainfocus_is_put_right_by_the_next_unchanged_event(loop: Loop) -> None:
    assert await loop.send(LEA) == {"delivered": 1}
    wanted = loop.sandbox.store.digest()
    assert await loop.send(LEA) == {"suppressed": 1}
    (pushed,) = await loop.edit(city="Paris")
    assert pushed["status"] == 202
    assert (loop.city, loop.sandbox.store.digest() == wanted) == ("Paris", False)
    assert await loop.send(LEA) == {"delivered": 1}, "the edit has taken its digest away"
    assert (loop.city, loop.sandbox.store.digest()) == ("Lille", wanted)
    assert await loop.send(LEA) == {"suppressed": 1}
    report = await loop.service.engine.control.audit()
    assert report["ok"], report


async def test_the_change_reaches_whoever_wants_to_know_signed(loop: Loop) -> None:
    await loop.send(LEA)
    await loop.edit(city="Paris")
    await loop.until(lambda: bool(loop.receiver.events))
    (record,) = loop.receiver.events.values()
    (lea,) = loop.sandbox.store.find(KEY)
    assert (record["eventType"], record["attendee"]["attendeeId"]) == ("AttendeeUpdated", lea.attendee_id)
    assert loop.receiver.refused == 0


async def test_a_change_alone_writes_nothing_to_rainfocus(loop: Loop) -> None:
    await loop.send(LEA)
    for city in ("Paris", "Lyon", "Nice"):
        await loop.edit(city=city)
    await loop.until(lambda: len(loop.receiver.events) == 3)
    assert loop.sandbox.stats()["store_requests"] == 1
    assert loop.city == "Nice"


async def test_there_is_no_loop_even_if_our_own_writes_come_back(tmp_path: Path) -> None:
    """Every write comes back as a change: that costs the next unchanged event its suppression, and nothing else."""
    async with running(tmp_path, push_writes=True) as loop:
        for round in range(1, 6):
            assert await loop.send(LEA) == {"delivered": 1}
            await loop.until(lambda: len(loop.receiver.events) == round)  # noqa: B023
        assert loop.sandbox.stats()["store_requests"] == 5
        assert loop.sandbox.stats()["pushed"] == {"202": 5}


async def test_a_restart_in_between_changes_nothing(tmp_path: Path) -> None:
    """The edit is told just before the engine ends; the one that follows knows of it."""
    async with running(tmp_path) as loop:
        await loop.send(LEA)
        await loop.edit(city="Paris")
        await loop.service.engine.kill()
        config = loop.service.config
        config = msgspec.structs.replace(config, ingress=msgspec.structs.replace(config.ingress, port=0))
        async with Service(config) as again:
            loop.service = again
            assert await loop.send(LEA) == {"delivered": 1}
        assert loop.city == "Lille"
