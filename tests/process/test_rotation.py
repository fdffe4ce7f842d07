"""Secrets are replaced while producers send: no request is refused or lost, and receipts stay with their owner."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import Place, Sandbox, place_at, until

pytestmark = pytest.mark.process

OLD, NEW, OPS = "the-old-secret-of-it", "the-new-secret-of-it", "the-key-of-operators"
PRODUCERS = 4
AT_LEAST = 25  # requests of each producer in every phase


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Load:
    """Producers that send one request after the other with whatever credential `credential` gives, and remember."""

    def __init__(self, place: Place, credential: Callable[[], str]) -> None:
        self._place, self._credential = place, credential
        self.statuses: list[int] = []
        self.receipts: list[str] = []
        self.events = 0
        self._ending = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for number in range(PRODUCERS):
                tasks.create_task(self._produce(number))
            try:
                yield
            finally:
                self._ending = True

    async def _produce(self, number: int) -> None:
        async with aiohttp.ClientSession() as http:
            while not self._ending:
                self.events += 1
                event = {"email": f"p{number}-{self.events}@people.example", "city": "Lille"}
                await self._post(http, event)

    async def _post(self, http: aiohttp.ClientSession, event: dict[str, str]) -> None:
        headers = {"Authorization": f"Bearer {self._credential()}"}
        async with http.post(f"{self._place.url}/v1/profiles", json=event, headers=headers) as answer:
            self.statuses.append(answer.status)
            self.receipts.append((await answer.json(content_type=None)).get("receipt", ""))

    async def goes_on(self) -> None:
        """Until so many more requests were answered; all of them so far have to be accepted."""
        enough = len(self.statuses) + PRODUCERS * AT_LEAST

        async def answered() -> bool:
            return len(self.statuses) >= enough

        await until(answered, "nobody sends any more")
        assert {*self.statuses} == {202}


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        made.tables["account"][0]["rate"] = {"requests_per_second": 3_000.0, "burst": 60, "max_concurrency": 8}
        made.tables["ingress"]["keys"] = [{"name": "ops", "sha256": sha256(OPS), "scopes": ["destinations:view"]}]
        yield made
        made.check_discreet(OLD, NEW, OPS, "rft_")


async def reloaded(place: Place, times: int) -> None:
    """SIGHUP, and its line in the log: the so-many-eth."""
    place.write()
    place.engine.send(signal.SIGHUP)

    async def taken_over() -> bool:
        return place.log.read_text().count("configuration reloaded") >= times

    await until(taken_over, "the configuration is not taken over")
    assert "not reloaded" not in place.log.read_text()


async def all_delivered(place: Place, events: int) -> None:
    async def settled() -> bool:
        _, shown, _ = await place.ask("GET", "/v1/destinations/demo", Authorization=f"Bearer {OPS}")
        return bool(shown["counts"]["accepted"] == shown["counts"]["delivered"] == events)

    await until(settled, "not every event is delivered")


async def readable(place: Place, receipts: list[str], credential: str) -> list[int]:
    headers = {"Authorization": f"Bearer {credential}"}
    return [(await place.ask("GET", f"/v1/receipts/{it}", **headers))[0] for it in receipts]


async def test_a_key_is_replaced_under_load(place: Place) -> None:
    aep: dict[str, Any] = {"name": "aep", "sha256": sha256(OLD)}
    place.tables["ingress"]["keys"].append(aep)
    place.write()
    await place.serve()
    held = OLD
    load = Load(place, lambda: held)
    async with load.running():
        await load.goes_on()
        aep |= {"sha256": sha256(NEW), "previous_sha256": sha256(OLD)}
        await reloaded(place, 1)
        await load.goes_on()
        held = NEW
        await load.goes_on()
        del aep["previous_sha256"]
        await reloaded(place, 2)
        await load.goes_on()
    assert {*load.statuses} == {202}
    await all_delivered(place, load.events)
    early, late = load.receipts[0], load.receipts[-1]
    assert await readable(place, [early, late], NEW) == [200, 200]
    assert await readable(place, [early, late], OLD) == [401, 401]


async def token(place: Place, secret: str) -> tuple[int, str]:
    form = {"grant_type": "client_credentials", "client_id": "aep", "client_secret": secret}
    async with aiohttp.ClientSession() as http, http.post(f"{place.url}/oauth/token", data=form) as answer:
        return answer.status, (await answer.json()).get("access_token", "")


async def test_the_secret_of_a_client_is_replaced_under_load_and_tokens_outlive_restarts(place: Place) -> None:
    """The secret is in a file, as orchestrators keep it."""
    (place.folder / "secret").write_text(OLD)
    aep: dict[str, Any] = {"name": "aep", "secret_file": "secret"}
    place.tables["ingress"]["clients"] = [aep]
    place.write()
    await place.serve()
    _, first = await token(place, OLD)
    held = first
    load = Load(place, lambda: held)
    async with load.running():
        await load.goes_on()
        (place.folder / "secret").write_text(NEW)
        aep["previous_sha256"] = sha256(OLD)
        await reloaded(place, 1)
        await load.goes_on()
        held = (await token(place, NEW))[1]
        await load.goes_on()
        del aep["previous_sha256"]
        await reloaded(place, 2)
        await load.goes_on()
    await all_delivered(place, load.events)
    assert [(await token(place, it))[0] for it in (OLD, NEW)] == [401, 200]
    assert await readable(place, [load.receipts[0]], first) == [401]
    await place.stop()
    await place.serve()
    assert await readable(place, [load.receipts[0], load.receipts[-1]], held) == [200, 200]
    await place.kill()
    await place.serve()
    assert await readable(place, [load.receipts[0]], held) == [200]


async def test_limits_are_taken_over_and_a_bad_secret_file_changes_nothing(place: Place) -> None:
    (place.folder / "secret").write_text(OLD)
    aep: dict[str, Any] = {"name": "aep", "secret_file": "secret", "max_events_per_second": 2}
    place.tables["ingress"]["clients"] = [aep]
    place.write()
    await place.serve()
    _, held = await token(place, OLD)
    events = [{"email": f"p{number}@people.example"} for number in range(50)]
    for_aep = {"Authorization": f"Bearer {held}"}
    assert (await place.ask("POST", "/v1/profiles", events, **for_aep))[0] == 202
    assert (await place.ask("POST", "/v1/profiles", events, **for_aep))[0] == 429
    aep["max_events_per_second"] = 0
    await reloaded(place, 1)
    assert (await place.ask("POST", "/v1/profiles", events, **for_aep))[0] == 202
    (place.folder / "secret").write_text("short")
    place.engine.send(signal.SIGHUP)
    await place.logged("configuration not reloaded")
    assert (await place.ask("POST", "/v1/profiles", events, **for_aep))[0] == 202
    aep["scopes"] = ["profiles:view"]
    (place.folder / "secret").write_text(OLD)
    place.write()
    place.engine.send(signal.SIGHUP)

    async def denied() -> bool:
        return (await place.ask("POST", "/v1/profiles", events, **for_aep))[0] == 403

    await until(denied, "a scope that is gone is still there")
