"""Did this person arrive? The engine's answer and the log of the place it sent to agree, in every state there is."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import ClientSession

from engine import Config, Engine
from engine.assembly.service import Service
from engine.sandbox import Sandbox, Settings, running_sandbox
from engine.testing.contracts.harness import eventually
from engine.testing.destination import FakeDestination, Step, ok, reject

LEA = "lea.martin@example.com"


def key_of(email: str) -> str:
    return hashlib.sha256(email.encode()).hexdigest()


def config_of(sandbox: Sandbox, folder: Path) -> Config:
    account = {"base_url": sandbox.url, "rate": {"requests_per_second": 500.0, "burst": 10}}
    return Config.from_dict({"ingress": {"port": 0}, "account": [account]}, base=folder)


async def post(session: ClientSession, url: str, *people: dict[str, Any]) -> None:
    headers = {"Prefer": "wait=20"}
    async with session.post(f"{url}/v1/profiles", json=list(people), headers=headers) as answer:
        assert (await answer.json())["state"] == "settled"


async def test_the_attendee_id_is_the_same_in_the_answer_the_export_and_the_api_log(tmp_path: Path) -> None:
    async with (
        running_sandbox(Settings(port=0)) as sandbox,
        Service(config_of(sandbox, tmp_path)) as service,
        aiohttp.ClientSession() as session,
    ):
        url = service.urls["ingress"]
        await post(session, url, {"email": LEA, "city": "Lille"}, {"email": "bo@example.com"})
        async with session.post(f"{url}/v1/profiles/lookup", json={"email": LEA.upper()}) as answer:
            found = (await answer.json())["destinations"]["demo"]
        async with session.get(f"{sandbox.url}/_sandbox/requests") as answer:
            requests = (await answer.json())["requests"]
        (mine,) = [one for one in requests if one["key"] and key_of(LEA).startswith(one["key"])]
        assert found["attendee_id"] == mine["attendee"] != ""
        assert abs(found["at"] - mine["at"]) < 60
        assert found["summary"] == "Delivered: RainFocus confirmed it."
        async with session.get(f"{url}/v1/outcomes?format=csv") as answer:
            rows = list(csv.DictReader(io.StringIO(await answer.text())))
        assert {row["key"]: row["attendee_id"] for row in rows}[key_of(LEA)] == mine["attendee"]
        async with session.get(f"{url}/v1/runs") as answer:
            (run,) = (await answer.json())["runs"]
        assert (run["profiles_received"], run["identities_activated"]) == (2, 2)


async def test_every_state_of_a_person_is_answered(tmp_path: Path) -> None:
    account = {"name": "a", "rate": {"requests_per_second": 1_000.0, "burst": 10, "max_concurrency": 1}}
    config = Config.from_dict({"account": [account]}, base=tmp_path)

    def answer(batch: Any) -> Step:
        content = batch.profiles[0].content
        return Step(reject("response_code_27")) if b"bad@" in content else Step(ok("A1"))

    async with Engine(config, destinations={"demo": FakeDestination(answer=answer)}) as engine:

        async def state(name: str) -> dict[str, Any]:
            found: Any = await engine.control.lookup(bytes.fromhex(key_of(f"{name}@example.com")))
            return dict(found["destinations"]["demo"])

        async def send(*people: dict[str, Any]) -> None:
            await (await engine.submit(list(people))).settled(timeout=20)

        await send({"email": "lea@example.com"}, {"email": "bad@example.com"})
        await send({"email": "lea@example.com"})
        await send({"email_lc_sha256": key_of("hash@example.com")})
        suppressed, dead, excluded = await state("lea"), await state("bad"), await state("hash")
        assert (suppressed["outcome"], suppressed["attendee_id"]) == ("suppressed", "A1")
        assert (dead["outcome"], dead["code"], dead["dead_letters"]) == ("dead_lettered", "RFDEST-1402-422", 1)
        assert (excluded["outcome"], excluded["reason"], excluded["code"]) == (
            *("excluded", "no_email", "RFDEST-1101-422"),
        )
        assert (await state("nobody"))["state"] == "unknown"
        await engine.pause("demo")
        await engine.submit([{"email": "lea@example.com", "city": "Lille"}])
        waiting = await state("lea")
        assert (waiting["state"], waiting["pending_events"]) == ("waiting", 1)
        assert "stands still: paused" in waiting["summary"]
        assert "before that: Already there" in waiting["summary"]
        await engine.resume("demo")
        await engine.forget("bad@example.com")

        async def letters_are_gone() -> bool:
            return not (await state("bad"))["dead_letters"]

        await eventually(letters_are_gone)
        forgotten = await state("bad")
        assert forgotten["state"] == "unknown" or forgotten["reason"] == "forgotten"
        assert "forgotten" in forgotten["summary"] or "erased" in forgotten["summary"]
