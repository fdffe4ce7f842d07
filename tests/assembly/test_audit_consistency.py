"""The audit names what is wrong: every rule of it, broken once in the files of an engine that was stopped."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from engine import Config, Engine
from engine.adapters.sqlite import parts
from engine.adapters.sqlite.folding import Folding
from engine.assembly.offline import open_control
from engine.cli.app import app
from engine.core.codec import decode_entry, encode_entry, pack_profile, unpack_profile
from engine.errors import DataDirectoryError
from engine.model import LedgerEntry
from engine.testing.destination import FakeDestination, Step, reject

Damage = Callable[[sqlite3.Connection], object]


def config_of(folder: Path, buffer: int = 40) -> Config:
    return Config.from_dict(
        {
            "journal": {"kind": "sqlite"},  # its rows are damaged on purpose
            "buffer": {"max_profiles": buffer},
            "account": [{"rate": {"requests_per_second": 2_000.0, "burst": 20}}],
            "destination": [
                {"name": name, "batch": {"max_profiles": 10, "linger_ms": 0}} for name in ("demo", "still")
            ],
        },
        base=folder,
    )


def answer(batch: Any) -> Step:
    return Step(reject()) if b"bad" in batch.records[0] else Step()


def people(begin: int, end: int) -> list[dict[str, str]]:
    return [{"email": f"p{n}@example.com", "city": str(n)} for n in range(begin, end)]


async def _fill(folder: Path) -> None:
    """Delivered, dead-lettered, pending and held profiles; cut off, so that nothing is tidied up."""
    stores = {name: FakeDestination(answer=answer) for name in ("demo", "still")}
    engine = await Engine(config_of(folder), destinations=stores).__aenter__()
    await (await engine.submit([*people(0, 20), {"email": "bad@example.com"}])).settled(timeout=20)
    await engine.pause("still")
    for begin in range(0, 60, 20):
        await engine.submit(people(begin, begin + 20), lane="backfill")
    with anyio.fail_after(20):
        while not engine.control.destinations()[1]["held"]:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    report = await engine.control.audit()
    assert report["ok"], report
    await engine.kill()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    anyio.run(_fill, folder)
    return folder


async def audited(folder: Path) -> dict[str, Any]:
    """With room for everything: what is read again would go to disk again, and hide what is wrong there."""
    async with open_control(config_of(folder, buffer=400)) as control:
        return await control.audit()


def damaged(filled: Path, folder: Path, file: str, damage: Damage) -> Path:
    shutil.copytree(filled, folder, dirs_exist_ok=True)
    connection = sqlite3.connect(folder / "var" / file, isolation_level=None)
    damage(connection)
    connection.close()
    return folder


def sql(statement: str) -> Damage:
    def damage(connection: sqlite3.Connection) -> object:
        done = connection.execute(statement)
        assert done.rowcount, "it did no damage"
        return done

    return damage


def ledger(change: Callable[[LedgerEntry], LedgerEntry]) -> Damage:
    """Every entry of the ledger changed, as if it had been written so."""

    def changed(raws: list[bytes]) -> list[bytes]:
        return [encode_entry(change(decode_entry(raw))) for raw in raws]

    def damage(connection: sqlite3.Connection) -> object:
        Folding(1).fold_some(connection)
        blocks = connection.execute("SELECT id FROM block").fetchall()
        assert blocks, "it did no damage"
        return [parts.rewrite(connection, id, changed) for (id,) in blocks]

    return damage


def test_the_files_as_they_were_left_are_in_order(filled: Path, tmp_path: Path) -> None:
    report = anyio.run(audited, damaged(filled, tmp_path, "state.db", lambda connection: None))
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["journal"]["next"] == 81
    assert report["destinations"]["still"]["pending"] > 0


def test_what_nobody_needs_any_more_in_the_journal_is_no_problem(tmp_path: Path) -> None:
    async def main() -> None:
        stores = {name: FakeDestination() for name in ("demo", "still")}
        async with Engine(config_of(tmp_path), destinations=stores) as engine:
            await (await engine.submit(people(0, 20))).settled(timeout=20)
        report = await audited(tmp_path)
        assert report["ok"], report
        assert report["journal"] == {"first": 0, "next": 20, "reclaimable": 20}

    anyio.run(main)


def _held(change: Callable[[Any], None]) -> Damage:
    """Change one held profile where it is packed."""

    def damage(connection: sqlite3.Connection) -> None:
        id, packed = connection.execute("SELECT id, profile FROM held WHERE kind = 'waiting' LIMIT 1").fetchone()
        profile = unpack_profile(packed)
        change(profile)
        connection.execute("UPDATE held SET profile = ? WHERE id = ?", (pack_profile(profile), id))

    return damage


def _beyond(profile: Any) -> None:
    profile.last = 10_000_000


def _more_than_accounted(profile: Any) -> None:
    profile.through = profile.last + 1


def _one_more(profile: Any) -> None:
    profile.events += 1


STATE: dict[str, tuple[Damage, str]] = {
    "read_to": (
        sql("UPDATE consumer SET read_to = watermark - 1 WHERE name = 'demo'"),
        "more is settled than was ever read",
    ),
    "start": (sql("UPDATE consumer SET start = watermark + 1 WHERE name = 'demo'"), "is below its start"),
    "ledger, settled": (
        ledger(lambda entry: replace(entry, settled_through=1_000_000)),
        "and the journal ends before 81: acknowledged events were lost",
    ),
    "ledger, confirmed": (
        ledger(lambda entry: replace(entry, settled_through=1_000_000, confirmed_through=1_000_000)),
        "acknowledged events were lost",
    ),
    "ledger, backwards": (
        ledger(lambda entry: replace(entry, confirmed_through=entry.settled_through + 1)),
        "ledger rows confirm more than is settled",
    ),
    "ledger, key": (ledger(lambda entry: replace(entry, key=entry.key + b"0")), "ledger rows have a key that is none"),
    "verdicts, through": (
        sql("UPDATE verdicts SET through = through - 1"),
        "and says",
    ),
    "verdicts, gone": (sql("DELETE FROM verdicts"), "held profiles would be read again"),
    "held, counted": (sql("UPDATE held SET events = events + 1 WHERE kind = 'waiting'"), "held profiles with"),
    "held, packed": (_held(_one_more), "held profiles with"),
    "held, gone": (
        sql("DELETE FROM held WHERE id = (SELECT min(id) FROM held WHERE kind = 'waiting')"),
        "have no outcome and are not pending",
    ),
    "held, beyond": (_held(_beyond), "hold events from beyond what is in the journal"),
    "held, backwards": (_held(_more_than_accounted), "held profiles hold more than they account for"),
    "held, kind": (sql("UPDATE held SET kind = 'mislaid' WHERE kind <> 'waiting'"), "which there is not"),
    "letters, state": (sql("UPDATE held SET state = 'eaten' WHERE kind <> 'waiting'"), "which there is not"),
    "count, one more": (sql("UPDATE count SET events = events + 1 WHERE name = 'delivered'"), "counted more than once"),
    "count, one less": (sql("UPDATE count SET events = events - 1 WHERE name = 'delivered'"), "have no outcome"),
    "count, negative": (sql("UPDATE count SET events = -5 WHERE name = 'delivered'"), "is negative: -5"),
    "count, unknown": (
        sql("UPDATE count SET name = 'evaporated' WHERE name = 'delivered'"),
        "'evaporated' is of no outcome that there is",
    ),
    "not addressed": (sql("UPDATE consumer SET not_addressed = 1000"), "are said not to be for it"),
    "orphan": (sql("INSERT INTO count VALUES (99, 'delivered', 1)"), "rows of table count belong to no destination"),
    "pause": (sql("INSERT INTO pause VALUES ('demo', 32503680000.0)"), "no Retry-After lasts so long"),
    "pause, endless": (sql("INSERT INTO pause VALUES ('demo', 9e999)"), "no Retry-After lasts so long"),
}


@pytest.mark.parametrize("name", STATE)
def test_the_audit_names_what_is_wrong_in_the_state(filled: Path, tmp_path: Path, name: str) -> None:
    damage, said = STATE[name]
    report = anyio.run(audited, damaged(filled, tmp_path, "state.db", damage))
    assert not report["ok"]
    assert any(said in problem for problem in report["problems"]), report["problems"]


REFUSED: dict[str, tuple[str, Damage, str]] = {
    "a journal that ends below a watermark": (
        "journal.db",
        sql("DELETE FROM append WHERE first > 0"),
        "journal.db is damaged \\(offsets .* are missing\\)",
    ),
    "a watermark beyond the journal": (
        "state.db",
        sql("UPDATE consumer SET watermark = 1000000, read_to = 1000000"),
        "state.db knows of offsets up to",
    ),
    "a journal that begins after a watermark": (
        "journal.db",
        sql("DELETE FROM append WHERE first < 60"),
        "still needs the events from offset",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_go_on_are_refused_with_the_reason(filled: Path, tmp_path: Path, name: str) -> None:
    file, damage, said = REFUSED[name]
    with pytest.raises(DataDirectoryError, match=said):
        anyio.run(audited, damaged(filled, tmp_path, file, damage))


TABLES = """
[journal]
kind = "sqlite"
[ingress]
port = 0
[buffer]
max_profiles = 40
[[account]]
[account.rate]
requests_per_second = 2_000.0
burst = 20
[[destination]]
name = "demo"
[destination.batch]
max_profiles = 10
[[destination]]
name = "still"
[destination.batch]
max_profiles = 10
"""


@pytest.mark.parametrize(("damage", "code"), [(lambda connection: None, 0), (STATE["start"][0], 1)])
def test_the_command_says_so_with_its_exit_code(filled: Path, tmp_path: Path, damage: Damage, code: int) -> None:
    damaged(filled, tmp_path, "state.db", damage)
    (tmp_path / "config.toml").write_text(TABLES)
    ended = CliRunner().invoke(app, ["audit", "--json", "--config", str(tmp_path / "config.toml")])
    assert ended.exit_code == code, ended.output
    assert json.loads(ended.stdout)["ok"] is (code == 0)
