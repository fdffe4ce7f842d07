"""The same disk with real files on it: one of the journals, and SqliteState, on a power supply that fails.

What was written and not synced when the power goes is kept, lost or torn, as the seed wills (`engine.testing.power`).
What a process was told to be durable is compared with what the next one finds in the journal.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
from disk import fold_keys_of
from facts import Facts
from knobs import Knobs

from engine.adapters.segments import SegmentJournal
from engine.adapters.segments import journal as segments_module
from engine.adapters.segments import keeper as keeper_module
from engine.adapters.segments import pool as pool_module
from engine.adapters.segments.inspection import inspect_journal
from engine.adapters.segments.layout import append_from
from engine.adapters.segments.worker import Worker, deliver
from engine.adapters.sqlite import LedgerLimits, LetterLimits, SqliteJournal, SqliteState
from engine.adapters.sqlite import journal as journal_module
from engine.adapters.sqlite import state as state_module
from engine.adapters.sqlite.worker import SqliteWorker
from engine.errors import NoSpace, StorageFailed
from engine.model import Append
from engine.ports import JournalTail
from engine.testing.power import SimulatedDisk
from engine.testing.simulated_files import SimulatedFiles

LIFE_STEPS = 150
"""A process that is cut off by its disk does not make more steps than this before."""


class TurnWorker(SqliteWorker):
    """A connection that is used where it is asked, after the time that a disk takes: no thread, so virtual time."""

    seconds = 0.0
    _connection: sqlite3.Connection | None = None

    def start(self) -> None:
        try:
            self._connection = self._connect(self._path, isolation_level=None, check_same_thread=False)
            for pragma in self._pragmas:
                self._connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            self._translate(error)

    def answer(self, function: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any]) -> None:
        asyncio.get_running_loop().call_later(self.seconds, self._do, function, future)

    def _do(self, function: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any]) -> None:
        try:
            if self._connection is None:
                raise self.failed or StorageFailed("it is not open")
            result = self._attempt(function, self._connection)
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def post(self, function: Callable[[sqlite3.Connection], object]) -> None:
        ignored = asyncio.get_running_loop().create_future()
        ignored.add_done_callback(lambda it: it.cancelled() or it.exception())
        self.answer(function, ignored)

    def nudge(self) -> None:
        if self._idle is not None and not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_later(self.seconds, self._slice)

    def _slice(self) -> None:
        """One slice of background work, and the next one some time later."""
        self._busy = False
        try:
            if self._connection is not None and self._attempt(self._idle, self._connection):  # type: ignore[arg-type]
                self.nudge()
        except (NoSpace, StorageFailed):
            return

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class TurnSegmentWorker(Worker):
    """The same for a thread of the segment journal."""

    seconds = 0.0
    _is_running = False

    def start(self) -> None:
        self._is_running = True

    @property
    def is_open(self) -> bool:
        return self._is_running

    def give(self, function: Callable[[], Any], future: asyncio.Future[Any], ended: Any) -> None:
        asyncio.get_running_loop().call_later(self.seconds, self._do, function, future, ended)

    def _do(self, function: Callable[[], Any], future: asyncio.Future[Any], ended: Any) -> None:
        if self._is_running:
            deliver(future, ended, *self.attempt(function))
        else:
            deliver(future, ended, None, StorageFailed("it is not open"))

    def post(self, function: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(self.seconds, self.attempt, function)

    def nudge(self) -> None:
        if self._idle is not None and not self._busy and self._is_running:
            self._busy = True
            asyncio.get_running_loop().call_later(self.seconds, self._slice)

    def _slice(self) -> None:
        self._busy = False
        if self._is_running and self._idle is not None:
            more, error = self.attempt(self._idle)
            if error is not None and not isinstance(error, NoSpace):
                self._trust.fail(error)
            if more:
                self.nudge()

    async def close(self) -> None:
        self._is_running = False


async def at_once(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Stands for `in_thread`."""
    return function(*arguments, **options)


class Judged:
    """Tells the judge what was promised, and compares what is found with it."""

    _judge: Files

    async def open(self) -> JournalTail:
        tail: JournalTail = await super().open()  # type: ignore[misc]
        self._judge._found(tail)
        for append in await self.read(self._judge.known, 1 << 30):  # type: ignore[attr-defined]
            self._judge.note(append.events)
        return tail

    async def append(self, appends: Sequence[Append], /) -> int:
        self._judge.facts.begins("commit")
        first: int = await super().append(appends)  # type: ignore[misc]
        for append in appends:
            self._judge.note(append.events)
        return first


class FilesJournal(Judged, SqliteJournal):
    def __init__(self, files: Files) -> None:
        disk = files.disk
        path = disk.directory / "journal.db"
        super().__init__(path, max_bytes=1 << 40, connect=disk.connect, sync_directory=disk.sync_directory)
        self._judge = files


class SegmentsJournal(Judged, SegmentJournal):
    def __init__(self, files: Files) -> None:
        super().__init__(files.disk.directory, max_bytes=1 << 40, files=SimulatedFiles(files.disk))
        self._judge = files


