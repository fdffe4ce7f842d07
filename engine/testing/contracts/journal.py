"""The battery of `ports.Journal`: every sentence of its docstrings is a test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from engine.errors import NoSpace, StorageFailed
from engine.model import Event
from engine.ports import Journal, JournalTail
from engine.testing.contracts.journal_erasing import Erasing
from engine.testing.contracts.journal_offsets import Offsets
from engine.testing.contracts.journal_reading import Reading
from engine.testing.contracts.journal_space import Space

MAX_BYTES = 1 << 30


class JournalTrial:
    """One promise on trial: journals over one directory, closed at the end. `tail`: what the last open found."""

    def __init__(self, contract: JournalContract, directory: Path, stack: AsyncExitStack) -> None:
        self.contract, self.directory, self._stack = contract, directory, stack
        self.tail: JournalTail
        self.max_bytes = MAX_BYTES

    async def open(self, max_bytes: int = MAX_BYTES) -> Journal:
        """A new journal, open."""
        self.max_bytes = max_bytes
        home = self.directory / "journal"
        home.mkdir()
        return await self._opened(self.contract.make(home, max_bytes))

    async def reopen(self, journal: Journal) -> Journal:
        """The journal of the next process, after an orderly end of this one."""
        await journal.close()
        return await self._opened(self.contract.reopen(journal, self.directory / "journal", self.max_bytes))

    async def after_crash(self, journal: Journal) -> Journal:
        """The journal of the next process, had this one been killed now."""
        if not self.contract.survives_a_crash:
            return journal
        copy = self.directory / "after the crash"
        shutil.copytree(self.directory / "journal", copy)
        return await self._opened(self.contract.make(copy, self.max_bytes))

    async def restore(self, backup: Path, name: str) -> Journal:
        """The journal in a backup."""
        home = self.directory / "restored"
        home.mkdir()
        shutil.copy(backup, home / name)
        return await self._opened(self.contract.make(home, self.max_bytes))

    async def all(self, journal: Journal, start: int = 0) -> dict[int, Event]:
        """Offset -> event from `start` on, read in small steps; every offset once."""
        found: dict[int, Event] = {}
        while appends := await journal.read(start, 3):
            for append in appends:
                assert append.first == start, f"asked for offset {start}, got an append at {append.first}"
                found.update(enumerate(append.events, start))
                start += len(append.events)
        return found

    async def _opened(self, journal: Journal) -> Journal:
        self._stack.push_async_callback(journal.close)
        self.tail = await journal.open()
        return journal


class JournalContract(Offsets, Reading, Space, Erasing):
    """Subclass it as `TestMyJournal`, and say how one is made::

    class TestMyJournal(JournalContract):
        def make(self, directory, max_bytes): return MyJournal(directory, max_bytes=max_bytes)
        def fail_next_append(self, journal, error): ...
    """

    survives_a_crash = True
    """Is what was appended there for another journal over a copy of the same directory?"""

    backup_name: str | None = "journal.db"
    """What the file of a backup is called in the directory of a journal; None: it cannot be backed up."""

    def make(self, directory: Path, max_bytes: int, /) -> Journal:
        """A journal over this directory, not opened yet."""
        raise NotImplementedError

    def reopen(self, journal: Journal, directory: Path, max_bytes: int, /) -> Journal:
        """The journal of the next process over what `journal`, now closed, left behind."""
        return self.make(directory, max_bytes)

    def fail_next_append(self, journal: Journal, error: type[NoSpace] | type[StorageFailed], /) -> None:
        """Let the storage under the next append fail: full disk, or I/O error."""
        raise NotImplementedError

    def trial(self, directory: Path, /) -> AbstractAsyncContextManager[JournalTrial]:
        return self._trial(directory)

    @asynccontextmanager
    async def _trial(self, directory: Path) -> AsyncIterator[JournalTrial]:
        async with AsyncExitStack() as stack:
            yield JournalTrial(self, directory, stack)


__all__ = ["JournalContract", "JournalTrial"]
