"""Bringing settled verdicts into the ledger, many keys at a time.

Keys are as good as random: a verdict that went into a tree of keys alone would write a page of it for itself. Verdicts
therefore wait in their rows until they are many, and become a part of the ledger (`parts`), in the order of their keys.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from engine.adapters.sqlite import held_sql, parts
from engine.core.codec import encode_entry, raw_entries, unpack_verdicts
from engine.model import LedgerEntry

FOLD_KEYS = 20_000
"""So many wait; they are kept in memory until then, and read again when a process starts."""
MOST_KEYS = 50_000
"""About so many become a part at once: settling waits meanwhile."""

_UNFOLDED = "SELECT id, consumer, packed FROM verdicts WHERE id > ? AND folded = 0 ORDER BY id"


class Folding:
    """In the writer's thread. It is due when `fold_keys` verdicts wait."""

    def __init__(self, fold_keys: int) -> None:
        self._fold_keys = fold_keys
        self._waiting = 0  # verdicts that are not in the ledger, about

    def note(self, verdicts: int) -> None:
        """So many more are waiting."""
        self._waiting += verdicts

    @property
    def is_due(self) -> bool:
        return self._waiting >= self._fold_keys

    def fold_some(self, connection: sqlite3.Connection) -> set[int] | None:
        """Fold the oldest rows that are not in the ledger; of which consumers, None when there were none."""
        taken, last = 0, 0
        newest: dict[int, dict[bytes, bytes]] = {}
        for row, consumer, packed in connection.execute(_UNFOLDED, (folded_through(connection),)):
            raws = raw_entries(packed)
            parts.merge_raw(newest.setdefault(consumer, {}), raws)
            taken, last = taken + len(raws), row
            if taken >= MOST_KEYS:
                break
        self._waiting = max(0, self._waiting - taken) if last else 0
        if not last:
            return None
        connection.execute("BEGIN IMMEDIATE")
        for consumer, known in newest.items():
            write(connection, consumer, known)
        connection.execute("UPDATE folded SET through = ?", (last,))
        connection.execute("COMMIT")
        return set(newest)


def write(connection: sqlite3.Connection, consumer: int, known: Mapping[bytes, bytes]) -> None:
    """As the newest part of the ledger, inside the caller's transaction."""
    if known:
        part, filter = parts.begin(connection, consumer, len(known)), parts.empty_filter(len(known))
        parts.write_blocks(connection, part, known, 0, 0)
        parts.fill_filter(filter, known)
        parts.publish(connection, part, len(known), bytes(filter))


def fold_letters(connection: sqlite3.Connection, letters_of: Collection[int]) -> tuple[int, int] | None:
    """Where no ledger is kept: fold the oldest row of these consumers that is not, its keys with dead letters; (row,
    consumer), or None when there is none."""
    row = connection.execute(
        "SELECT id, consumer, packed FROM verdicts WHERE id > ? AND folded = 0 "
        f"AND consumer IN ({', '.join(map(str, letters_of))}) ORDER BY id LIMIT 1",
        (folded_through(connection),),
    ).fetchone()
    if row is None:
        return None
    id, consumer, packed = row
    entries = unpack_verdicts(packed).entries
    with_letters = held_sql.keys_with_letters(connection, consumer, [entry.key for entry in entries])
    known: dict[bytes, bytes] = {}
    parts.merge_raw(known, [encode_entry(entry) for entry in entries if entry.key in with_letters])
    connection.execute("BEGIN IMMEDIATE")
    write(connection, consumer, known)
    connection.execute("UPDATE verdicts SET folded = 1 WHERE id = ?", (id,))
    connection.execute("COMMIT")
    return id, consumer


def take_over(connection: sqlite3.Connection) -> None:
    """What an older version has left in a table of single entries becomes parts of the ledger, the oldest ones."""
    while rows := connection.execute(
        "SELECT consumer, key, outcome, reason, settled_through, confirmed_through, digest, at, attendee_id, consents "
        "FROM ledger ORDER BY consumer, key LIMIT ?",
        (MOST_KEYS,),
    ).fetchall():
        connection.execute("BEGIN IMMEDIATE")
        for consumer in {row[0] for row in rows}:
            mine = [row[1:] for row in rows if row[0] == consumer]
            write(connection, consumer, {row[0]: encode_entry(LedgerEntry(*row)) for row in mine})
            connection.execute("DELETE FROM ledger WHERE consumer = ? AND key <= ?", (consumer, mine[-1][0]))
        connection.execute("COMMIT")


def folded_through(connection: sqlite3.Connection) -> int:
    """Every verdict row up to this one is in the ledger. Raises msgspec.DecodeError when the mark is gone."""
    row = connection.execute("SELECT through FROM folded").fetchone()
    if row is None or not isinstance(row[0], int):
        raise msgspec.DecodeError("the mark of what is in the ledger is not what was written")
    return row[0]


def first_unfolded(connection: sqlite3.Connection) -> int | None:
    """The oldest verdict row that is not in the ledger yet; all before it are."""
    found: int | None = connection.execute(
        "SELECT min(id) FROM verdicts WHERE id > (SELECT through FROM folded) AND folded = 0"
    ).fetchone()[0]
    return found


def unfolded(connection: sqlite3.Connection) -> Iterator[tuple[int, int, Sequence[LedgerEntry]]]:
    """(row, consumer, verdicts) of every verdict row that is not in the ledger yet."""
    for row, consumer, packed in connection.execute(_UNFOLDED, (folded_through(connection),)):
        yield row, consumer, unpack_verdicts(packed).entries


def reclaim(connection: sqlite3.Connection, letters_of: Collection[int] | None = None, *, limit: int = 200) -> bool:
    """Delete verdict rows that neither recovery nor folding needs any more; is there perhaps more to delete?"""
    others = "" if letters_of is None else f"OR v.consumer NOT IN ({', '.join(map(str, letters_of))})"
    done = connection.execute(
        "DELETE FROM verdicts WHERE id IN (SELECT v.id FROM verdicts v JOIN consumer c ON c.id = v.consumer "
        "WHERE v.through < c.watermark AND "
        f"(v.id <= (SELECT through FROM folded) OR v.folded = 1 {others}) LIMIT ?)",
        (limit,),
    )
    return done.rowcount == limit
