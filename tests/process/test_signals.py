"""What signals do to a running engine, and what a process that cannot start says."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import Oracle, Place, Producer, Sandbox, place_at, until

pytestmark = pytest.mark.process

SLOW = {"kind": "latency", "seconds": 1.5}
BACKLOG = 300


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        yield made


def person(number: int) -> str:
    return f"p{number}@people.example"


async def in_flight(place: Place) -> None:
    """Wait until an attempt is under way."""

    async def sending() -> bool:
        return (await place.destination())["leased"] > 0

    await until(sending, "nothing is ever sent")


async def test_sigterm_drains_refuses_new_requests_and_leaves_the_backlog_for_the_next_start(
    place: Place, sandbox: Sandbox
) -> None:
    await sandbox.faults(SLOW)
    await place.serve()
    await place.posted(*({"email": person(number), "city": "Lille"} for number in range(BACKLOG)))
    await in_flight(place)
    place.engine.send(signal.SIGTERM)

    async def unready() -> bool:
        return (await place.ask("GET", "/readyz"))[0] == 503

    await until(unready, "it drains and calls itself ready")
    status, problem, headers = await place.ask("POST", "/v1/profiles", {"email": person(1), "city": "Lyon"})
    assert (status, problem["type"]) == (503, "draining")
    assert int(headers["Retry-After"]) > 0
    assert (await place.ask("GET", "/livez"))[0] == 200
    assert await place.engine.ended() == 0
    assert 0 < len(await sandbox.attendees()) < BACKLOG
    await sandbox.faults()
    await place.serve()
    await place.settled()
    assert await sandbox.attendees() == {person(number): {"city": "Lille"} for number in range(BACKLOG)}
    sums = (await place.balanced())["demo"]
    assert (sums["accepted"], sums["delivered"]) == (BACKLOG, BACKLOG)
    assert (await sandbox.stats())["updated"] == 0, "a clean stop sends nothing twice"


async def test_a_drain_ends_at_its_limit_when_attempts_do_not(place: Place, sandbox: Sandbox) -> None:
    place.tables["engine"]["drain_timeout_seconds"] = 1.0
    place.tables["destination"][0]["retry"]["timeout_seconds"] = 0.9
    place.write()
    await sandbox.faults({"kind": "timeout", "seconds": 60})
    await place.serve()
    await place.posted({"email": person(1), "city": "Lille"})
    await in_flight(place)
    async with asyncio.timeout(10):
        await place.stop()
    await sandbox.faults()
    await place.serve()
    await place.settled()
    assert await sandbox.attendees() == {person(1): {"city": "Lille"}}


async def test_a_second_sigterm_ends_at_once_with_1_and_loses_nothing(place: Place, sandbox: Sandbox) -> None:
    producer = Producer("twice", place)
    async with producer.producing():
        await place.serve()
        await sandbox.faults(SLOW)
        await in_flight(place)
        place.engine.send(signal.SIGTERM)
        await place.logged("draining")
        place.engine.send(signal.SIGTERM)
        assert await place.engine.ended() == 1
        await sandbox.faults()
        await place.serve()
        await place.posted({"email": person(0), "city": "Lille"})
    await place.settled()
    await place.balanced()
    stored = await sandbox.attendees()
    assert stored.pop(person(0)) == {"city": "Lille"}
    expected = Oracle(producer).fold(stored)
    assert stored == expected
    assert (await sandbox.stats())["regressions"] == 0


def key(name: str) -> dict[str, object]:
    sha256 = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
    return {"name": name, "sha256": sha256, "scopes": ["profiles:write", "destinations:view"]}


async def status_with(place: Place, name: str) -> int:
    authorization = f"Bearer secret-of-{name}"
    event = {"email": person(1), "city": "Lille"}
    return (await place.ask("POST", "/v1/profiles", event, Authorization=authorization))[0]


async def test_sighup_exchanges_the_keys_and_refuses_a_bad_file_as_a_whole(place: Place) -> None:
    place.tables["ingress"]["keys"] = [key("old"), key("kept")]
    place.write()
    await place.serve()
    assert [await status_with(place, name) for name in ("old", "kept", "new")] == [202, 202, 401]
    place.tables["ingress"]["keys"] = [key("new"), key("kept")]
    place.tables["destination"][0]["weight"] = 2
    place.write()
    place.engine.send(signal.SIGHUP)
    await place.logged("configuration reloaded")
    assert [await status_with(place, name) for name in ("old", "kept", "new")] == [401, 202, 202]
    await place.logged("destination has changed: it takes effect with the next start")
    place.tables["ingress"]["keys"] = [key("third")]
    place.tables["destination"][0]["weigth"] = 3
    place.write()
    place.engine.send(signal.SIGHUP)
    await place.logged("configuration not reloaded")
    assert [await status_with(place, name) for name in ("old", "kept", "new", "third")] == [401, 202, 202, 401]
    place.check_discreet("secret-of-", *(key(name)["sha256"] for name in ("old", "kept", "new", "third")))


async def test_a_second_engine_on_the_same_directory_is_refused_with_the_name_of_the_first(place: Place) -> None:
    first = await place.serve()
    result = await place.command("serve", "--json")
    assert (result.code, result.out) == (1, "")
    assert f"process {first.pid} on {socket.gethostname()}" in result.err
    assert "Traceback" not in result.err
    await place.posted({"email": person(1), "city": "Lille"})


async def test_a_configuration_with_problems_ends_with_78_and_all_of_them(place: Place) -> None:
    place.tables["ingress"]["answer_timeout_seconds"] = "soon"
    place.tables["account"][0]["rate"]["burst"] = 1
    place.tables["destination"][0]["colour"] = "blue"
    place.write()
    for command in ("serve", "check", "audit"):
        result = await place.command(command)
        assert (result.code, result.out) == (78, "")
        assert all(name in result.err for name in ("answer_timeout_seconds", "burst", "colour"))


async def test_a_taken_port_ends_with_1_and_a_sentence(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        place.tables["ingress"]["port"] = port
        place.write()
        result = await place.command("serve")
    assert (result.code, result.out) == (1, "")
    assert str(port) in result.err
    assert "address already in use" in result.err.lower()
    assert "Traceback" not in result.err
