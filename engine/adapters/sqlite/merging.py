"""Making one part of the ledger of several, slice by slice, so that a question never has to look into many."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import groupby

from engine.adapters.sqlite import parts as sql
from engine.adapters.sqlite.parts import Part

SIMILAR_PARTS = 8
"""So many parts of about the same size, with none between them that is larger, become one. Half as many would have
each verdict written twice as often; twice as many, each question look at twice as many filters."""
SMALLEST_KEYS = 1_000
SLICE_KEYS = 2_000
"""Written in one transaction: settling waits meanwhile."""


class Merging:
    """In the writer's thread. One merge at a time; nobody sees the new part before it is whole. A merge that is cut off
    leaves a part that nobody ever sees, to be swept away."""

    def __init__(self) -> None:
        self._sources: list[Part] = []
        self._target: Part | None = None
        self._slot = self._width = self._keys = 0
        self._filter = bytearray()

    def interrupt(self) -> None:
        self._target = None

    def step(self, connection: sqlite3.Connection) -> bool:
        """One slice of work; False when there is nothing to do."""
        if self._target is None and not self._begin(connection):
            return sql.sweep(connection, None)
        self._go_on(connection)
        return True

    def _begin(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT consumer FROM part WHERE live = 1 GROUP BY consumer HAVING count(*) >= ?"
        for (consumer,) in connection.execute(query, (SIMILAR_PARTS,)).fetchall():
            sources = to_merge(sql.live(connection, consumer))
            if sources:
                self._sources = sources
                keys, rank = sum(part.keys for part in sources), sources[-1].rank
                self._target = sql.begin(connection, consumer, keys, rank)
                self._slot, self._keys = 0, 0
                self._width = min(self._target.width, max(part.width for part in sources))
                self._filter = sql.empty_filter(keys)
                return True
        return False

    def _go_on(self, connection: sqlite3.Connection) -> None:
        assert self._target is not None
        target, written = self._target, 0
        connection.execute("BEGIN IMMEDIATE")
        slot, end = self._slot, 1 << self._width
        while slot < end and written < SLICE_KEYS:
            known = sql.slot_of(connection, self._sources, slot, self._width)
            sql.write_blocks(connection, target, known, slot, self._width)
            sql.fill_filter(self._filter, known)
            written += len(known)
            slot += 1
        if slot == end:
            sql.publish(connection, target, self._keys + written, bytes(self._filter))
            sql.retire(connection, self._sources)
        connection.execute("COMMIT")
        self._slot, self._keys = slot, self._keys + written
        if slot == end:
            self._target = None


def to_merge(parts: Sequence[Part]) -> list[Part]:
    """`parts` of one consumer by age; a run of neighbours that are about as large as each other, smaller ones between
    them included, once there are enough of them."""
    for size in sorted({_size(part) for part in parts}):
        for small, run in groupby(parts, lambda part, size=size: _size(part) <= size):  # type: ignore[misc]
            neighbours = list(run)
            if small and sum(_size(part) == size for part in neighbours) >= SIMILAR_PARTS:
                return neighbours
    return []


def _size(part: Part) -> int:
    """In steps of four."""
    return (part.keys // SMALLEST_KEYS).bit_length() // 2
