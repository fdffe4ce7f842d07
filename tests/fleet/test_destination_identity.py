"""Destinations that are added, changed, renamed and removed, over restarts on a real disk (DESIGN §4, Limits)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import Config, ConfigError, Engine
from engine.assembly.offline import Removed, remove_destination, rename_destination
from engine.assembly.outlook import outlook
from engine.errors import DataDirectoryError, EngineError
from engine.ports import LetterFilter
from engine.testing.destination import FakeDestination, Step, reject

Tables = dict[str, Any]


def address(person: int) -> str:
    return f"p{person}@example.com"


class Disk:
    """A data directory, the configuration beside it, and one attendee store for each destination that ever was."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.tables: Tables = {
            "engine": {"data_dir": str(folder)},
            "journal": {"min_free_bytes": 0},
            "account": [{"name": "a", "rate": {"requests_per_second": 1_000.0, "burst": 10}}],
            "destination": [{"name": name, "retry": {"unknown_hold_seconds": 0.0}} for name in names],
        }
        self.stores: dict[str, FakeDestination] = {}
        self.written = 0

    @property
    def config(self) -> Config:
        return Config.from_dict(copy.deepcopy(self.tables))

    @property
    def names(self) -> list[str]:
        return [one["name"] for one in self.tables["destination"]]

    def engine(self) -> Engine:
        stores = {name: self.stores.setdefault(name, FakeDestination()) for name in self.names}
        return Engine(self.config, destinations=stores)

    async def write(self, engine: Engine, people: int = 3) -> None:
        """Events of so many people that nobody has met before, delivered wherever nothing is paused."""
        events = [{"email": address(self.written + number)} for number in range(people)]
        self.written += people
        receipt = await engine.submit(events)
        paused = {one["name"] for one in engine.control.destinations() if one["state"] == "paused"}
        if not paused:
            await receipt.settled(timeout=20)

    async def life(self, people: int = 3) -> Engine:
        """A start, a few events, a stop; the engine, for what it had to say."""
        async with self.engine() as engine:
            await self.write(engine, people)
            await self.drained(engine)
            assert (await engine.control.audit())["ok"]
        return engine

    async def drained(self, engine: Engine) -> None:
        for consumer in engine._parts.consumers if engine._parts else []:
            while not consumer.paused and consumer.pending(engine._parts.pipeline.commit.next_offset):
                await engine._parts.pipeline.settler.flush()

    async def backlog(self, name: str, people: int) -> None:
        """A life in which this destination stands still: so many events stay pending for it."""
        async with self.engine() as engine:
            await engine.pause(name)
            await self.write(engine, people)


def numbers(store: FakeDestination) -> set[int]:
    return {int(email.partition("@")[0][1:]) for email in store.stored}


# -- added ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start_at", "gets"), [("now", {3, 4, 5}), ("oldest", {0, 1, 2, 3, 4, 5})])
async def test_a_new_destination_begins_where_it_was_told(tmp_path: Path, start_at: str, gets: set[int]) -> None:
    """The first one stands still, so that the journal keeps everything."""
    disk = Disk(tmp_path, "one")
    await disk.backlog("one", 3)
    disk.tables["destination"].append({"name": "two", "start_at": start_at})
    seen = outlook(disk.config)
    assert seen is not None
    assert (seen.kept, seen.new, seen.changed, seen.orphaned) == (["one"], ["two"], [], [])
    async with disk.engine() as engine:
        assert any("'two' is new" in note and f"({start_at})" in note for note in engine.control.notes())
        assert engine.control.notes() == seen.notes
        await engine.resume("one")
        await disk.write(engine)
        await disk.drained(engine)
        assert (await engine.control.audit())["ok"]
    assert numbers(disk.stores["two"]) == gets
    assert numbers(disk.stores["one"]) == {0, 1, 2, 3, 4, 5}
    assert outlook(disk.config).new == []  # type: ignore[union-attr]


def test_there_is_nothing_to_say_before_the_first_start(tmp_path: Path) -> None:
    assert outlook(Disk(tmp_path / "nothing", "one").config) is None


