"""Keeping the state file small: what is settled goes into the ledger, what is too old leaves it, slice by slice."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Callable

from engine.adapters.sqlite import folding, held_sql, parts, run_sql
from engine.adapters.sqlite import state_sql as sql
from engine.adapters.sqlite.inline import InlineWorker
from engine.adapters.sqlite.limits import LedgerLimits, LetterLimits, RunLimits
from engine.adapters.sqlite.worker import SqliteWorker
from engine.history import HOUR_SECONDS
from engine.model import LedgerEntry

DAY_SECONDS = 86_400.0
PRUNE_SLICE = 500
PAGE_KEYS = 2_000


def excess_of(connection: sqlite3.Connection, id: int, max_keys: int) -> list[bytes]:
    """The keys beyond so many, those that were touched last kept."""
    if sum(part.keys for part in parts.live(connection, id)) <= max_keys:
        return []
    ages = [(bool(entry.consents), entry.at, entry.key) for entry in parts.entries(connection, id)]
    with_letters = held_sql.holders_of_letters(connection, id)
    oldest = sorted(one for one in ages if one[2] not in with_letters)
    return [key for _, _, key in oldest[: max(0, len(ages) - max_keys)]]


def _erase(connection: sqlite3.Connection, id: int, keys: set[bytes]) -> None:
    """Not those with dead letters: when one is replayed it has to be known what has overtaken it."""
    keys = keys - held_sql.keys_with_letters(connection, id, list(keys))
    connection.execute("BEGIN IMMEDIATE")
    parts.erase(connection, id, keys)
    connection.execute("COMMIT")


class Keeping:
    """`_reader` and `_writer` are the workers of the file."""

    _reader: SqliteWorker | InlineWorker
    _writer: SqliteWorker | InlineWorker
    _ids: dict[str, int]
    _ledger: LedgerLimits
    _letters: LetterLimits
    _runs: RunLimits

    async def prune(self, now: float, /) -> None:
        await self._fold_what_is_settled()
        before = now - self._ledger.retention_days * DAY_SECONDS
        for id in list(self._ids.values()):
            await self._prune_ledger(id, before)
        old = now - self._letters.retention_days * DAY_SECONDS
        await self._in_slices(lambda connection: held_sql.delete_letters_before(connection, old, PRUNE_SLICE))
        await self._prune_runs(now - self._runs.retention_days * DAY_SECONDS)

    async def _in_slices(self, work: Callable[[sqlite3.Connection], int]) -> int:
        """Call it in the writer's thread, behind waiting transactions, until it did less than a whole slice."""
        done = PRUNE_SLICE
        total = 0
        while done >= PRUNE_SLICE:
            done = await self._writer.run(work)
            total += done
        return total

    async def _prune_ledger(self, id: int, before: float) -> None:
        """Entries last touched before `before`, and the oldest beyond the limit. What was said about consent does not
        grow old, and goes last when there are too many."""
        await self._delete(id, lambda entry: entry.at < before and not entry.consents)
        excess = await self._reader.run(lambda connection: excess_of(connection, id, self._ledger.max_keys))
        while excess:
            doomed = set(excess[:PRUNE_SLICE])
            del excess[:PRUNE_SLICE]
            await self._writer.run(lambda connection, doomed=doomed: _erase(connection, id, doomed))  # type: ignore[misc]

    async def _delete(self, id: int, is_outdated: Callable[[LedgerEntry], bool]) -> None:
        """A page of the ledger at a time."""
        after: bytes | None = b""
        while after is not None:
            page = await self._reader.run(lambda connection, after=after: parts.after(connection, id, after, PAGE_KEYS))  # type: ignore[misc]
            doomed = {entry.key for entry in page if is_outdated(entry)}
            if doomed:
                await self._writer.run(lambda connection, doomed=doomed: _erase(connection, id, doomed))  # type: ignore[misc]
            after = page[-1].key if len(page) == PAGE_KEYS else None

    async def _fold_what_is_settled(self) -> None:
        """One slice at a time: settling goes on in between."""
        last = await self._writer.run(sql.newest_verdict)
        while await self._writer.run(self._fold_some):
            unfolded = await self._reader.run(folding.first_unfolded)
            if unfolded is None or unfolded > last:
                return

    def _fold_all(self, connection: sqlite3.Connection) -> None:
        while self._fold_some(connection):
            pass

    async def _prune_runs(self, before: float) -> None:
        """Hour by hour, behind waiting transactions."""
        hour = int(before // HOUR_SECONDS)
        while await self._writer.run(lambda connection: run_sql.prune_before(connection, hour)):
            pass

    @abstractmethod
    def _fold_some(self, connection: sqlite3.Connection) -> bool:
        """Fold some of the oldest verdicts that are not in the ledger; False when there are none."""
