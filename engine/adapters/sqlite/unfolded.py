"""What has been settled but is not in the ledger yet, in memory, so that a question about a key is answered right."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from engine.core.codec import newer_entry
from engine.model import LedgerEntry


class Unfolded:
    """Entries by consumer and key, each with the last verdict row it stands in.

    `folded_through` is the writer thread's to set: rows up to it are in the ledger, and dropped here when next asked.
    """

    def __init__(self) -> None:
        self._entries: dict[int, dict[bytes, tuple[LedgerEntry, int]]] = {}
        self._rows: deque[tuple[int, int, list[bytes]]] = deque()  # (row, consumer, keys), oldest first
        self.folded_through = 0

    def __len__(self) -> int:
        """How many keys are kept."""
        return sum(map(len, self._entries.values()))

    def add(self, consumer: int, row: int, entries: Sequence[LedgerEntry]) -> None:
        known = self._entries.setdefault(consumer, {})
        for entry in entries:
            earlier = known.get(entry.key)
            known[entry.key] = (entry if earlier is None else newer_entry(earlier[0], entry), row)
        self._rows.append((row, consumer, [entry.key for entry in entries]))

    def forget(self, consumer: int, key: bytes) -> None:
        self._entries.get(consumer, {}).pop(key, None)

    def find(self, consumer: int, keys: Sequence[bytes]) -> dict[bytes, tuple[LedgerEntry, int]]:
        known = self._entries.get(consumer)
        return {key: known[key] for key in keys if key in known} if known else {}

    def drop_folded(self) -> None:
        while self._rows and self._rows[0][0] <= self.folded_through:
            row, consumer, keys = self._rows.popleft()
            known = self._entries.get(consumer, {})
            for key in keys:
                if key in known and known[key][1] <= row:
                    del known[key]

    def clear(self) -> None:
        self._entries.clear()
        self._rows.clear()
