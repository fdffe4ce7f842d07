"""`kill -9` right after a change of RainFocus's was acknowledged: its effect is there after the restart, and it is
passed on, in order, at least once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from harness import Sandbox, place_at, until

from engine.core.signature import is_signed, secret_bytes

pytestmark = [pytest.mark.process, pytest.mark.timeout(170)]

KILLS = 8
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LEA = {"email": "lea@people.example", "city": "Lille"}
KEY = sha256(b"lea@people.example").hexdigest()


class Receiver:
    def __init__(self) -> None:
        self.url = ""
        self.seen: list[str] = []  # eventTypes, each when it came first

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert is_signed(secret_bytes(SECRET), headers, body, float(headers["webhook-timestamp"]))
        names = [event["record"]["eventType"] for event in json.loads(body)["data"]["events"]]
        self.seen += [name for name in names if name not in self.seen]
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    there = Receiver()
    app = web.Application()
    app.router.add_post("/hook", there.take)
    async with TestServer(app) as server:
        there.url = str(server.make_url("/hook"))
        yield there


async def test_an_acknowledged_change_has_its_effect_whenever_the_engine_dies(
    tmp_path: Path, sandbox: Sandbox, receiver: Receiver
) -> None:
    dice = random.Random(1)
    retry = {"base_ms": 20, "cap_ms": 500, "timeout_seconds": 2.0, "unknown_hold_seconds": 0.5}
    forward: dict[str, Any] = {"name": "hook", "url": receiver.url, "secret": SECRET, "retry": retry}
    async with place_at(tmp_path / "engine", sandbox.url, forward=[forward]) as place:
        await place.serve()
        for number in range(KILLS):
            await place.posted(LEA)
            await place.settled()
            await sandbox.call("PATCH", f"attendees/{KEY}", {"city": "Paris"})
            record = {"attendee": {"email": LEA["email"]}, "eventType": f"E{number}"}
            status, answer, _ = await place.ask("POST", "/v1/sources/rainfocus", record)
            assert status == 202, answer
            await asyncio.sleep(dice.choice([0.0, 0.0, dice.uniform(0.0, 0.1)]))
            await place.kill()
            await place.serve()
            await place.posted(LEA)
            await place.settled()
            assert (await sandbox.attendees())[LEA["email"]]["city"] == "Lille", number
        await place.balanced()
        wanted = [f"E{number}" for number in range(KILLS)]

        async def heard() -> bool:
            return receiver.seen == wanted

        await until(heard, f"only {receiver.seen} were passed on")
        await place.stop()
