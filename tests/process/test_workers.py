"""Several processes take events in: whichever of them is killed, nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import Oracle, Place, Producer, Sandbox, place_at, until

pytestmark = pytest.mark.process

SEED = int(os.environ.get("KILL_SEED", "1"))
KILLS = int(os.environ.get("WORKER_KILLS", "6"))
EVENT = {"email": "lea@people.example", "city": "Lille"}


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url, ingress={"workers": 2}) as made:
        made.tables["account"][0]["rate"] = {"requests_per_second": 3_000.0, "burst": 60, "max_concurrency": 8}
        made.write()
        yield made


def workers_of(place: Place) -> list[int]:
    """Process ids; the core has no other children."""
    assert place.engine is not None
    children = Path(f"/proc/{place.engine.pid}/task").glob("*/children")
    return sorted(int(pid) for file in children for pid in file.read_text().split())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def all_gone(pids: list[int]) -> None:
    async def gone() -> bool:
        return not any(map(alive, pids))

    await until(gone, "workers outlive their core")


class Load:
    """Producers beside each other."""

    def __init__(self, place: Place, count: int = 4) -> None:
        self.producers = [Producer(f"load{number}", place, pause_seconds=0.005) for number in range(count)]
        self.oracle = Oracle(*self.producers)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Load:
        for one in self.producers:
            await self._stack.enter_async_context(one.producing())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def goes_on(self, requests: int = 40) -> None:
        """Until so many more were acknowledged."""
        enough = self.oracle.acknowledged + requests

        async def acknowledged() -> bool:
            return self.oracle.acknowledged >= enough

        await until(acknowledged, "nobody gets an answer any more")


async def test_nothing_acknowledged_is_lost_when_workers_are_killed_again_and_again(
    place: Place, sandbox: Sandbox
) -> None:
    source = random.Random(SEED)
    await place.serve()
    killed: set[int] = set()
    async with Load(place) as load:
        for _ in range(KILLS):
            await load.goes_on(source.randint(5, 60))
            victim = source.choice(workers_of(place))
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
        await load.goes_on()

        async def both_again() -> bool:
            return len(found := workers_of(place)) == 2 and not killed & {*found}

        await until(both_again, "a worker is not replaced")
        await load.goes_on()
    await place.settled()
    await load.oracle.check(sandbox)
    sums = (await place.balanced())["demo"]
    assert sums["accepted"] == load.oracle.accepted(await sandbox.attendees())
    assert f"engine_worker_restarts_total {float(len(killed))}" in await place.get("/metrics")
    await place.stop()
    await load.oracle.check(sandbox)


async def test_when_the_core_is_killed_its_workers_end_and_acknowledge_nothing_more(
    place: Place, sandbox: Sandbox
) -> None:
    place.tables["ingress"]["port"] = await _free_port()
    place.write()
    async with Load(place) as load:
        for _ in range(2):
            await place.serve()
            await load.goes_on()
            mine = workers_of(place)
            assert len(mine) == 2
            await place.kill()
            await all_gone(mine)
        await place.serve()
        await load.goes_on()
    await place.settled()
    await load.oracle.check(sandbox)
    await place.balanced()


async def _free_port() -> int:
    """The same for every start: what the killed one had is free again."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        return int(server.sockets[0].getsockname()[1])


async def test_a_core_that_hangs_makes_nobody_believe_that_events_are_stored(place: Place, sandbox: Sandbox) -> None:
    engine = await place.serve()
    await place.posted(EVENT)
    engine.send(signal.SIGSTOP)
    try:
        # Over the connection that is there already: only the core accepts others.
        status, problem, headers = await place.ask("POST", "/v1/profiles", [{**EVENT, "city": "Lyon"}])
        assert (status, problem["type"]) == (503, "commit-timeout")
        assert int(headers["Retry-After"]) > 0
    finally:
        engine.send(signal.SIGCONT)
    await place.settled()
    assert await sandbox.attendees() == {EVENT["email"]: {"city": "Lyon"}}, "it may be stored all the same"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_everybody_drains_in_order(place: Place, sandbox: Sandbox, number: signal.Signals) -> None:
    """A terminal sends Ctrl-C to all of them, and some supervisors SIGTERM."""
    engine = await place.serve()
    mine = workers_of(place)
    async with Load(place) as load:
        await load.goes_on()
        for pid in (*mine, engine.pid):
            os.kill(pid, number)
        assert await engine.ended() == 0, engine.said()
    await all_gone(mine)
    assert "Traceback" not in engine.said()
    await place.serve()
    await place.settled()
    await load.oracle.check(sandbox)
    await place.balanced()


