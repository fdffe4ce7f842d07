"""The tables of `state.db`, and the statements on them. Every function takes the connection it works on."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence

from engine.adapters.sqlite import consumer_sql, held_sql, run_sql
from engine.adapters.sqlite.file_format import FileFormat
from engine.adapters.sqlite.upgrades import UPGRADES
from engine.core.codec import VerdictRow, pack_verdicts, unpack_verdicts
from engine.model import LedgerEntry
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

_LEDGER = "key, outcome, reason, settled_through, confirmed_through, digest, at, attendee_id"
_NO_LETTERS = (
    "NOT EXISTS (SELECT 1 FROM held WHERE held.consumer = ledger.consumer AND held.key = ledger.key "
    "AND held.kind <> 'waiting')"
)
_UPSERT = """
INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (consumer, key) DO UPDATE SET
    outcome = CASE excluded.outcome WHEN '' THEN outcome ELSE excluded.outcome END,
    reason = CASE excluded.outcome WHEN '' THEN reason ELSE excluded.reason END,
    at = CASE WHEN excluded.outcome = '' AND outcome <> '' THEN at ELSE excluded.at END,
    digest = excluded.digest,
    settled_through = max(settled_through, excluded.settled_through),
    confirmed_through = max(confirmed_through, excluded.confirmed_through),
    attendee_id = CASE excluded.attendee_id WHEN '' THEN attendee_id ELSE excluded.attendee_id END
"""


def create(connection: sqlite3.Connection) -> None:
    """In memory what `prepare_file` does to a file: a backup of it is a file like any other."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != FORMAT.application_id:
        FORMAT.create(connection)


# -- one settling transaction ---------------------------------------------------------------------------------------


def apply(connection: sqlite3.Connection, id: int, transition: Transition, audiences: run_sql.Audiences) -> int:
    """Apply one transition inside the caller's transaction; returns the id of its verdict row, 0 if it needs none.

    Forgets come first, so that what happened to a key after it was forgotten stands."""
    for key, _ in transition.forget:
        _forget(connection, id, key)
    row = _write_verdicts(connection, id, transition)
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


def _write_verdicts(connection: sqlite3.Connection, id: int, transition: Transition) -> int:
    accounted = [(held.profile.key, held.profile.last) for held in transition.hold]
    row = VerdictRow(transition.verdicts, [*accounted, *transition.accounted, *transition.forget])
    if not row.entries and not row.accounted:
        return 0
    cursor = connection.execute(
        "INSERT INTO verdicts (consumer, through, folded, packed) VALUES (?, ?, 0, ?)",
        (id, row.through(), pack_verdicts(row)),
    )
    return cursor.lastrowid or 0


def _forget(connection: sqlite3.Connection, id: int, key: bytes) -> None:
    connection.execute("DELETE FROM ledger WHERE consumer = ? AND key = ?", (id, key))
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


# -- folding and reclaiming, in slices ------------------------------------------------------------------------------


def fold_one(connection: sqlite3.Connection, letters_of: Collection[int] | None = None) -> int | None:
    """Fold the oldest unfolded verdict row into the ledger; its id, or None when there is none. `letters_of` (where no
    ledger is kept): only rows of these consumers, and of keys that have dead letters."""
    which = "" if letters_of is None else f"AND consumer IN ({', '.join(map(str, letters_of))})"
    row = connection.execute(
        f"SELECT id, consumer, packed FROM verdicts WHERE folded = 0 {which} ORDER BY id LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    id, consumer, packed = row
    entries = unpack_verdicts(packed).entries
    if letters_of is not None:
        with_letters = held_sql.keys_with_letters(connection, consumer, [entry.key for entry in entries])
        entries = [entry for entry in entries if entry.key in with_letters]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        _UPSERT,
        [
            (
                consumer,
                entry.key,
                entry.outcome,
                entry.reason,
                entry.settled_through,
                entry.confirmed_through,
                entry.digest,
                entry.at,
                entry.attendee_id,
            )
            for entry in entries
        ],
    )
    connection.execute("UPDATE verdicts SET folded = 1 WHERE id = ?", (id,))
    connection.execute("COMMIT")
    return int(id)


def first_unfolded(connection: sqlite3.Connection) -> int | None:
    """The oldest verdict row that is not in the ledger yet; all before it are."""
    found: int | None = connection.execute("SELECT min(id) FROM verdicts WHERE folded = 0").fetchone()[0]
    return found


def reclaim(connection: sqlite3.Connection, letters_of: Collection[int] | None = None, *, limit: int = 200) -> bool:
    """Delete verdict rows that neither recovery nor folding needs any more; is there perhaps more to delete?"""
    others = "" if letters_of is None else f"OR v.consumer NOT IN ({', '.join(map(str, letters_of))})"
    done = connection.execute(
        "DELETE FROM verdicts WHERE id IN (SELECT v.id FROM verdicts v JOIN consumer c ON c.id = v.consumer "
        f"WHERE v.through < c.watermark AND (v.folded = 1 {others}) LIMIT ?)",
        (limit,),
    )
    return done.rowcount == limit


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


# -- reading --------------------------------------------------------------------------------------------------------


def ledger_entries(connection: sqlite3.Connection, id: int, keys: Sequence[bytes]) -> Iterable[LedgerEntry]:
    marks = ", ".join("?" * len(keys))
    for row in connection.execute(f"SELECT {_LEDGER} FROM ledger WHERE consumer = ? AND key IN ({marks})", (id, *keys)):
        yield LedgerEntry(*row)


def ledger_after(connection: sqlite3.Connection, id: int, after: bytes, limit: int) -> list[LedgerEntry]:
    """In the order of the keys, from behind `after`."""
    rows = connection.execute(
        f"SELECT {_LEDGER} FROM ledger WHERE consumer = ? AND key > ? ORDER BY key LIMIT ?", (id, after, limit)
    )
    return [LedgerEntry(*row) for row in rows]


def newest_verdict(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT coalesce(max(id), 0) FROM verdicts").fetchone()[0]
    return found


def clear_digests(connection: sqlite3.Connection) -> None:
    """Nothing that was confirmed before is certain any more."""
    connection.execute("UPDATE ledger SET digest = x'' WHERE digest <> x''")


def outdated_keys(connection: sqlite3.Connection, id: int, before: float, max_keys: int, limit: int) -> list[bytes]:
    """Ledger keys to delete: last touched before `before`, or the oldest beyond `max_keys`. Not those with dead
    letters: when one is replayed it has to be known what has overtaken it."""
    old = [
        key
        for (key,) in connection.execute(
            f"SELECT key FROM ledger WHERE consumer = ? AND at < ? AND {_NO_LETTERS} LIMIT ?", (id, before, limit)
        )
    ]
    if old:
        return old
    (total,) = connection.execute("SELECT count(*) FROM ledger WHERE consumer = ?", (id,)).fetchone()
    if total <= max_keys:
        return []
    rows = connection.execute(
        f"SELECT key FROM ledger WHERE consumer = ? AND {_NO_LETTERS} ORDER BY at LIMIT ?",
        (id, min(limit, total - max_keys)),
    )
    return [key for (key,) in rows]
