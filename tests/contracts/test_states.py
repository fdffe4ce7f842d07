"""The state file keeps the promises of the port, on disk and in memory."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from engine.adapters.sqlite import LedgerLimits, LetterLimits, RunLimits, SqliteState
from engine.errors import NoSpace, StorageFailed
from engine.ports import State
from engine.testing.contracts import Limits, StateContract
from engine.testing.disk import FaultyDisk


def limits_of(limits: Limits) -> dict[str, Any]:
    return {
        "ledger": LedgerLimits(retention_days=limits.ledger_days, max_keys=limits.ledger_keys),
        "letters": LetterLimits(retention_days=limits.letter_days),
        "runs": RunLimits(limits.run_days, limits.run_audiences),
    }


class KeptInMemory(SqliteState):
    """Outlives its closing, as the disk outlives a process."""

    opened = False

    async def open(self) -> None:
        if not self.opened:
            self.opened = True
            await super().open()

    async def close(self) -> None:
        """The memory stays."""


class TestStateOnDisk(StateContract):
    fold_keys = 1

    def make(self, directory: Path, limits: Limits, /) -> State:
        self.disk = FaultyDisk()
        options: dict[str, Any] = {"fold_keys": self.fold_keys, "connect": self.disk.connect, **limits_of(limits)}
        return SqliteState(directory / "state.db", **options)

    def fail_next_settle(self, state: State, error: type[NoSpace] | type[StorageFailed], /) -> None:
        self.disk.fail("COMMIT", sqlite3.SQLITE_FULL if error is NoSpace else sqlite3.SQLITE_IOERR_FSYNC)


class TestStateThatFoldsLate(TestStateOnDisk):
    """So that most of what is asked for is not in the ledger yet."""

    fold_keys = 1_000


class TestStateInMemory(StateContract):
    survives_a_crash = False
    storage_can_fail = False

    def make(self, directory: Path, limits: Limits, /) -> State:
        return KeptInMemory(None, fold_keys=30, **limits_of(limits))

    def reopen(self, state: State, directory: Path, limits: Limits, /) -> State:
        return state

    def restored(self, directory: Path, limits: Limits, /) -> State:
        return SqliteState(directory / "state.db", **limits_of(limits))
