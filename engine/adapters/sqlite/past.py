"""The part of the state file's port that looks back: see `history.History`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from engine.adapters.sqlite import parts, run_sql
from engine.adapters.sqlite.inline import InlineWorker
from engine.adapters.sqlite.inspect_sql import inspect
from engine.adapters.sqlite.worker import SqliteWorker
from engine.history import OutcomeFilter, Run, RunFilter
from engine.model import LedgerEntry
from engine.ports import Inspection

ROWS_AT_ONCE = 2_000
"""Ledger rows one page reads: a few milliseconds, since the lookups of deliveries wait meanwhile."""


class Past:
    """`_reader` and `_writer` are the workers of the file."""

    _reader: SqliteWorker | InlineWorker
    _writer: SqliteWorker | InlineWorker
    _ids: dict[str, int]

    async def runs(self, which: RunFilter, limit: int, /) -> Sequence[Run]:
        return await self._reader.run(lambda connection: run_sql.runs(connection, which, limit))

    async def outcomes(self, which: OutcomeFilter, after: bytes | None, /) -> tuple[list[LedgerEntry], bytes | None]:
        id = self._ids[which.consumer]
        if after is None:
            await self._fold_what_is_settled()
        page = await self._reader.run(lambda connection: parts.after(connection, id, after or b"", ROWS_AT_ONCE))
        found = [entry for entry in page if which.matches(entry)]
        return found, page[-1].key if len(page) == ROWS_AT_ONCE else None

    async def inspect(self) -> dict[str, Inspection]:
        return await self._reader.run(inspect)

    @abstractmethod
    async def _fold_what_is_settled(self) -> None:
        """What was settled before is in the ledger on return."""
