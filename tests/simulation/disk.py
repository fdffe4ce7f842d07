"""A disk that outlives the processes that write to it: what was durable when one of them died is what the next finds.

A commit that the crash cuts off is on the disk as a whole, or it is not there at all: both files are SQLite's, and what
becomes of their bytes when the power fails is proved in tests/storage. Which of the two is drawn from the seed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sqlite3
from collections.abc import Sequence
from typing import Any

import anyio
from facts import Facts
from knobs import Knobs

from engine.adapters.memory_journal import MemoryJournal
from engine.adapters.sqlite import LedgerLimits, LetterLimits, SqliteState
from engine.errors import NoSpace, StorageFailed
from engine.model import Append, Event
from engine.ports import JournalSize, JournalTail, Transition

FULL_SECONDS = 3.0
"""How long a full disk stays so."""


class Disk:
    """What is durable. `process` is the life whose writes count; those of an earlier one go nowhere."""

    def __init__(self, knobs: Knobs, facts: Facts) -> None:
        self.knobs, self.facts = knobs, facts
        self.random = random.Random(f"disk {knobs.seed}")
        self.appends = MemoryJournal(max_bytes=knobs.journal_bytes)
        self.image = b""  # of the state file
        self.faulty = True
        self.process: object = None
        self.failed = False
        self.full_until = float("-inf")

    def boot(self, process: object) -> tuple[DiskJournal, DiskState]:
        """The files as this process opens them."""
        self.process, self.failed, self.full_until = process, False, float("-inf")
        return DiskJournal(self, process), DiskState(self, process)

    def has_failed(self) -> bool:
        """May this process call it a failed disk?"""
        return self.failed or self.is_full()

    def cut_power(self) -> None:
        """At this very moment: nothing that the process writes from now on counts."""
        self.process = None

    def next_life(self) -> None:
        """What is durable stays."""

    def left(self) -> list[Event]:
        """The events that the journal still holds."""
        return [event for append in self.appends._appends for event in append.events]

    def close(self) -> None:
        """Nothing to remove."""

    def meet_fault(self, what: str) -> None:
        """Raises NoSpace, or StorageFailed for good."""
        if not self.faulty:
            return
        if self.failed or self.random.random() < self.knobs.failing_disk:
            self.failed = True
            self.facts.seen[f"{what} failed"] += 1
            raise StorageFailed("the simulated disk fails")
        if self.is_full() or self.random.random() < self.knobs.no_space:
            self.full_until = max(self.full_until, anyio.current_time() + FULL_SECONDS * self.random.random())
            self.facts.seen[f"{what} without room"] += 1
            raise NoSpace("disk-full", "the simulated disk is full")

    def is_full(self) -> bool:
        return self.faulty and anyio.current_time() < self.full_until

    def landed(self) -> bool:
        """Of a write that nobody heard the end of: is it on the disk?"""
        return self.random.random() < self.knobs.lost_answers


class DiskJournal:
    """See `ports.Journal`: the view of one process."""

    def __init__(self, disk: Disk, process: object) -> None:
        self._disk, self._process = disk, process

    def _is_alive(self) -> bool:
        return self._disk.process is self._process

    async def open(self) -> JournalTail:
        return await self._disk.appends.open()

    async def append(self, appends: Sequence[Append], /) -> int:
        disk = self._disk
        disk.facts.begins("commit")
        try:
            await anyio.sleep(disk.knobs.commit_seconds)
            disk.meet_fault("commit")
        except (asyncio.CancelledError, StorageFailed):
            if disk.landed():
                disk.facts.seen["commit landed unanswered"] += 1
                self._commit(appends)
            raise
        if not self._is_alive():
            raise StorageFailed("this process is dead")
        return self._commit(appends)

    def _commit(self, appends: Sequence[Append]) -> int:
        first = self._disk.appends.commit(appends)
        for append in appends:
            for event in append.events:
                self._disk.facts.durable(event)
        return first

    async def read(self, start: int, events: int, /) -> list[Append]:
        return await self._disk.appends.read(start, events)

    def release(self, below: int, /) -> None:
        """Rows go some time later, and come back when the process dies before."""
        asyncio.get_running_loop().call_later(self._disk.knobs.reclaim_seconds, self._release, below)

    def _release(self, below: int) -> None:
        if self._is_alive():
            self._disk.appends.release(below)

    def size(self) -> JournalSize:
        return self._disk.appends.size()

    async def probe(self) -> None:
        await self._disk.appends.probe()
        if self._disk.is_full():
            raise NoSpace("disk-full", "the simulated disk is full")

    async def erase(self, below: Any, /) -> int:
        await anyio.sleep(self._disk.knobs.commit_seconds)
        return await self._disk.appends.erase(below) if self._is_alive() else 0

    async def backup(self, path: Any, /) -> None:
        raise NoSpace("no-file", "a simulated disk has no file to copy")

    async def close(self) -> None:
        """What is durable stays."""


def fold_keys_of(knobs: Knobs) -> int:
    """The ledger is brought up to date at once, now and then, or only at the end."""
    return (1, 5, 1_000)[knobs.seed % 3]


class DiskState(SqliteState):
    """The real state file, in memory: the view of one process."""

    def __init__(self, disk: Disk, process: object) -> None:
        super().__init__(
            None,
            fold_keys=fold_keys_of(disk.knobs),
            connect=self._restored,
            ledger=LedgerLimits(enabled=disk.knobs.ledger),
            letters=LetterLimits(max_count=disk.knobs.max_letters),
        )
        self._disk, self._process = disk, process
        self._file: sqlite3.Connection | None = None
        self.unheard: asyncio.Task[None] | None = None

    def _restored(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        self._file = sqlite3.connect(*arguments, **options)
        if self._disk.image:
            self._file.deserialize(self._disk.image)
        return self._file

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        disk = self._disk
        disk.facts.begins("settle")
        try:
            await anyio.sleep(disk.knobs.settle_seconds)
            disk.meet_fault("settle")
        except (asyncio.CancelledError, StorageFailed):
            if disk.landed():
                disk.facts.seen["settle landed unanswered"] += 1
                self.unheard = asyncio.ensure_future(super().settle(transitions, pauses))
            raise
        if disk.process is not self._process:
            raise StorageFailed("this process is dead")
        await super().settle(transitions, pauses)

    def _background(self, connection: sqlite3.Connection) -> bool:
        """Folding lags behind."""
        return self._disk.random.random() < 0.7 and super()._background(connection)

    async def close(self) -> None:
        """What is durable stays: see `die`."""

    async def die(self) -> None:
        """Nothing is written any more; what is there is what the next process finds."""
        if self.unheard is not None:
            await asyncio.wait({self.unheard})
        if self._file is not None:
            self._disk.image = self._file.serialize()
            await super().close()


def key_of(email: str) -> bytes:
    return hashlib.sha256(email.encode()).digest()
