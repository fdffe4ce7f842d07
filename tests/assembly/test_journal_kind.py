"""One data directory, two kinds of journal: the other one is taken over once it has drained, and refused before."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine import Config, Engine
from engine.adapters.segments.inspection import holds_segments
from engine.assembly import journal_kind
from engine.assembly.inspection import check_journal
from engine.errors import DataDirectoryError
from engine.testing import FakeDestination

KINDS = {"sqlite": "segments", "segments": "sqlite"}
PEOPLE = [{"email": f"person{number}@example.com"} for number in range(12)]


def engine_on(directory: Path, kind: str) -> Engine:
    config = Config.from_dict(
        {
            "journal": {"kind": kind, "min_free_bytes": 0},
            "account": [{"rate": {"requests_per_second": 1_000.0, "burst": 10}}],
            "destination": [{"name": "crm", "event_code": "crm"}],
        },
        base=directory,
    )
    return Engine(config, destinations={"crm": FakeDestination()})


async def deliver(engine: Engine) -> None:
    receipt = await engine.submit(PEOPLE)
    await receipt.settled(timeout=20)
    await engine._running().pipeline.settler.flush()


def shown(engine: Engine) -> dict[str, Any]:
    found: Any = engine.status()["journal"]
    return dict(found)


def has(directory: Path, kind: str) -> bool:
    return holds_segments(directory) if kind == "segments" else (directory / "journal.db").exists()


async def life(directory: Path, kind: str, *, pending: bool = False) -> str:
    """An engine that delivers, and then perhaps leaves a backlog. Its journal's id."""
    async with engine_on(directory, kind) as engine:
        await deliver(engine)
        if pending:
            await engine.pause("crm")
            await engine.submit(PEOPLE[:5])
        return engine._running().journal_id


@pytest.mark.parametrize("kind", KINDS)
async def test_a_drained_journal_of_the_other_kind_is_taken_over_where_it_ended(kind: str, tmp_path: Path) -> None:
    id = await life(tmp_path, kind)
    for other in (KINDS[kind], kind):
        async with engine_on(tmp_path, other) as engine:
            assert engine._running().journal_id == id, "receipts go on meaning what they meant"
            before = shown(engine)["next"]
            await deliver(engine)
            assert shown(engine)["next"] == before + len(PEOPLE)
            audit: Any = await engine.control.audit()
            assert audit["ok"], audit
            assert audit["destinations"]["crm"]["accepted"] == before + len(PEOPLE)
        assert has(tmp_path / "var", other)
        assert not has(tmp_path / "var", KINDS[other]), "one data directory, one journal"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_journal_of_the_other_kind_with_unread_events_is_refused(kind: str, tmp_path: Path) -> None:
    await life(tmp_path, kind, pending=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "var").glob("journal*")}
    with pytest.raises(DataDirectoryError, match=f'5 events .* start with journal.kind = "{kind}" until'):
        async with engine_on(tmp_path, KINDS[kind]):
            pass
    assert {path.name: path.read_bytes() for path in (tmp_path / "var").glob("journal*")} == before
    report: Any = check_journal(engine_on(tmp_path, KINDS[kind]).config)
    assert (report["ok"], report["journal"]["next"]) == (True, len(PEOPLE) + 5), "what is there is checked"
    async with engine_on(tmp_path, kind) as engine:
        await engine.resume("crm")
        async with asyncio.timeout(20):
            while engine.control.destinations()[0]["counts"]["pending"]:  # type: ignore[index]  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await engine._running().pipeline.settler.flush()
    async with engine_on(tmp_path, KINDS[kind]) as engine:
        assert shown(engine)["next"] == len(PEOPLE) + 5


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_state_file_nobody_knows_what_was_read(kind: str, tmp_path: Path) -> None:
    await life(tmp_path, kind, pending=True)
    (tmp_path / "var" / "state.db").unlink()
    with pytest.raises(DataDirectoryError, match="not every destination"):
        async with engine_on(tmp_path, KINDS[kind]):
            pass


@pytest.mark.parametrize("kind", KINDS)
async def test_a_take_over_that_was_cut_off_is_finished_by_the_next_start(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are there: the one that was to be deleted goes, whichever kind is asked for."""
    await life(tmp_path, kind)
    with monkeypatch.context() as patch:
        patch.setattr(journal_kind, "_delete", lambda kind, directory: None)
        async with engine_on(tmp_path, KINDS[kind]) as engine:
            next_offset = shown(engine)["next"]
    assert has(tmp_path / "var", "sqlite")
    assert has(tmp_path / "var", "segments")
    for wanted in KINDS:
        shutil.copytree(tmp_path / "var", tmp_path / wanted / "var")
        async with engine_on(tmp_path / wanted, wanted) as engine:
            assert shown(engine)["next"] == next_offset
            await deliver(engine)
        assert not has(tmp_path / wanted / "var", KINDS[wanted])


async def test_a_backup_of_segments_is_a_data_directory(tmp_path: Path) -> None:
    async with engine_on(tmp_path, "segments") as engine:
        await deliver(engine)
        await engine.pause("crm")
        await engine.submit(PEOPLE[:5])
        made: Any = await engine.control.backup(tmp_path / "copy" / "var")
        assert made["files"] == ["journal-000001.segment", "state.db"]
        again: Any = await engine.control.backup(tmp_path / "copy" / "var")
        assert again["files"] == made["files"]
    async with engine_on(tmp_path / "copy", "segments") as engine:
        audit: Any = await engine.control.audit()
        assert audit["ok"], audit
        assert audit["destinations"]["crm"]["pending"] == 5
