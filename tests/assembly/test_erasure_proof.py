"""Forgotten means erased: no byte of the person is left in any file, and the proof of it can fail."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import Config, Engine
from engine.adapters.traces import search, spellings
from engine.assembly.offline import open_control
from engine.assembly.service import Service
from engine.cli.client import Client
from engine.dispatcher import holding
from engine.model import Batch, Reply
from engine.ports import Permit
from engine.profiles.identity import key_of
from engine.testing.destination import FakeDestination, Step, ok, reject

EMAIL = "léa.martin@example.com"
PHONE = "+33320000000"
LEA = {"email": EMAIL, "phone": PHONE, "city": "Lille", "consents": {"marketing.email": "y"}}
ANA = {"email": "ana@example.com", "city": "Lens", "consents": {"marketing.email": "y"}}
JOURNALS = {"sqlite": "journal.db", "segments": "journal-000001.segment"}
OTHERS = [{"email": f"p{n}@example.com", "consents": {"marketing.email": "y"}} for n in range(3)]


class Slow(FakeDestination):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.released = anyio.Event(), anyio.Event()

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        self.asked.set()
        await self.released.wait()
        return await super().send(batch, permit)


class Stage:
    """An engine on disk with four destinations: one that stores, one that rejects, a slow one and a paused one."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory, self.journal = directory / "var", JOURNALS[kind]
        names = ("stores", "rejects", "slow", "paused")
        consent = [{"required": "marketing.email"}]
        destinations = [{"name": it, "event_code": it, "start_at": "oldest", "consent": consent} for it in names]
        self.config = Config.from_dict(
            {
                "ingress": {"port": 0},
                "journal": {"kind": kind},
                "account": [{"rate": {"requests_per_second": 1_000.0, "burst": 10}}],
                "destination": destinations,
            },
            base=directory,
        )
        self.slow = Slow()
        self.destinations = {
            "stores": FakeDestination(answer=lambda batch: Step(ok("attendee-1"))),
            "rejects": FakeDestination(answer=lambda batch: Step(reject())),
            "slow": self.slow,
            "paused": FakeDestination(),
        }

    def engine(self) -> Engine:
        return Engine(self.config, destinations=self.destinations)

    def left(self, *texts: str) -> dict[str, list[str]]:
        """file -> which of the texts its bytes hold. Nothing of the engine has a part in it."""
        held: dict[str, list[str]] = {}
        for path in sorted(it for it in self.directory.rglob("*") if it.is_file()):
            content = path.read_bytes()
            held[path.name] = [text for text in texts if text.encode() in content]
        return {name: found for name, found in held.items() if found}

    async def spread(self, engine: Engine) -> None:
        """Lea everywhere: in the journal, delivered, dead-lettered, under way, waiting and held."""
        await engine.pause("paused")
        await engine.submit([LEA, ANA, *OTHERS])
        await self.slow.asked.wait()
        settler = engine._running().pipeline.settler
        for name in ("stores", "rejects"):
            while await self.state_of(engine, name) != "settled":
                await settler.flush()
        while not await self.is_held(engine):
            settler.dirty()
            await settler.flush()

    async def state_of(self, engine: Engine, name: str) -> str:
        found: Any = await engine.lookup(EMAIL)
        return str(found["destinations"][name]["state"])

    async def is_held(self, engine: Engine) -> bool:
        parts = engine._running()
        stored = await parts.state.keys("paused", [key_of(EMAIL)])
        return any(it.held is not None for it in stored.values())