async def test_a_worker_alone_ignores_what_is_meant_for_the_core(place: Place) -> None:
    await place.serve()
    before = workers_of(place)
    for pid in before:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    await place.posted(EVENT)
    assert workers_of(place) == before


def key(name: str, **more: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
    return {"name": name, "sha256": sha256, "scopes": ["profiles:write", "destinations:view"], **more}


class Caller:
    """One connection of its own. Two of them, one after the other, are with two workers."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._headers = place, {"Authorization": f"Bearer secret-of-{name}"}
        self._http = aiohttp.ClientSession(headers=self._headers, connector=aiohttp.TCPConnector(limit=1))

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        async with self._http.request(method, f"{self._place.url}{path}", json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 300:
                self._place.answers.append(text)
            return answer.status, await answer.json(content_type=None) if "json" in answer.content_type else text


async def test_quotas_hold_over_all_workers_and_receipts_are_known_to_each(place: Place) -> None:
    place.tables["ingress"]["keys"] = [key("aep", max_events_per_second=2), key("ops"), key("free")]
    place.write()
    await place.serve()
    async with Caller(place, "aep") as one, Caller(place, "aep") as two, Caller(place, "free") as free:
        status, first = await one.ask("POST", "/v1/profiles", [EVENT] * 1_000)
        assert status == 202, "one request larger than the quota passes, and leaves a debt"
        for caller in (two, one):
            status, problem = await caller.ask("POST", "/v1/profiles", [EVENT])
            assert (status, problem["type"]) == (429, "quota")
        assert (await free.ask("POST", "/v1/profiles", [EVENT]))[0] == 202
        for caller in (one, two):
            assert (await caller.ask("GET", f"/v1/receipts/{first['receipt']}"))[0] == 200
        assert (await free.ask("GET", f"/v1/receipts/{first['receipt']}"))[0] == 404, "another key's"
        status, waited = await free.ask("POST", "/v1/profiles", [EVENT], Prefer="wait=20")
        assert (status, waited["state"]) == (202, "settled")
        _, metrics = await free.ask("GET", "/metrics")
    assert 'engine_answers_total{status="429"} 2.0' in metrics
    assert 'engine_answers_total{status="202"} 3.0' in metrics
    place.check_discreet("secret-of-", *(one["sha256"] for one in place.tables["ingress"]["keys"]))


async def test_keys_and_log_level_reach_every_worker_also_those_that_come_later(place: Place) -> None:
    place.tables["ingress"]["keys"] = [key("old"), key("kept")]
    place.write()
    engine = await place.serve()
    async with Caller(place, "old") as one, Caller(place, "old") as two, Caller(place, "new") as new:
        assert [(await it.ask("POST", "/v1/profiles", [EVENT]))[0] for it in (one, two, new)] == [202, 202, 401]
        place.tables["ingress"]["keys"] = [key("new"), key("kept")]
        place.write()
        engine.send(signal.SIGHUP)
        await place.logged("configuration reloaded")
        for caller, due in ((one, 401), (two, 401), (new, 202)):

            async def answered(caller: Caller = caller, due: int = due) -> bool:
                return (await caller.ask("POST", "/v1/profiles", [EVENT]))[0] == due

            await until(answered, "a worker still goes by the old keys")
    before = workers_of(place)
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    async def replaced() -> bool:
        return len(found := workers_of(place)) == 2 and not {*before} & {*found}

    await until(replaced, "workers are not replaced")
    async with Caller(place, "old") as old, Caller(place, "new") as new:
        assert (await old.ask("POST", "/v1/profiles", [EVENT]))[0] == 401
        assert (await new.ask("POST", "/v1/profiles", [EVENT]))[0] == 202
    said = place.log.read_text()
    assert '"worker":1' in said
    assert "a request was denied" in said
    place.check_discreet("secret-of-", *(key(name)["sha256"] for name in ("old", "new", "kept")))


async def test_one_worker_is_the_process_itself(place: Place) -> None:
    place.tables["ingress"]["workers"] = 1
    place.write()
    await place.serve()
    await place.posted(EVENT)
    assert workers_of(place) == []
    await place.stop()
