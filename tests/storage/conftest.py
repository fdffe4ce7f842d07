"""Small files, so that checkpoints, truncations and new segments come often; skipped where SQLite cannot be watched."""

from __future__ import annotations

import pytest

from engine.adapters.segments import journal as segments_module
from engine.adapters.segments import keeper as keeper_module
from engine.adapters.segments import pool as pool_module
from engine.adapters.sqlite import journal as journal_module
from engine.adapters.sqlite import state as state_module
from engine.testing import vfs


@pytest.fixture(scope="session", autouse=True)
def _watched_sqlite() -> None:
    try:
        vfs.register()
    except vfs.VfsUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "CHECKPOINT_BYTES", 20_000)
    monkeypatch.setattr(journal_module, "TRUNCATE_BYTES", 60_000)
    monkeypatch.setattr(state_module, "CHECKPOINT_WRITES", 5)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_module, "SMALLEST_BYTES", 16 << 10)
    monkeypatch.setattr(segments_module, "LARGEST_BYTES", 32 << 10)
    monkeypatch.setattr(segments_module, "TINIEST_BYTES", 8 << 10)
    monkeypatch.setattr(pool_module, "SLICE_BYTES", 8 << 10)
    monkeypatch.setattr(keeper_module, "ERASE_BYTES", 4 << 10)