# -- changed ----------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Tables] = {
    "url": {"destination": {"url_template": "{base}/api/{org_id}/v2/attendee/store"}},
    "base url": {"account": {"base_url": "http://127.0.0.1:9999"}},
    "org id": {"account": {"org_id": "other"}},
    "event code": {"destination": {"event_code": "other27"}},
}
NO_CHANGES: dict[str, Tables] = {
    "weight": {"destination": {"weight": 7}},
    "audiences": {"destination": {"audiences": ["vip"]}},
    "description": {"destination": {"description": "another one"}},
    "rate": {"account": {"rate": {"requests_per_second": 500.0, "burst": 5}}},
    "start_at": {"destination": {"start_at": "oldest"}},
}


def change(disk: Disk, changes: Tables) -> None:
    for kind, values in changes.items():
        disk.tables[kind][0] |= values


@pytest.mark.parametrize("what", CHANGES)
async def test_another_place_is_another_consumer_with_an_empty_ledger(tmp_path: Path, what: str) -> None:
    disk = Disk(tmp_path, "one")
    await disk.life()
    await disk.backlog("one", 2)
    change(disk, CHANGES[what])
    seen = outlook(disk.config)
    assert seen is not None
    assert (seen.kept, seen.changed) == ([], ["one"])
    async with disk.engine() as engine:
        assert engine.control.notes() == seen.notes
        (note,) = seen.notes
        assert "points somewhere else now" in note
        assert "up to 2 undelivered events of the old one expire" in note
        (one,) = engine.control.destinations()
        assert one["counts"] == dict.fromkeys(one["counts"], 0), "its sums begin anew"
        assert one["state"] == "active", "the pause was the old one's"
        assert (await engine.lookup(address(0)))["destinations"]["one"]["state"] == "unknown"  # type: ignore[index]
        receipt = await engine.submit([{"email": address(0)}])
        assert (await receipt.settled(timeout=20))["one"]["delivered"] == 1, "nothing is suppressed by what was there"
        assert (await engine.control.audit())["ok"]
    assert outlook(disk.config).kept == ["one"]  # type: ignore[union-attr]


@pytest.mark.parametrize("what", NO_CHANGES)
async def test_what_is_no_part_of_the_identity_changes_nothing(tmp_path: Path, what: str) -> None:
    disk = Disk(tmp_path, "one")
    await disk.life()
    change(disk, NO_CHANGES[what])
    seen = outlook(disk.config)
    assert seen is not None
    assert (seen.kept, seen.notes) == (["one"], [])
    async with disk.engine() as engine:
        assert engine.control.notes() == []
        assert (await engine.lookup(address(0)))["destinations"]["one"]["outcome"] == "delivered"  # type: ignore[index]


def test_the_environment_is_part_of_the_identity(tmp_path: Path) -> None:
    """Staging is a backend of its own: what one confirmed says nothing about the other."""
    disk = Disk(tmp_path, "one")
    account = {"environment": "stg", "org_id": "acme", "client_id": "x", "client_secret_file": str(tmp_path / "s")}
    account |= {"base_url": "https://gateway.example", "token_url": "https://gateway.example/token"}
    (tmp_path / "s").write_text("secret")
    disk.tables["account"][0] |= account
    disk.tables["destination"][0]["event_code"] = "acme27"
    staging = disk.config
    disk.tables["account"][0]["environment"] = "prod"
    production = disk.config
    identities = [it.destinations[0].identity(it.accounts[0]) for it in (staging, production)]
    assert (
        staging.describe()["destination"][0]["resolved_url"] == production.describe()["destination"][0]["resolved_url"]
    )
    assert identities[0] != identities[1]


# -- missing, removed, renamed ----------------------------------------------------------------------------------------


async def test_a_destination_that_is_missing_stops_the_start_and_both_commands_are_named(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "one", "two")
    await disk.life()
    await disk.backlog("two", 4)
    del disk.tables["destination"][1]
    with pytest.raises(ConfigError) as caught:
        await disk.engine().__aenter__()
    (problem,) = caught.value.problems
    assert "destinations remove two" in problem
    assert "destinations rename two NEW" in problem
    assert "up to 4 undelivered events" in problem
    assert outlook(disk.config).problems == [problem]  # type: ignore[union-attr]
    disk.tables["destination"].append({"name": "two"})
    await disk.life()
    assert disk.stores["two"].stored.keys() <= disk.stores["one"].stored.keys()


