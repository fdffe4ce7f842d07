"""The embedded journal: `journal.db`, one row an append, one transaction and one fsync a group commit.

Three connections, each in a thread of its own, so that none waits for another: the writer (commits, and reclaims space
behind waiting commits), the reader, and the checkpointer. Automatic checkpoints are off because SQLite swallows their
fsync errors; ours are explicit and their result is looked at. The newest row is never deleted: it tells the
next offset.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engine.adapters.sqlite import journal_sql as sql
from engine.adapters.sqlite.files import (
    Connect,
    SyncDirectory,
    copy_file,
    prepare_file,
    sync_directory,
    truncate_wal,
    unusable,
)
from engine.adapters.sqlite.threads import in_thread
from engine.adapters.sqlite.worker import SqliteWorker
from engine.core.codec import erase_events
from engine.errors import NoSpace, StorageFailed
from engine.model import Append
from engine.ports import JournalSize, JournalTail

WRITER_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=0",
    "busy_timeout=30000",
    "secure_delete=ON",  # FAST leaves what was released, and forgotten later, in free pages
    "cache_size=-16384",
)
READER_PRAGMAS = ("query_only=1", "busy_timeout=30000", "cache_size=-4096")
CHECKPOINT_PRAGMAS = ("wal_autocheckpoint=0", "synchronous=FULL", "busy_timeout=1000")

CHECKPOINT_BYTES = 16 << 20
TRUNCATE_BYTES = 64 << 20
ROW_BYTES = 64
COMMIT_BYTES = 2 * 4_120  # the pages that a commit writes beside its payload
ERASE_EVENTS = 2_000
RECLAIM_ROWS = 500
RECLAIM_SECONDS = 0.005
FULL_AT = 0.95
CHECKED_TAIL_ROWS = 1_000
SPACE_EVERY_SECONDS = 0.5
PROBE_BYTES = 1_024  # there is room when a small append would find it


class SqliteJournal:
    """See `ports.Journal`. `connect` stands for sqlite3.connect and `sync_directory` for `files.sync_directory`, so
    that a test can bring its own disk."""

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        min_free_bytes: int = 0,
        connect: Connect = sqlite3.connect,
        sync_directory: SyncDirectory = sync_directory,
    ) -> None:
        self._path, self._max_bytes, self._min_free_bytes = path, max_bytes, min_free_bytes
        self._connect, self._sync_directory = connect, sync_directory
        self._writer = SqliteWorker(str(path), pragmas=WRITER_PRAGMAS, idle=self._reclaim, connect=connect)
        self._reader = SqliteWorker(str(path), pragmas=READER_PRAGMAS, connect=connect)
        self._checkpointer = SqliteWorker(str(path), pragmas=CHECKPOINT_PRAGMAS, connect=connect)
        self._wal = path.with_name(path.name + "-wal")
        self._next = 0
        self._first = 0  # when it was opened
        self._release_below = 0
        self._size = JournalSize(0, max_bytes, 0)
        self._size_at = float("-inf")
        self._reusable_bytes = 0  # free pages inside the file
        self._written = 0  # bytes since the last checkpoint was asked for

    def __repr__(self) -> str:
        return f"<SqliteJournal {self._path.name} next {self._next}>"

    async def open(self) -> JournalTail:
        discarded = await in_thread(prepare_file, self._path, sql.FORMAT, self._connect, self._sync_directory)
        for worker in (self._writer, self._reader, self._checkpointer):
            worker.start()
        try:
            tail = await self._writer.run(self._check_tail)
        except StorageFailed as error:
            raise unusable(self._path, error.__cause__ or error) from error
        return JournalTail(tail.id, tail.first, tail.next, discarded)

    async def append(self, appends: Sequence[Append], /) -> int:
        self._trust()
        return await self._writer.run(lambda connection: self._commit(connection, appends))

    async def read(self, start: int, events: int, /) -> list[Append]:
        following = self._next
        return await self._reader.run(lambda connection: self._read(connection, start, events, following))

    def release(self, below: int, /) -> None:
        if below > self._release_below:
            self._release_below = below
            self._writer.nudge()

    def size(self) -> JournalSize:
        return self._size

    async def probe(self) -> None:
        def check(connection: sqlite3.Connection) -> None:
            self._measure(connection, always=True)
            self._refuse_if_full(connection, PROBE_BYTES)

        self._trust()
        self._writer.nudge()  # reclaiming that found no room itself tries again
        await self._writer.run(check)

    async def erase(self, below: Mapping[bytes, int], /) -> int:
        """In slices of the reader's and the writer's time, so that a waiting commit is held up by one slice at most."""
        position, end, rewritten = 0, self._next if below else 0, 0
        while position < end:
            appends = await self.read(position, ERASE_EVENTS)
            if not appends:
                break
            position = appends[-1].first + len(appends[-1].events)
            changed = [(append, erase_events(append.events, append.first, below)) for append in appends]
            rows = [(append, events) for append, events in changed if events is not None]
            if rows:
                await self._writer.run(lambda connection, rows=rows: sql.rewrite(connection, rows))  # type: ignore[misc]
            rewritten += len(rows)
        await self._checkpointer.run(truncate_wal)
        return rewritten

    async def backup(self, path: Path, /) -> None:
        await in_thread(copy_file, self._path, path, self._connect)

    async def close(self) -> None:
        with suppress(NoSpace, StorageFailed):  # it is a safeguard for a file that is damaged later
            await self._writer.run(lambda connection: sql.mark(connection, self._next))
        for worker in (self._reader, self._writer, self._checkpointer):
            await worker.close()

    def _trust(self) -> None:
        """A failed checkpoint has nobody to tell, and nothing may be written after it either."""
        if self._checkpointer.failed is not None:
            raise self._checkpointer.failed

    def _read(self, connection: sqlite3.Connection, start: int, events: int, following: int) -> list[Append]:
        """In the reader's thread. Offsets from `start` up to `following` that were not released have to be there."""
        found = sql.read(connection, start, events)
        begin = found[0].first if found else following
        end = found[-1].first + len(found[-1].events) if found else following
        if begin > max(start, self._first, self._release_below):
            raise sql.missing(start, begin)
        if end < following and sum(len(append.events) for append in found) < events:
            raise sql.missing(end, following)
        return found

    # -- in the writer's thread -----------------------------------------------------------------------------------

    def _check_tail(self, connection: sqlite3.Connection) -> JournalTail:
        """Is the end of the file whole? Everything else is checked when it is read."""
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(8),))
        rows = connection.execute(f"SELECT {sql.COLUMNS} FROM append ORDER BY first DESC LIMIT ?", (CHECKED_TAIL_ROWS,))
        following: int | None = None
        for row in rows:
            append = sql.unpack(row)
            if following is not None and append.first + len(append.events) != following:
                raise StorageFailed(f"a gap before offset {following}")
            self._next = self._next if following is not None else append.first + len(append.events)
            following = append.first
        stored = sql.marked(connection)
        if self._next < stored:
            raise sql.missing(self._next, stored)
        if self._next > stored:
            sql.mark(connection, self._next)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        first = connection.execute("SELECT min(first) FROM append").fetchone()[0]
        id = connection.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
        if id is None:
            raise StorageFailed("its id is not where it was written")
        self._first = self._next if first is None else first
        self._measure(connection, always=True)
        return JournalTail(id[0], self._first, self._next)

    def _commit(self, connection: sqlite3.Connection, appends: Sequence[Append]) -> int:
        first = self._next
        rows = sql.rows_of(appends, first)
        size = sum(len(row[-1]) + ROW_BYTES for row in rows)
        self._refuse_if_full(connection, size)
        following, checkpoint = first + sum(row[1] for row in rows), self._written + size > CHECKPOINT_BYTES
        sql.insert(connection, rows, following if checkpoint else None)
        self._next = following
        self._written = 0 if checkpoint else self._written + size
        self._estimate(size + COMMIT_BYTES)
        self._measure(connection)
        if checkpoint:
            self._checkpointer.post(self._do_checkpoint)
        return first

    def _estimate(self, written: int) -> None:
        """Until it is measured again; within half a second a fast producer fills a small disk."""
        size = self._size
        self._size = JournalSize(size.bytes + written, size.max_bytes, size.disk_free_bytes - written)

    def _measure(self, connection: sqlite3.Connection, *, always: bool = False) -> None:
        """Asking SQLite and the disk costs more than a small commit, so not at every one."""
        now = time.monotonic()
        if not always and now - self._size_at < SPACE_EVERY_SECONDS:
            return
        self._size_at = now
        page_count, free, page_size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        self._reusable_bytes = free * page_size
        self._size = JournalSize(
            (page_count - free) * page_size + self._wal_bytes(),
            self._max_bytes,
            shutil.disk_usage(self._path.parent).free,
        )

    def _refuse_if_full(self, connection: sqlite3.Connection, incoming: int) -> None:
        """The size between two measurements is an estimate, so nobody is refused before it is measured."""
        if self._no_room(incoming) is None:
            return
        self._measure(connection, always=True)
        refusal = self._no_room(incoming)
        if refusal is not None:
            self._checkpointer.post(self._cut_wal)  # the WAL counts, and what was released may be all in there
            raise refusal

    def _no_room(self, incoming: int) -> NoSpace | None:
        size = self._size
        if size.bytes + incoming > self._max_bytes * FULL_AT:
            return NoSpace("journal-full", f"the journal holds {size.bytes} of at most {self._max_bytes} bytes")
        # The file never shrinks: what it has drained is room for new events, though the disk stays as full as it was.
        if size.disk_free_bytes + self._reusable_bytes - incoming < self._min_free_bytes:
            return NoSpace(
                "disk-full", f"{size.disk_free_bytes} bytes are free, {self._min_free_bytes} have to stay so"
            )
        return None

    def _reclaim(self, connection: sqlite3.Connection) -> bool:
        """Delete one slice of released rows; is there more?"""
        more = sql.delete_some(connection, self._release_below, self._next, RECLAIM_ROWS, RECLAIM_SECONDS)
        self._measure(connection)
        return more

    # -- in the checkpointer's thread -----------------------------------------------------------------------------

    def _do_checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy the WAL into the file. Passive never holds up a commit; only a WAL that outgrows it is cut for good."""
        mode = "TRUNCATE" if self._wal_bytes() > TRUNCATE_BYTES else "PASSIVE"
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()

    def _cut_wal(self, connection: sqlite3.Connection) -> None:
        if self._wal_bytes():
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _wal_bytes(self) -> int:
        return self._wal.stat().st_size if self._wal.exists() else 0
