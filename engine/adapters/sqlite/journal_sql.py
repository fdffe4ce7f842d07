"""The tables of `journal.db`, and the statements on them. Every function takes the connection it works on."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Sequence

import msgspec

from engine.adapters.sqlite.file_format import FileFormat
from engine.core.codec import checksum, pack_events, unpack_events
from engine.errors import StorageFailed
from engine.model import Append, Event, Lane

_FIRST = """
CREATE TABLE append (
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, source TEXT NOT NULL, lane INTEGER NOT NULL,
    accepted_at REAL NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""
FORMAT = FileFormat(0x52464A31, _FIRST)  # "RFJ1"
COLUMNS = "first, count, source, lane, accepted_at, crc, payload"
Row = tuple[int, int, str, int, float, int, bytes]


def rows_of(appends: Sequence[Append], following: int) -> list[Row]:
    """The rows of these appends, the first of them at the offset `following`."""
    rows = []
    for append in appends:
        payload = append.packed or pack_events(append.events)
        count, lane, at = len(append.events), int(append.lane), append.accepted_at
        crc = checksum(following, count, append.source, lane, at, payload)
        rows.append((following, count, append.source, lane, at, crc, payload))
        following += count
    return rows


def insert(connection: sqlite3.Connection, rows: Sequence[Row], marking: int | None = None) -> None:
    """In one transaction; `marking`: the offset behind them, to be noted with them."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO append VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    if marking is not None:
        mark(connection, marking)
    connection.execute("COMMIT")


def mark(connection: sqlite3.Connection, following: int) -> None:
    """Note in another page than the rows' that everything below `following` was stored."""
    value = f"{following} {zlib.crc32(str(following).encode())}"
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('next', ?)", (value,))


def marked(connection: sqlite3.Connection) -> int:
    """What was noted last; 0 when nothing was, or when it is not what was noted."""
    row = connection.execute("SELECT CAST(value AS BLOB) FROM meta WHERE name = 'next'").fetchone()
    noted = bytes(row[0]).decode("ascii", "replace") if row and row[0] else ""  # a turned bit may leave no text at all
    following, _, crc = noted.partition(" ")
    return int(following) if following.isdecimal() and crc == str(zlib.crc32(following.encode())) else 0


def unpack(row: Row) -> Append:
    """Raises StorageFailed when the row is not what was written."""
    first, count, source, lane, accepted_at, crc, payload = row
    try:
        if checksum(first, count, source, lane, accepted_at, payload) != crc:
            raise StorageFailed(f"the checksum of offset {first} does not match")
        events = unpack_events(payload)
    except (msgspec.DecodeError, TypeError) as error:
        raise StorageFailed(f"the row of offset {first} cannot be read") from error
    if len(events) != count:
        raise StorageFailed(f"the row of offset {first} does not hold {count} events")
    return Append(events, source, Lane(lane), accepted_at, first)


def read(connection: sqlite3.Connection, start: int, events: int) -> list[Append]:
    """Stored appends from `start` on, the first one cut; what was released may be missing before them. Raises
    StorageFailed when a row does not match its checksum, and when one is missing between two others."""
    row = connection.execute("SELECT max(first) FROM append WHERE first <= ?", (start,)).fetchone()
    found: list[Append] = []
    cursor = connection.execute(
        f"SELECT {COLUMNS} FROM append WHERE first >= ? ORDER BY first", (start if row[0] is None else row[0],)
    )
    for stored in cursor:
        append = unpack(stored)
        if found and append.first != found[-1].first + len(found[-1].events):
            raise missing(found[-1].first + len(found[-1].events), append.first)
        if append.first + len(append.events) <= start:
            continue
        if append.first < start:
            append.events, append.first = append.events[start - append.first :], start
        found.append(append)
        events -= len(append.events)
        if events <= 0:
            break
    cursor.close()
    return found


def missing(first: int, end: int) -> StorageFailed:
    return StorageFailed(f"offsets {first} to {end - 1} are missing")


def rewrite(connection: sqlite3.Connection, rows: Sequence[tuple[Append, list[Event]]]) -> None:
    """Put the emptied events where the append is stored; one that was released meanwhile is gone anyway."""
    connection.execute("BEGIN IMMEDIATE")
    for append, events in rows:
        stored = connection.execute("SELECT count FROM append WHERE first = ?", (append.first,)).fetchone()
        if stored is None or stored[0] != len(events):
            continue
        payload = pack_events(events)
        crc = checksum(append.first, len(events), append.source, int(append.lane), append.accepted_at, payload)
        connection.execute("UPDATE append SET payload = ?, crc = ? WHERE first = ?", (payload, crc, append.first))
    connection.execute("COMMIT")


def delete_some(connection: sqlite3.Connection, below: int, newest: int, limit: int, seconds: float) -> bool:
    """Delete rows that end at or below `below`, oldest first, for about `seconds` but at least one; is there perhaps
    more? The row that ends at the offset `newest` stays: it tells the next offset."""
    rows = connection.execute("SELECT first, count FROM append WHERE first < ? ORDER BY first LIMIT ?", (below, limit))
    gone = [first for first, count in rows.fetchall() if first + count <= below and first + count < newest]
    if not gone:
        return False
    until = time.monotonic() + seconds
    connection.execute("BEGIN IMMEDIATE")
    for first in gone:
        connection.execute("DELETE FROM append WHERE first = ?", (first,))
        if time.monotonic() > until:
            break
    connection.execute("COMMIT")
    return True
