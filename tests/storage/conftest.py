"""Small files, so that checkpoints and truncations come often; skipped where SQLite cannot be watched."""

from __future__ import annotations

import pytest

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