class FilesState(SqliteState):
    def __init__(self, files: Files, path: Path) -> None:
        disk, knobs = files.disk, files.knobs
        super().__init__(
            path,
            fold_keys=fold_keys_of(knobs),
            connect=disk.connect,
            sync_directory=disk.sync_directory,
            ledger=LedgerLimits(enabled=knobs.ledger),
            letters=LetterLimits(max_count=knobs.max_letters),
        )
        self._files = files

    async def settle(self, *given: Any) -> None:
        self._files.facts.begins("settle")
        await super().settle(*given)

    async def die(self) -> None:
        """Nothing to do: see `Files.cut_power`."""


class Files:
    """Has the methods of `disk.Disk`."""

    def __init__(self, knobs: Knobs, facts: Facts) -> None:
        self.knobs, self.facts = knobs, facts
        self.random = random.Random(f"files {knobs.seed}")
        self.folder = tempfile.TemporaryDirectory(prefix="simulation-", dir=_memory())
        self.faulty, self.failed = True, False
        self.known = 0  # the first offset that the judge does not know
        self.full_until = float("-inf")
        self.lives = 0
        self.disk = SimulatedDisk(self._next_folder(), self.random)
        TurnWorker.seconds = TurnSegmentWorker.seconds = knobs.commit_seconds

    def _next_folder(self) -> Path:
        self.lives += 1
        folder = Path(self.folder.name) / str(self.lives)
        folder.mkdir()
        return folder

    def boot(self, process: object) -> tuple[FilesJournal | SegmentsJournal, FilesState]:
        disk = self.disk
        disk.on_step, self.failed = self._on_step, False
        if self.faulty and self.knobs.moment in ("commit", "settle"):
            disk.crash_at = disk.steps + self.random.randrange(1, LIFE_STEPS)
        journal = FilesJournal(self) if self.knobs.files == "sqlite" else SegmentsJournal(self)
        return journal, FilesState(self, disk.directory / "state.db")

    def _on_step(self, operation: str, name: str) -> None:
        """Before every step of the disk, so that any of them may fail."""
        if not self.faulty or self.disk.dead:
            return
        if self.random.random() < self.knobs.failing_disk / 20:
            self.facts.seen["disk error"] += 1
            self.failed = True
            self.disk.fail_next(operation, partial=operation == "write")  # type: ignore[arg-type]
        elif operation == "write" and self.random.random() < self.knobs.no_space / 10:
            self.facts.seen["disk full"] += 1
            self.failed = True
            self.full_until = anyio.current_time()
            self.disk.fail_next("write", sqlite3.SQLITE_FULL, partial=True)

    def has_failed(self) -> bool:
        """May this process call it a failed disk?"""
        return self.failed or self.disk.dead

    def cut_power(self) -> None:
        """At this very moment: nothing that is written from now on counts."""
        self.disk.kill()

    def next_life(self) -> None:
        """What is left becomes the disk of the next process."""
        lose = self.random.choice(["none", "all", "prefix", "random", "random"])
        self.facts.seen[f"power lost: {lose}"] += 1
        self.disk = self.disk.crash(self._next_folder(), self.random, lose)  # type: ignore[arg-type]

    def _found(self, tail: JournalTail) -> None:
        if tail.next < self.known:
            self.facts.broken("acknowledged means durable", f"the journal ends at {tail.next}, told was {self.known}")

    def note(self, events: Sequence[Any]) -> None:
        for event in events:
            self.facts.durable(event)
        self.known += len(events)

    def left(self) -> list[Any]:
        """The events that the journal still holds."""
        if self.knobs.files == "segments":
            return list(self._left_in_segments())
        with sqlite3.connect(f"file:{self.disk.directory / 'journal.db'}?mode=ro", uri=True) as connection:
            rows = connection.execute(f"SELECT {journal_module.sql.COLUMNS} FROM append ORDER BY first").fetchall()
        return [event for row in rows for event in journal_module.sql.unpack(row).events]

    def _left_in_segments(self) -> Iterator[Any]:
        directory = self.disk.directory
        for one in inspect_journal(directory, []).found.values():
            content = (directory / one.segment.name).read_bytes()
            yield from append_from(one.record, content[one.record.body : one.record.end]).events

    def close(self) -> None:
        self.folder.cleanup()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


PATCHES = (
    partial(mock.patch.object, journal_module, "SqliteWorker", TurnWorker),
    partial(mock.patch.object, state_module, "SqliteWorker", TurnWorker),
    partial(mock.patch.object, journal_module, "in_thread", at_once),
    partial(mock.patch.object, state_module, "in_thread", at_once),
    # A slice of so many rows and not of so much time, which is the machine's and not the seed's.
    partial(mock.patch.object, journal_module, "RECLAIM_SECONDS", 60.0),
    # What takes megabytes in earnest has to happen in a few kilobytes here.
    partial(mock.patch.object, journal_module, "CHECKPOINT_BYTES", 3_000),
    partial(mock.patch.object, journal_module, "TRUNCATE_BYTES", 60_000),
    partial(mock.patch.object, state_module, "CHECKPOINT_WRITES", 20),
    partial(mock.patch.object, segments_module, "Worker", TurnSegmentWorker),
    partial(mock.patch.object, segments_module, "SMALLEST_BYTES", 8_192),
    partial(mock.patch.object, segments_module, "LARGEST_BYTES", 16_384),
    partial(mock.patch.object, segments_module, "TINIEST_BYTES", 8_192),
    partial(mock.patch.object, pool_module, "SLICE_BYTES", 4_096),
    partial(mock.patch.object, keeper_module, "ERASE_BYTES", 2_048),
)