@pytest.fixture(params=JOURNALS)
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Whatever holds back the watermark is held at once."""
    monkeypatch.setattr(holding, "STRAGGLER_SPAN_EVENTS", -1)
    monkeypatch.setattr(holding, "STRAGGLERS_EVERY_SECONDS", 0.0)
    return Stage(tmp_path, str(request.param))


async def proof(engine: Engine, offset: object, wait_seconds: float = 20.0) -> dict[str, Any]:
    return await engine.control.traces(
        key_of(EMAIL), [EMAIL, PHONE], offset=int(str(offset)), wait_seconds=wait_seconds
    )


async def test_a_forget_leaves_no_byte_of_the_person_in_any_file(stage: Stage) -> None:
    """Before it she is in both files and their logs; after it her bytes are nowhere, and nobody else is touched."""
    async with stage.engine() as engine:
        await stage.spread(engine)
        before = stage.left(EMAIL, PHONE)
        assert any(name.startswith(stage.journal) for name in before)
        assert any(name.startswith("state.db") for name in before), "dead-lettered and held"
        ordered = await engine.forget(EMAIL)
        stage.slow.released.set()
        report = await proof(engine, ordered["offset"])
        assert stage.left(EMAIL, PHONE) == {}
        assert (report["done"], report["ok"], report["found"]) == (True, True, 0)
        assert {it["file"] for it in report["files"]} >= {stage.journal, "state.db"}
        assert stage.left(ANA["email"]), "nobody else is touched"
        audit = await engine.control.audit()
        assert audit["ok"], audit
    assert stage.left(EMAIL, PHONE) == {}


async def test_while_an_attempt_is_under_way_nothing_is_proved(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.spread(engine)
        ordered = await engine.forget(EMAIL)
        report = await proof(engine, ordered["offset"], wait_seconds=0.2)
        assert (report["done"], report["ok"], report["waiting_for"]) == (False, False, ["slow"])
        stage.slow.released.set()
        assert (await proof(engine, ordered["offset"]))["ok"]


async def test_the_proof_fails_for_who_was_not_forgotten(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.spread(engine)
        stage.slow.released.set()
        report = await proof(engine, -1)
        assert report["done"]
        assert not report["ok"]
        assert report["found"] > 0
        assert EMAIL not in json.dumps(report, ensure_ascii=False), "a proof is shown around: it quotes nobody"


async def test_who_comes_back_after_the_forget_is_found_again(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.spread(engine)
        stage.slow.released.set()
        ordered = await engine.forget(EMAIL)
        assert (await proof(engine, ordered["offset"]))["ok"]
        await engine.submit([LEA])
        assert not (await proof(engine, ordered["offset"]))["ok"]


async def test_an_engine_that_was_killed_before_it_had_erased_does_it_when_it_starts(stage: Stage) -> None:
    engine = stage.engine()
    await engine.__aenter__()
    await stage.spread(engine)
    ordered = await engine.forget(EMAIL)
    await engine.kill()
    assert stage.left(EMAIL)
    stage.slow.released.set()
    async with stage.engine() as again:
        assert (await proof(again, ordered["offset"]))["ok"]
    assert stage.left(EMAIL, PHONE) == {}


async def test_the_files_of_a_stopped_engine_are_erased_and_proved_as_well(stage: Stage) -> None:
    stage.slow.released.set()
    async with stage.engine() as engine:
        await stage.spread(engine)
    assert stage.left(EMAIL)
    async with open_control(stage.config) as control:
        ordered = await control.forget(key_of(EMAIL))
        report = await control.traces(
            key_of(EMAIL), [EMAIL, PHONE], offset=int(str(ordered["offset"])), wait_seconds=20.0
        )
        assert report["ok"], report
    assert stage.left(EMAIL, PHONE) == {}


@asynccontextmanager
async def served(stage: Stage) -> AsyncIterator[tuple[Service, Client]]:
    service = Service(stage.config)
    service.engine = stage.engine()
    async with service, Client(service.urls["admin"]) as client:
        yield service, client


async def test_a_running_engine_proves_it_over_http(stage: Stage) -> None:
    stage.slow.released.set()
    async with served(stage) as (service, client):
        await stage.spread(service.engine)
        before = await client.traces(EMAIL, [PHONE], -1, 0.0)
        assert (before["done"], before["ok"]) == (True, False)
        ordered = await client.forget(EMAIL)
        after = await client.traces(EMAIL, [PHONE], ordered["offset"], 20.0)
        assert (after["done"], after["ok"], after["found"]) == (True, True, 0)
        assert stage.left(EMAIL, PHONE) == {}


# -- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: f"  {text.upper()}\n",
        lambda text: json.dumps({"email": text}),
        lambda text: json.dumps({"email": text}, ensure_ascii=False),
        lambda text: text.replace("é", "e\N{COMBINING ACUTE ACCENT}"),
        lambda text: "l%C3%A9a.martin%40example.com",
    ],
)
def test_whatever_the_spelling_it_is_found(tmp_path: Path, write: Callable[[str], str]) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "some.log").write_text(f"before {write(EMAIL)} after", encoding="utf-8")
    (found,) = search(tmp_path, [EMAIL])
    assert (found.file, found.found) == ("deep/some.log", 1)


def test_it_is_found_in_utf_16_and_over_the_end_of_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wide.log").write_bytes(EMAIL.encode("utf-16"))
    assert [it.found for it in search(tmp_path, [EMAIL])] == [1]
    (tmp_path / "wide.log").write_bytes(b"x" * 5 + EMAIL.encode() + b"x" * 5 + EMAIL.encode())
    for size in range(1, 40):
        monkeypatch.setattr("engine.adapters.traces.CHUNK_BYTES", size)
        assert [it.found for it in search(tmp_path, [EMAIL])] == [2], size


def test_what_lies_in_pieces_on_several_pages_is_found_in_the_rows(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE some (content BLOB)")
        for before in range(0, 4_096, 7):  # somewhere in there the address lies over the end of a page
            connection.execute("INSERT INTO some VALUES (?)", ((b"x" * before + EMAIL.encode()).ljust(10_000),))
    connection.close()
    (found,) = search(tmp_path, [EMAIL])
    assert found.rows == len(range(0, 4_096, 7))
    assert found.found < found.rows, "bytes alone would have missed some"
    assert [it.name for it in tmp_path.iterdir()] == ["other.db"], "and nothing was written beside it"


def test_a_file_that_cannot_be_searched_whole_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    (found,) = search(tmp_path, [EMAIL])
    assert "could not be searched" in found.problem


def test_other_people_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "some.log").write_text("lea.martin@example.com léa.martin@example.org")
    assert [it.found for it in search(tmp_path, [EMAIL])] == [0]
    assert b"" not in spellings("  ")
