"""A journal in memory: for tests, benchmarks and whoever says `journal.kind = "memory"`. Nothing survives the process.

A test makes it misbehave: `fail` holds the exceptions the next commits end in.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from engine.core.codec import erase_events
from engine.errors import NoSpace, StorageFailed
from engine.model import Append
from engine.ports import JournalSize, JournalTail

EVENT_OVERHEAD_BYTES = 200
FULL_AT = 0.95
PROBE_BYTES = 1_024  # there is room when a small append would find it


class MemoryJournal:
    """See `ports.Journal`. `max_bytes` is kept by the size of the contents."""

    def __init__(self, *, max_bytes: int = 1 << 40, commit_seconds: float = 0.0) -> None:
        self._id = secrets.token_hex(8)
        self._max_bytes, self._commit_seconds = max_bytes, commit_seconds
        self._appends: list[Append] = []
        self._firsts: list[int] = []
        self._first = self._next = 0
        self._bytes = 0
        self._failed = False
        self.fail: deque[Exception] = deque()

    def __repr__(self) -> str:
        return f"<MemoryJournal [{self._first}, {self._next})>"

    async def open(self) -> JournalTail:
        return JournalTail(self._id, self._first, self._next)

    async def append(self, appends: Sequence[Append], /) -> int:
        await anyio.sleep(self._commit_seconds)
        return self.commit(appends)

    def commit(self, appends: Sequence[Append], /) -> int:
        """`append` without waiting, for a journal in a test that decides by itself when a commit is through."""
        self._trust()
        if self.fail:
            error = self.fail.popleft()
            self._failed = isinstance(error, StorageFailed)
            raise error
        size = sum(_size(append) for append in appends)
        self._check(size)
        first = self._next
        for append in appends:
            stored = Append(append.events, append.source, append.lane, append.accepted_at, self._next)
            self._appends.append(stored)
            self._firsts.append(self._next)
            self._next += len(append.events)
        self._bytes += size
        return first

    async def read(self, start: int, events: int, /) -> list[Append]:
        await anyio.lowlevel.checkpoint()
        found: list[Append] = []
        position = max(0, bisect_right(self._firsts, start) - 1)
        for append in self._appends[position:]:
            if append.first + len(append.events) <= start:
                continue
            cut = max(0, start - append.first)
            found.append(
                Append(append.events[cut:], append.source, append.lane, append.accepted_at, append.first + cut)
            )
            events -= len(append.events) - cut
            if events <= 0:
                break
        return found

    def release(self, below: int, /) -> None:
        gone = 0
        for append in self._appends:
            if append.first + len(append.events) > below:
                break
            gone += 1
            self._bytes -= _size(append)
        del self._appends[:gone], self._firsts[:gone]
        self._first = self._firsts[0] if self._firsts else self._next

    def size(self) -> JournalSize:
        return JournalSize(self._bytes, self._max_bytes, 1 << 40)

    async def probe(self) -> None:
        self._trust()
        self._check(PROBE_BYTES)

    async def erase(self, below: Mapping[bytes, int], /) -> int:
        rewritten = 0
        for append in self._appends:
            erased = erase_events(append.events, append.first, below)
            if erased is not None:
                append.events = erased
                rewritten += 1
        return rewritten

    async def backup(self, path: Path, /) -> None:
        raise NoSpace("no-file", "a journal in memory has no file to copy")

    async def close(self) -> None:
        """Nothing to close."""

    def _trust(self) -> None:
        if self._failed:
            raise StorageFailed("the journal has failed before")

    def _check(self, incoming: int) -> None:
        if self._bytes + incoming > self._max_bytes * FULL_AT:
            raise NoSpace("journal-full", f"the journal holds {self._bytes} of at most {self._max_bytes} bytes")


def _size(append: Append) -> int:
    return sum(len(event.content) + EVENT_OVERHEAD_BYTES for event in append.events)