async def test_removing_expires_the_backlog_counts_it_and_keeps_the_letters(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "one", "two")
    disk.stores["two"] = FakeDestination([Step(reject())])
    await disk.life()
    await disk.backlog("two", 5)
    with pytest.raises(EngineError, match="still in the configuration"):
        await remove_destination(disk.config, "two")
    del disk.tables["destination"][1]
    assert await remove_destination(disk.config, "two") == Removed(expired=5, letters=1)
    with pytest.raises(EngineError, match="nothing is stored of a destination 'two'; there are: one"):
        await remove_destination(disk.config, "two")
    async with disk.engine() as engine:
        letters = await engine.dead_letters.letters(LetterFilter(), 10)
        assert [one["destination"] for one in letters["letters"]] == ["two"]  # type: ignore[attr-defined]
        assert await engine.dead_letters.replay(LetterFilter()) == {"matched": 1, "replayed": 0}
        assert (await engine.control.audit())["ok"]
        await disk.drained(engine)
        buried = bytes.fromhex(letters["letters"][0]["key"])  # type: ignore[index]
        await engine.control.forget(buried)
        with anyio.fail_after(20):
            while (await engine.dead_letters.letters(LetterFilter(), 10))["letters"]:  # noqa: ASYNC110 - no event for it
                await anyio.sleep(0.01)
    assert numbers(disk.stores["one"]) == set(range(disk.written))
    disk.tables["destination"].append({"name": "two"})
    disk.stores["two"] = FakeDestination()
    await disk.life(2)
    assert len(disk.stores["two"].stored) == 2, "of the same name, and new"


async def test_renaming_moves_the_backlog_and_sends_nothing_twice(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "one", "two")
    await disk.life()
    await disk.backlog("two", 4)
    before = len(disk.stores["two"].requests)
    with pytest.raises(EngineError, match="'new' is not in the configuration"):
        await rename_destination(disk.config, "two", "new")
    disk.tables["destination"][1]["name"] = "new"
    disk.stores["new"] = disk.stores["two"]
    await rename_destination(disk.config, "two", "new")
    async with disk.engine() as engine:
        assert engine.control.notes() == []
        assert [one["state"] for one in engine.control.destinations()] == ["active", "paused"], "the pause has moved"
        repeated = await engine.submit([{"email": address(0)}])
        await engine.resume("new")
        counts = await repeated.settled(timeout=20)
        assert counts is not None
        assert counts["new"]["suppressed"] == 1, "the ledger has moved as well"
        await disk.drained(engine)
        assert (await engine.control.audit())["ok"]
    assert len(disk.stores["new"].requests) == before + 4
    assert numbers(disk.stores["new"]) == set(range(disk.written))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("two", "one", "'one' has a backlog of its own"),
        ("one", "other", "'one' is still in the configuration"),
        ("three", "other", "nothing is stored of a destination 'three'; there are: one, two"),
        ("two", "other", "points somewhere else than 'two' did"),
    ],
)
async def test_a_rename_that_would_mix_two_places_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    disk = Disk(tmp_path, "one", "two")
    await disk.life()
    disk.tables["destination"] = [{"name": "one"}, {"name": "other", "event_code": "elsewhere"}]
    with pytest.raises(EngineError) as caught:
        await rename_destination(disk.config, old, new)
    assert says in str(caught.value)


async def test_neither_is_possible_while_an_engine_runs_and_it_is_named(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "one")
    async with disk.engine():
        renamed = Disk(tmp_path, "new").config
        for order in (remove_destination(renamed, "one"), rename_destination(renamed, "one", "new")):
            with pytest.raises(DataDirectoryError, match=r"belongs to a running engine \(process \d+"):
                await order
        seen = outlook(renamed)  # looking is possible, and disturbs nobody
        assert seen is not None
        assert (seen.new, seen.orphaned) == (["new"], ["one"])


# -- paused -----------------------------------------------------------------------------------------------------------


async def test_a_pause_is_of_one_destination_and_survives_a_restart(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "one", "two")
    await disk.backlog("two", 3)
    async with disk.engine() as engine:
        assert {one["name"]: one["state"] for one in engine.control.destinations()} == {
            "one": "active",
            "two": "paused",
        }
        await disk.write(engine)
        await disk.drained(engine)
        assert numbers(disk.stores["one"]) == set(range(6))
        assert disk.stores["two"].stored == {}
        await engine.resume("two")
        await disk.drained(engine)
    async with disk.engine() as engine:
        assert {one["state"] for one in engine.control.destinations()} == {"active"}
    assert numbers(disk.stores["two"]) == set(range(6))
