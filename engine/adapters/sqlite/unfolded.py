"""What has been settled but is not in the ledger yet, in memory, so that a question about a key is answered right."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from engine.core.codec import newer_entry
from engine.model import LedgerEntry

KEYS_TOGETHER = 10_000
"""Let go of together: to take them out one by one would cost as much as to put them in."""


class _Rows(msgspec.Struct):
    """Some verdict rows in a row: by consumer, what they say of each key. `through`: the last of them."""

    through: int = 0
    keys: int = 0
    entries: dict[int, dict[bytes, LedgerEntry]] = msgspec.field(default_factory=dict)

    def add(self, consumer: int, row: int, entries: Sequence[LedgerEntry]) -> None:
        self.through, self.keys = row, self.keys + len(entries)
        known, newer = self.entries.setdefault(consumer, {}), {entry.key: entry for entry in entries}
        if len(newer) == len(entries) and known.keys().isdisjoint(newer):
            known.update(newer)
        else:
            for entry in entries:
                known[entry.key] = newer_entry(known.get(entry.key), entry)


class Unfolded:
    """Entries by consumer and key.

    `folded_through` is the writer thread's to set: rows up to it are in the ledger. Those that stand beside one that is
    not stay as well: an entry that is folded a second time over what it is in already changes nothing.
    """

    def __init__(self) -> None:
        self._together: deque[_Rows] = deque()  # oldest first
        self.folded_through = 0

    def __len__(self) -> int:
        """How many keys are kept."""
        return sum(rows.keys for rows in self._together)

    def add(self, consumer: int, row: int, entries: Sequence[LedgerEntry]) -> None:
        if not self._together or self._together[-1].keys >= KEYS_TOGETHER:
            self._together.append(_Rows())
        self._together[-1].add(consumer, row, entries)

    def forget(self, consumer: int, key: bytes) -> None:
        for rows in self._together:
            rows.entries.get(consumer, {}).pop(key, None)

    def find(self, consumer: int, keys: Sequence[bytes]) -> dict[bytes, tuple[LedgerEntry, int]]:
        """What the rows say of each of these keys, and a row that is not before the last that speaks of it."""
        found: dict[bytes, tuple[LedgerEntry, int]] = {}
        for rows in self._together:
            known = rows.entries.get(consumer)
            if known and not known.keys().isdisjoint(keys):
                for key in [key for key in keys if key in known]:
                    earlier = found.get(key, (None, 0))[0]
                    found[key] = (newer_entry(earlier, known[key]), rows.through)
        return found

    def drop_folded(self) -> None:
        while self._together and self._together[0].through <= self.folded_through:
            self._together.popleft()

    def clear(self) -> None:
        self._together.clear()
