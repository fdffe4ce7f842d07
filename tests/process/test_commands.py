"""The command line against real processes: on the files of a stopped engine, and over HTTP on a running one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness import Place, Sandbox, place_at

pytestmark = pytest.mark.process

LEA, TOM, EVE = "lea@people.example", "tom@people.example", "eve@people.example"
REFUSED = {"kind": "error_code", "code": "27", "status": 400}


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        yield made


class Commands:
    """Commands as they are typed: with --url for a running engine whose port the configuration does not say."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def __call__(self, *arguments: str, stdin: str = "") -> Any:
        url = ("--url", self._place.url) if self._place.url else ()
        return await self._place.done(*arguments, *url, stdin=stdin)


async def sums(command: Commands) -> dict[str, Any]:
    report = await command("audit")
    assert report["ok"], report
    return dict(report["destinations"]["demo"])


async def with_letters(place: Place, sandbox: Sandbox) -> None:
    """Lea is delivered; Tom and Eve are refused, so they are dead letters."""
    await place.serve()
    await place.posted({"email": LEA, "city": "Lille"})
    await place.settled()
    await sandbox.faults(REFUSED)
    await place.posted({"email": TOM, "city": "Tours"}, {"email": EVE, "city": "Evry"})
    await place.settled()
    await sandbox.faults()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_letters_are_listed_replayed_and_purged_and_people_forgotten(
    place: Place, sandbox: Sandbox, running: bool
) -> None:
    await with_letters(place, sandbox)
    if not running:
        await place.stop()
    command = Commands(place)
    before = await sums(command)
    assert (before["accepted"], before["delivered"], before["dead_lettered"]) == (3, 1, 2)
    person = (await command("status", "-", stdin=LEA))["destinations"]["demo"]
    assert (person["state"], person["outcome"]) == ("settled", "delivered")
    letters = (await command("dead-letters", "list"))["letters"]
    assert [one["reason"] for one in letters] == ["response_code_27"] * 2
    assert "people.example" not in str(letters)
    emails = {one["id"]: (await command("dead-letters", "show", str(one["id"])))["content"]["email"] for one in letters}
    (toms,) = [id for id, email in emails.items() if email == TOM]
    assert (await command("dead-letters", "replay", "--dry-run"))["matched"] == 2
    assert (await command("dead-letters", "replay", "--id", str(toms)))["replayed"] == 1
    assert (await command("dead-letters", "purge", "--yes"))["purged"] == 1
    assert (await command("dead-letters", "list"))["letters"] == []
    await command("forget", "-", "--yes", stdin=LEA)
    if not running:
        assert (await sums(command))["pending"] > 0
        await place.serve()
    await place.settled()
    assert set(await sandbox.attendees()) == {LEA, TOM}
    assert (await command("status", "-", stdin=LEA))["destinations"]["demo"]["state"] == "unknown"
    assert (await command("status", "-", stdin=TOM))["destinations"]["demo"]["outcome"] == "delivered"
    await place.balanced()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_a_destination_is_paused_and_resumed(place: Place, sandbox: Sandbox, running: bool) -> None:
    await place.serve()
    if not running:
        await place.stop()
    command = Commands(place)
    await command("destinations", "pause", "demo")
    assert [one["state"] for one in (await command("destinations", "list"))["destinations"]] == ["paused"]
    if not running:
        await place.serve()
    await place.posted({"email": LEA, "city": "Lille"})
    if not running:
        await place.stop()
        assert (await sums(command))["pending"] == 1
    assert await sandbox.attendees() == {}
    await command("destinations", "resume", "demo")
    if not running:
        await place.serve()
    await place.settled()
    assert await sandbox.attendees() == {LEA: {"city": "Lille"}}


async def test_a_destination_is_renamed_and_removed_while_the_engine_is_stopped(place: Place, sandbox: Sandbox) -> None:
    await place.serve()
    command = Commands(place)
    await command("destinations", "pause", "demo")
    await place.posted({"email": LEA, "city": "Lille"})
    refused = await place.command("destinations", "rename", "demo", "other")
    assert (refused.code, "Traceback" in refused.err) == (1, False)
    await place.stop()
    place.tables["destination"][0]["name"] = "renamed"
    place.write()
    orphaned = await place.command("serve")
    assert orphaned.code == 78
    assert "destinations remove" in orphaned.err
    assert "destinations rename" in orphaned.err
    await place.done("destinations", "rename", "demo", "renamed")
    (found,) = (await command("destinations", "list"))["destinations"]
    assert (found["name"], found["state"], found["counts"]["pending"]) == ("renamed", "paused", 1)
    await command("destinations", "resume", "renamed")
    await place.serve()
    await place.settled()
    assert await sandbox.attendees() == {LEA: {"city": "Lille"}}
    await place.stop()
    place.tables["destination"][0]["name"] = "fresh"
    place.write()
    await place.done("destinations", "remove", "renamed", "--yes")
    assert [one["name"] for one in (await command("destinations", "list"))["destinations"]] == ["fresh"]


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_an_engine_starts_from_a_backup(place: Place, sandbox: Sandbox, tmp_path: Path, running: bool) -> None:
    await place.serve()
    await place.posted({"email": LEA, "city": "Lille"})
    await place.settled()
    command = Commands(place)
    await command("destinations", "pause", "demo")
    await place.posted({"email": TOM, "city": "Tours"})
    if not running:
        await place.stop()
    made = await command("backup", str(tmp_path / "copy"))
    assert made["bytes"] > 0
    if running:
        await place.kill()
    place.tables["engine"]["data_dir"] = str(tmp_path / "copy")
    place.write()
    before = await sums(command)
    assert (before["accepted"], before["delivered"], before["pending"]) == (2, 1, 1)
    await command("destinations", "resume", "demo")
    await place.serve()
    await place.settled()
    assert set(await sandbox.attendees()) == {LEA, TOM}
    await place.balanced()


async def test_a_connection_is_tested_without_and_with_an_engine(place: Place, sandbox: Sandbox) -> None:
    steps = ["resolve", "connect", "token"]
    checked = (await place.done("check", "--connect"))["connections"]["demo"]
    assert [step["step"] for step in checked["steps"]] == steps
    assert await sandbox.attendees() == {}
    for command in (("check", "--connect"), ("destinations", "test", "demo")):
        answer = await place.done(*command, "--store", EVE)
        assert EVE not in str(answer)
        result = answer["connections"]["demo"] if command[0] == "check" else answer
        assert [step["step"] for step in result["steps"]] == [*steps, "store"]
    await place.serve()
    answer = await Commands(place)("destinations", "test", "demo", "--store", LEA)
    assert [step["step"] for step in answer["steps"]] == [*steps, "store"]
    assert await sandbox.attendees() == {LEA: {}, EVE: {}}
    await place.balanced()
