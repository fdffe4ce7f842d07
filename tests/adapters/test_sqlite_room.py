"""A disk that our own journal filled has room again once the journal has drained."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.adapters.sqlite import SqliteJournal
from engine.adapters.sqlite import journal as module
from engine.errors import NoSpace
from engine.model import Append, Event

DISK_BYTES, FLOOR_BYTES = 4 << 20, 2 << 20


def small_disk(path: Path) -> SimpleNamespace:
    """shutil.disk_usage of a disk that holds nothing but this folder."""
    return SimpleNamespace(free=DISK_BYTES - sum(file.stat().st_size for file in path.iterdir()))


def append() -> Append:
    return Append([Event(bytes(32), b'{"city":"' + b"x" * 20_000 + b'"}')], "default")


async def fill(journal: SqliteJournal) -> int:
    """Append until it refuses; the next offset."""
    following = 0
    with pytest.raises(NoSpace) as refused:  # noqa: PT012
        while True:
            following = await journal.append([append()]) + 1
    assert refused.value.type == "disk-full"
    return following


async def test_what_the_journal_has_drained_is_room_though_its_file_stays_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", small_disk)
    journal = SqliteJournal(tmp_path / "journal.db", max_bytes=1 << 40, min_free_bytes=FLOOR_BYTES)
    await journal.open()
    following = await fill(journal)
    assert following > 20
    with pytest.raises(NoSpace):
        await journal.probe()
    journal.release(following)
    async with asyncio.timeout(10):
        while not await _has_room(journal):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await journal.append([append()]) == following
    await journal.close()


async def _has_room(journal: SqliteJournal) -> bool:
    try:
        await journal.probe()
    except NoSpace:
        return False
    return True
