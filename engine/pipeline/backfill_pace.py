"""The pace of a backfill: its acknowledgement waits while readers are busy putting backfill on disk.

The journal is read in order, so a live event waits for all backfill ahead of it that was not read yet. A producer that
sends the next request when it has its answer is slowed down to what can be read; nothing is refused by this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio

from engine.pipeline.reader import Reader

LONGEST_SECONDS = 1.0
"""From the moment a request was handed in: with the commit itself it has to stay below what a producer waits for."""


class BackfillPace:
    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._settled = asyncio.Event()

    def settled(self) -> None:
        """Copies may have become durable: whoever waits looks again."""
        self._settled.set()
        self._settled = asyncio.Event()

    async def keep(self, handed_in_at: float) -> None:
        """Wait until no reader is behind because of backfill, but not for long. `handed_in_at`: loop time."""
        with anyio.CancelScope(deadline=handed_in_at + LONGEST_SECONDS):
            while any(reader.is_behind_for_backfill() for reader in self._readers):
                await self._settled.wait()
