"""The state file: ledger, held profiles, counts, watermarks, pauses, in settling transactions of its own thread.

A transition's verdicts are written as one packed row, so that settling costs little; while the thread is idle, rows are
folded into the per-key ledger, many at a time (`folding`). What is not folded yet is also kept in memory, so that a
question about a key is answered right at any time. A packed row is deleted once it is folded *and* below the durable
watermark: until then recovery needs it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.adapters.sqlite import consumer_sql, files, folding, held_sql, parts, run_sql
from engine.adapters.sqlite import state_sql as sql
from engine.adapters.sqlite.inline import InlineWorker
from engine.adapters.sqlite.keeping import PRUNE_SLICE, Keeping
from engine.adapters.sqlite.limits import LedgerLimits, LetterLimits, RunLimits
from engine.adapters.sqlite.lookups import Lookups
from engine.adapters.sqlite.merging import Merging
from engine.adapters.sqlite.past import Past
from engine.adapters.sqlite.stored_alerts import StoredAlerts
from engine.adapters.sqlite.threads import in_thread
from engine.adapters.sqlite.unfolded import Unfolded
from engine.adapters.sqlite.worker import SqliteWorker
from engine.core.codec import newer_entry
from engine.errors import NoSpace, StorageFailed
from engine.model import Held, HeldKind, LedgerEntry
from engine.ports import ConsumerState, KeyState, LetterFilter, Transition

PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=0",
    "busy_timeout=30000",
    "secure_delete=ON",
    "cache_size=-65536",
)
READER_PRAGMAS = ("query_only=1", "busy_timeout=30000", "cache_size=-65536")
CHECKPOINT_WRITES = 200
UNFOLDED_KEYS = 200_000
"""Keys kept in memory until they are folded; beyond that folding goes before settling."""


class SqliteState(Keeping, Past, StoredAlerts):
    """See `ports.State`. `path` None keeps everything in memory, beside a journal that does so too."""

    def __init__(
        self,
        path: Path | None,
        *,
        ledger: LedgerLimits | None = None,
        letters: LetterLimits | None = None,
        runs: RunLimits | None = None,
        fold_keys: int = folding.FOLD_KEYS,
        connect: files.Connect = sqlite3.connect,
        sync_directory: files.SyncDirectory = files.sync_directory,
    ) -> None:
        self._path, self._connect, self._sync = path, connect, sync_directory
        self._ledger, self._letters = ledger or LedgerLimits(), letters or LetterLimits()
        self._runs = runs or RunLimits()
        self._audiences = run_sql.Audiences(self._runs.max_audiences)
        self._writer: SqliteWorker | InlineWorker = InlineWorker(self._background, connect)
        self._reader: SqliteWorker | InlineWorker = self._writer
        if path is not None:
            self._writer = SqliteWorker(str(path), pragmas=PRAGMAS, idle=self._background, connect=connect)
            self._reader = SqliteWorker(str(path), pragmas=READER_PRAGMAS, connect=connect)
        self._lookups = Lookups(self._reader, self._keys)
        self._ids: dict[str, int] = {}
        self._unfolded = Unfolded()
        self._fold_keys = fold_keys
        self._folding, self._merging = folding.Folding(fold_keys), Merging()
        self._filters = parts.Filters()
        self._has_ledger: set[int] = set()
        self._has_waiting: set[int] = set()
        self._has_letters: set[int] = set()
        self._writes = 0

    def __repr__(self) -> str:
        return f"<SqliteState {self._path.name if self._path else 'in memory'}>"

    async def open(self) -> None:
        if self._path is not None:
            await in_thread(self._prepare, self._path)
        for worker in {self._writer, self._reader}:
            worker.start()
        if self._path is None:
            await self._writer.run(sql.create)
        try:
            await self._writer.run(self._load)
        except (StorageFailed, msgspec.MsgspecError) as error:
            raise files.unusable(self._path or Path("state.db"), error.__cause__ or error) from error

    def _prepare(self, path: Path) -> None:
        files.prepare_file(path, sql.FORMAT, self._connect, self._sync)

    def _load(self, connection: sqlite3.Connection) -> None:
        self._ids = consumer_sql.consumer_ids(connection)
        folding.take_over(connection)
        self._has_ledger = parts.consumers(connection)
        self._has_waiting = held_sql.holders(connection, "kind = 'waiting'")
        self._has_letters = held_sql.holders(connection, "kind <> 'waiting'")
        if not self._ledger.enabled:
            parts.clear_digests(connection)
        self._folding = folding.Folding(self._fold_keys)
        for row, consumer, entries in folding.unfolded(connection):
            self._remember(consumer, row, entries)
            self._folding.note(len(entries))

    # -- consumers ------------------------------------------------------------------------------------------------

    async def consumers(self) -> list[ConsumerState]:
        return await self._reader.run(consumer_sql.read_consumers)

    async def add_consumer(self, state: ConsumerState, /) -> None:
        await self._reload(lambda connection: consumer_sql.add_consumer(connection, state))

    async def rename_consumer(self, old: str, new: str, /) -> None:
        await self._reload(lambda connection: consumer_sql.rename_consumer(connection, old, new))

    async def remove_consumer(self, name: str, /) -> None:
        await self._reload(lambda connection: consumer_sql.remove_consumer(connection, name))

    async def _reload(self, change: Callable[[sqlite3.Connection], None] = lambda connection: None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            self._merging.interrupt()
            change(connection)

        await self._writer.run(work)
        self._unfolded.clear()
        self._audiences.clear()
        await self._writer.run(self._load)

    # -- settling -------------------------------------------------------------------------------------------------

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        if len(self._unfolded) > UNFOLDED_KEYS:
            await self._writer.run(self._fold_all)
        for transition in transitions:  # before their rows are there to be folded
            if any(held.kind != HeldKind.WAITING for held in transition.hold):
                self._has_letters.add(self._ids[transition.consumer])
        rows = await self._writer.run(lambda connection: self._apply(connection, transitions, pauses or {}))
        self._unfolded.drop_folded()
        for transition, row in zip(transitions, rows, strict=True):
            id = self._ids[transition.consumer]
            for key, _ in transition.forget:
                self._unfolded.forget(id, key)
            if row:
                self._remember(id, row, transition.verdicts)
            if any(held.kind == HeldKind.WAITING for held in transition.hold):
                self._has_waiting.add(id)
        self._writer.nudge()

    def _apply(
        self, connection: sqlite3.Connection, transitions: Sequence[Transition], pauses: dict[str, float]
    ) -> list[int]:
        connection.execute("BEGIN IMMEDIATE")
        rows = [
            sql.apply(connection, self._ids[name], one, self._audiences, in_ledger=self.keeps_verdicts(name))
            for one in transitions
            for name in (one.consumer,)
        ]
        connection.executemany("INSERT OR REPLACE INTO pause VALUES (?, ?)", list(pauses.items()))
        connection.execute("COMMIT")
        self._folding.note(sum(len(one.verdicts) for one in transitions))
        self._checkpoint_sometimes(connection)
        return rows

    def _remember(self, id: int, row: int, entries: Sequence[LedgerEntry]) -> None:
        if entries and (self._ledger.enabled or id in self._has_letters):
            self._unfolded.add(id, row, entries)

    def keeps_verdicts(self, consumer: str, /) -> bool:
        """Without a ledger those of consumers with dead letters: a replay has to find out what has overtaken it."""
        return self._ledger.enabled or self._ids[consumer] in self._has_letters

    def _background(self, connection: sqlite3.Connection) -> bool:
        """One slice of work while nothing waits; is there more?"""
        due = self._folding.is_due or not self._ledger.enabled
        if (due and self._fold_some(connection)) or self._merging.step(connection):
            self._checkpoint_sometimes(connection)
            return True
        more = folding.reclaim(connection, self._only_letters_of())
        self._checkpoint_sometimes(connection)
        return more

    def _only_letters_of(self) -> list[int] | None:
        """Without a ledger only keys with dead letters are kept in it, and only these consumers have any: a replay has
        to find out what has overtaken it."""
        return None if self._ledger.enabled else sorted(self._has_letters)

    def _fold_some(self, connection: sqlite3.Connection) -> bool:
        if not self._ledger.enabled:
            folded = folding.fold_letters(connection, self._only_letters_of() or ())
            if folded is not None:
                self._has_ledger.add(folded[1])
                self._unfolded.folded_through = folded[0]
            return folded is not None
        consumers = self._folding.fold_some(connection)
        if consumers is not None:
            self._has_ledger |= consumers
            self._unfolded.folded_through = folding.folded_through(connection)
        return consumers is not None

    def _checkpoint_sometimes(self, connection: sqlite3.Connection) -> None:
        self._writes += 1
        if self._writes >= CHECKPOINT_WRITES and self._path is not None:
            self._writes = 0
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.OperationalError as error:
                # What was committed before is durable: no room to copy it must not make anybody settle it again.
                if error.sqlite_errorcode not in files.NO_SPACE_CODES:
                    raise

    # -- questions ------------------------------------------------------------------------------------------------

    async def pauses(self) -> dict[str, float]:
        return await self._reader.run(lambda connection: dict(connection.execute("SELECT account, until FROM pause")))

    async def accounted(self, consumer: str, /) -> dict[bytes, int]:
        return await self._reader.run(lambda connection: sql.accounted(connection, consumer))

    async def keys(self, consumer: str, keys: Sequence[bytes], /) -> dict[bytes, KeyState]:
        id = self._ids[consumer]
        self._unfolded.drop_folded()
        recent = self._unfolded.find(id, keys)
        found: dict[bytes, KeyState] = {}
        unfolded: int | None = 0
        if id in self._has_waiting or id in self._has_ledger:
            together, unfolded = await self._lookups.ask(id, keys)
            found = {key: KeyState(it.entry, it.held) for key in keys if (it := together.get(key)) is not None}
        for key, (entry, row) in recent.items():
            if unfolded is None or row < unfolded:
                continue  # folded since, so the ledger knows at least as much
            state = found.setdefault(key, KeyState())
            state.entry = newer_entry(state.entry, entry)
        return found

    def _keys(
        self, connection: sqlite3.Connection, id: int, keys: Sequence[bytes]
    ) -> tuple[dict[bytes, KeyState], int | None]:
        """What is stored of them, and the first verdict row that was not folded into it, as of one moment: what the
        file says, since the writer's thread may not have noted yet what it has just written."""
        connection.execute("BEGIN")
        unfolded = folding.first_unfolded(connection)
        found = {key: KeyState(entry) for key, entry in parts.find(connection, id, keys, self._filters).items()}
        for start in range(0, len(keys) if id in self._has_waiting else 0, held_sql.KEYS_PER_QUERY):
            for held in held_sql.waiting(connection, id, keys[start : start + held_sql.KEYS_PER_QUERY]):
                found.setdefault(held.profile.key, KeyState()).held = held
        connection.execute("COMMIT")
        return found, unfolded

    async def held(self, consumer: str, limit: int, /, after: int = 0) -> list[Held]:
        id = self._ids[consumer]
        return await self._reader.run(lambda connection: held_sql.waiting_after(connection, id, after, limit))

    async def letters(self, which: LetterFilter, limit: int, /, after: int = 0) -> list[tuple[str, Held]]:
        return await self._reader.run(lambda connection: held_sql.letters(connection, which, limit, after))

    async def count_letters(self, which: LetterFilter, /) -> int:
        return await self._reader.run(lambda connection: held_sql.count_letters(connection, which))

    async def purge_letters(self, which: LetterFilter, /) -> int:
        return await self._in_slices(lambda connection: held_sql.purge_letters(connection, which, PRUNE_SLICE))

    # -- keeping house --------------------------------------------------------------------------------------------

    async def scrub(self) -> None:
        """Leave no trace of deleted content: deleted rows are overwritten already, the WAL is truncated now."""
        if self._path is not None:
            await self._writer.run(files.truncate_wal)

    async def backup(self, path: Path, /) -> None:
        if self._path is None:
            await self._reader.run(lambda connection: files.copy_connection(connection, path))
        else:
            await in_thread(files.copy_file, self._path, path, self._connect)

    async def close(self) -> None:
        try:
            with suppress(NoSpace, StorageFailed, msgspec.MsgspecError):  # what is not folded now will be next time
                await self._writer.run(self._fold_all)
        finally:
            for worker in {self._reader, self._writer}:
                await worker.close()
