"""The tables of `state.db`, and the statements on them. Every function takes the connection it works on."""

from __future__ import annotations

import sqlite3

from engine.adapters.sqlite import consumer_sql, held_sql, parts, run_sql
from engine.adapters.sqlite.file_format import FileFormat
from engine.adapters.sqlite.upgrades import UPGRADES
from engine.core.codec import VerdictRow, pack_verdicts, unpack_verdicts
from engine.model import NOTHING
from engine.ports import Transition

_FIRST = """
CREATE TABLE consumer (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, identity TEXT NOT NULL, start INTEGER NOT NULL,
    watermark INTEGER NOT NULL, read_to INTEGER NOT NULL, clean INTEGER NOT NULL, paused INTEGER NOT NULL,
    not_addressed INTEGER NOT NULL
);
CREATE TABLE count (
    consumer INTEGER NOT NULL, name TEXT NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (consumer, name)
) WITHOUT ROWID;
CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, consumer INTEGER NOT NULL, through INTEGER NOT NULL, folded INTEGER NOT NULL,
    packed BLOB NOT NULL
);
CREATE INDEX verdicts_unfolded ON verdicts (id) WHERE folded = 0;
CREATE TABLE ledger (
    consumer INTEGER NOT NULL, key BLOB NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL,
    settled_through INTEGER NOT NULL, confirmed_through INTEGER NOT NULL, digest BLOB NOT NULL, at REAL NOT NULL,
    attendee_id TEXT NOT NULL, PRIMARY KEY (consumer, key)
) WITHOUT ROWID;
CREATE TABLE held (
    id INTEGER PRIMARY KEY AUTOINCREMENT, consumer INTEGER NOT NULL, kind TEXT NOT NULL, key BLOB NOT NULL,
    at REAL NOT NULL, reason TEXT NOT NULL, excerpt TEXT NOT NULL, state TEXT NOT NULL, events INTEGER NOT NULL,
    last INTEGER NOT NULL, profile BLOB NOT NULL
);
CREATE UNIQUE INDEX held_waiting ON held (consumer, key) WHERE kind = 'waiting';
CREATE INDEX held_letters ON held (consumer, key) WHERE kind <> 'waiting';
CREATE TABLE pause (account TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID
"""
FORMAT = FileFormat(0x52465331, _FIRST, UPGRADES)  # "RFS1"


def create(connection: sqlite3.Connection) -> None:
    """In memory what `prepare_file` does to a file: a backup of it is a file like any other."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != FORMAT.application_id:
        FORMAT.create(connection)


# -- one settling transaction ---------------------------------------------------------------------------------------


def apply(
    connection: sqlite3.Connection,
    id: int,
    transition: Transition,
    audiences: run_sql.Audiences,
    *,
    in_ledger: bool = True,
) -> int:
    """Apply one transition inside the caller's transaction; returns the id of its verdict row, 0 if it needs none.

    Forgets come first, so that what happened to a key after it was forgotten stands. `in_ledger`: its verdicts are to
    be found later; else nobody but recovery asks for them."""
    for key, _ in transition.forget:
        _forget(connection, id, key)
    row = _write_verdicts(connection, id, transition, in_ledger)
    held_sql.hold(connection, id, transition.hold)
    connection.executemany(
        "DELETE FROM held WHERE consumer = ? AND key = ? AND kind = 'waiting' AND last <= ?",
        [(id, key, through) for key, through in transition.drop],
    )
    for letter, state in transition.letters:
        connection.execute("UPDATE held SET state = ? WHERE id = ? AND state <> 'purged'", (str(state), letter))
    connection.executemany(
        "INSERT INTO count VALUES (?, ?, ?) "
        "ON CONFLICT (consumer, name) DO UPDATE SET events = events + excluded.events",
        [(id, name, events) for name, events in transition.counts.items()],
    )
    run_sql.count(connection, id, transition, audiences)
    for column in ("watermark", "read_to", "not_addressed", "clean", "paused"):
        value = getattr(transition, column)
        if value is not None:
            connection.execute(f"UPDATE consumer SET {column} = ? WHERE id = ?", (value, id))
    return row


def _write_verdicts(connection: sqlite3.Connection, id: int, transition: Transition, in_ledger: bool) -> int:
    """Recovery reads nothing below the watermark of this very transaction."""
    below = NOTHING if transition.watermark is None else transition.watermark
    held = [(held.profile.key, held.profile.last) for held in transition.hold]
    accounted = [pair for pair in (*held, *transition.accounted, *transition.forget) if pair[1] >= below]
    entries = transition.verdicts
    if not in_ledger:
        entries = [entry for entry in entries if entry.settled_through >= below]
    row = VerdictRow(entries, accounted)
    if not row.entries and not row.accounted:
        return 0
    cursor = connection.execute(
        "INSERT INTO verdicts (consumer, through, folded, packed) VALUES (?, ?, 0, ?)",
        (id, row.through(), pack_verdicts(row)),
    )
    return cursor.lastrowid or 0


def _forget(connection: sqlite3.Connection, id: int, key: bytes) -> None:
    parts.erase(connection, id, {key})
    connection.execute("DELETE FROM held WHERE consumer = ? AND key = ?", (id, key))
    consumer_sql.forget_in_removed(connection, key)
    for row, packed in connection.execute("SELECT id, packed FROM verdicts WHERE consumer = ?", (id,)).fetchall():
        if key not in packed:
            continue
        verdicts = unpack_verdicts(packed)
        # Recovery still has to know that these events are done with; nobody has to know what became of them.
        verdicts.accounted += [(key, entry.settled_through) for entry in verdicts.entries if entry.key == key]
        verdicts.entries = [entry for entry in verdicts.entries if entry.key != key]
        connection.execute("UPDATE verdicts SET packed = ? WHERE id = ?", (pack_verdicts(verdicts), row))


# -- what recovery needs -------------------------------------------------------------------------------------------


def accounted(connection: sqlite3.Connection, name: str) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    row = connection.execute("SELECT id, watermark FROM consumer WHERE name = ?", (name,)).fetchone()
    if row is None:
        return found
    id, watermark = row
    for (packed,) in connection.execute(
        "SELECT packed FROM verdicts WHERE consumer = ? AND through >= ?", (id, watermark)
    ):
        verdicts = unpack_verdicts(packed)
        for entry in verdicts.entries:
            _note(found, entry.key, entry.settled_through, watermark)
        for key, offset in verdicts.accounted:
            _note(found, key, offset, watermark)
    return found


def _note(found: dict[bytes, int], key: bytes, offset: int, watermark: int) -> None:
    if offset >= watermark and offset > found.get(key, -1):
        found[key] = offset


def newest_verdict(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT coalesce(max(id), 0) FROM verdicts").fetchone()[0]
    return found
