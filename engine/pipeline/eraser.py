"""Erasure on disk: what the journal still holds of a forgotten key is overwritten before the forget counts as done.

The marker of a forget keeps its key leased, and its offset holds the watermark, until `is_erased` says so: after a
crash in between the marker is read again, and so is the order to erase.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import anyio

from engine.errors import NoSpace
from engine.ports import Journal

REMEMBERED = 100_000
AGAIN_SECONDS = 1.0


class Eraser:
    """Rewrites the journal behind waiting commits; `erased` is called when something is done."""

    def __init__(self, journal: Journal, erased: Callable[[], None]) -> None:
        self._journal, self._tell = journal, erased
        self._wanted: dict[bytes, int] = {}
        self._done: OrderedDict[bytes, int] = OrderedDict()
        self._again: set[bytes] = set()  # wanted again while they were being erased
        self._wake = asyncio.Event()

    def want(self, key: bytes, below: int) -> None:
        """Every event of this key below this offset has to be emptied, and every replay of what is from below."""
        if not self.is_erased(key, below):
            self._wanted[key] = max(below, self._wanted.get(key, below))
            self._wake.set()

    def want_again(self, key: bytes, below: int) -> None:
        """As `want`, where a replay of what is from below has come into the journal since."""
        self._done.pop(key, None)
        self._again.add(key)
        self.want(key, below)

    def is_erased(self, key: bytes, below: int) -> bool:
        return self._done.get(key, -1) >= below

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._wanted, self._again = self._wanted, {}, set()
            await self._erase(wanted)
            self._done.update({key: below for key, below in wanted.items() if key not in self._again})
            while len(self._done) > REMEMBERED:
                self._done.popitem(last=False)
            self._tell()

    async def _erase(self, wanted: dict[bytes, int]) -> None:
        while True:
            try:
                await self._journal.erase(wanted)
            except NoSpace:  # or the WAL is being read: later
                await anyio.sleep(AGAIN_SECONDS)
            else:
                return
