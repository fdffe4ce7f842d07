"""`journal check`, on real files."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from engine.adapters.data_directory import owned
from engine.adapters.segments.layout import HEADER_BYTES, read_header
from engine.assembly import Engine
from engine.config import Config
from engine.testing import FakeDestination

Run = Callable[..., Result]
CONFIG = """
[engine]
data_dir = "var"
[journal]
kind = "{kind}"
min_free_bytes = 0
[[account]]
environment = "sandbox"
base_url = "http://127.0.0.1:9"
org_id = "org"
[[destination]]
name = "demo"
event_code = "demo"
[[destination]]
name = "second"
event_code = "second"
"""
PEOPLE = [{"email": f"person{number}@example.com", "city": "x" * 200} for number in range(40)]
FILES = {"sqlite": "journal.db", "segments": "journal-000001.segment"}


@pytest.fixture(params=FILES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def journal(kind: str) -> str:
    """The name of its file."""
    return FILES[kind]


@pytest.fixture
def config(kind: str, config_file: Callable[..., Path]) -> Path:
    return config_file(CONFIG.replace("{kind}", kind))


@pytest.fixture
def data(config: Path) -> Path:
    """A data directory with a backlog of forty events at one destination, and none at the other."""
    asyncio.run(live(config, submit=True))
    return config.parent / "var"


async def live(config: Path, *, submit: bool = False) -> dict[str, Any]:
    """One life of an engine on these files; what its audit says at the end."""
    destinations = {"demo": FakeDestination(), "second": FakeDestination()}
    async with Engine(Config.load(config), destinations=destinations) as engine:
        if submit:
            await engine.pause("second")
            for person in PEOPLE:
                await engine.submit([person])
        else:
            await engine.resume("second")
            async with asyncio.timeout(30):
                while has_backlog(engine):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        return dict(await engine.control.audit())


def has_backlog(engine: Engine) -> bool:
    return any(one["counts"]["pending"] for one in engine.control.destinations())  # type: ignore[index]


def turn_a_bit(path: Path, text: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(text)] ^= 1
    path.write_bytes(bytes(content))


def contents(directory: Path) -> dict[str, bytes]:
    kept = ("journal", "state.db")
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.name.startswith(kept) and not path.name.endswith("-shm")
    }


def test_whole_files_are_called_whole(run: Run, data: Path) -> None:
    before = contents(data)
    result = run("journal", "check", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["journal"]["next"] == len(PEOPLE)
    assert report["journal"]["lost"] == []
    assert report["state"] == {"whole": True, "destinations": ["demo", "second"]}
    assert contents(data) == before, "looking changes nothing"
    assert "ok: nothing is damaged" in run("journal", "check").stdout


def test_a_damaged_row_is_named_and_the_rest_can_be_saved_and_delivered(
    run: Run, data: Path, config: Path, journal: str
) -> None:
    turn_a_bit(data / journal, b"person7@example.com")
    before = contents(data)
    result = run("journal", "check")
    assert result.exit_code == 1
    assert ": offsets 7 to 7 cannot be read" in result.stderr
    assert "--salvage" in result.stderr
    assert "NOT ok: 1 events are lost" in result.stdout
    assert "person" not in result.output, "data of people stays in the files"
    saved = run("journal", "check", "--salvage", str(data.with_name("saved")), "--json")
    assert saved.exit_code == 1
    assert json.loads(saved.stdout)["salvaged"]["files"] == [journal, "state.db"]
    assert contents(data) == before
    data.rename(data.with_name("damaged"))
    data.with_name("saved").rename(data)
    assert run("journal", "check").exit_code == 0
    audit = asyncio.run(live(config))
    assert audit["ok"], audit
    sums = audit["destinations"]["second"]
    assert (sums["accepted"], sums["excluded"], sums["delivered"] + sums["superseded"]) == (40, 1, 39)


def test_a_damaged_state_file_is_named(run: Run, data: Path) -> None:
    with closing(sqlite3.connect(data / "state.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO verdicts (consumer, through, folded, packed) VALUES (1, 5, 0, x'c1')")
    result = run("journal", "check")
    assert result.exit_code == 1
    assert "state.db cannot be read" in result.stderr
    assert "from one backup" in result.stderr


def test_a_missing_state_file_is_a_problem(run: Run, data: Path) -> None:
    (data / "state.db").unlink()
    result = run("journal", "check")
    assert result.exit_code == 1
    assert "state.db is missing" in result.stderr


def test_a_missing_journal_is_a_problem(run: Run, data: Path, journal: str) -> None:
    (data / journal).unlink()
    result = run("journal", "check")
    assert result.exit_code == 1
    assert "offsets" in result.stderr


def make_newer(path: Path) -> None:
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        return
    content = path.read_bytes()
    header = read_header(content)
    assert header is not None
    path.write_bytes(msgspec.structs.replace(header, version=99).packed() + content[HEADER_BYTES:])


@pytest.fixture(params=["journal", "state"])
def name(request: pytest.FixtureRequest, journal: str) -> str:
    return journal if request.param == "journal" else "state.db"


def test_a_file_of_a_newer_version_is_left_alone(name: str, run: Run, data: Path) -> None:
    make_newer(data / name)
    before = contents(data)
    result = run("journal", "check", "--salvage", str(data.with_name("saved")))
    assert result.exit_code == 1
    assert f"{name} has format 99" in result.stderr or "no journal of this engine" in result.stderr
    assert contents(data) == before
    assert not (data.with_name("saved") / name).exists()


@pytest.mark.parametrize("command", [["status"], ["audit"], ["destinations", "list"], ["backup", "copy"], ["serve"]])
@pytest.mark.parametrize("damage", ["newer", "garbage"])
def test_no_command_repairs_a_file_it_cannot_read(
    name: str, command: list[str], damage: str, run: Run, data: Path
) -> None:
    if damage == "newer":
        make_newer(data / name)
    else:
        (data / name).write_bytes(b"these are the notes of the last meeting\n" * 200)
    before = (data / name).read_bytes()
    result = run(*command)
    assert result.exit_code == 1
    assert name in result.stderr
    assert "newer version" in result.stderr if damage == "newer" else "journal check" in result.stderr
    assert (data / name).read_bytes() == before


def test_beside_a_running_engine_it_says_what_to_use(run: Run, data: Path) -> None:
    with owned(data):
        result = run("journal", "check")
    assert result.exit_code == 1
    assert "belongs to a running engine" in result.stderr
    assert "rainfocus-engine audit" in result.stderr


def test_without_files_there_is_nothing_to_check(run: Run, config: Path) -> None:
    result = run("journal", "check")
    assert result.exit_code == 1
    assert "no data directory" in result.stderr
    assert not (config.parent / "var").exists()
