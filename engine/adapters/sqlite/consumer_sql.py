"""Statements on the consumers of `state.db`. Every function takes the connection it works on."""

from __future__ import annotations

import sqlite3

from engine.adapters.sqlite import parts
from engine.model import NOTHING
from engine.ports import ConsumerState

REMOVED = ""
"""The identity of a consumer that was removed and has left letters: no destination has it."""


def consumer_ids(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, id FROM consumer"))


def read_consumers(connection: sqlite3.Connection) -> list[ConsumerState]:
    found = []
    for id, name, identity, start, watermark, read_to, clean, paused, skipped in connection.execute(
        "SELECT id, name, identity, start, watermark, read_to, clean, paused, not_addressed FROM consumer "
        "WHERE identity <> ? ORDER BY id",
        (REMOVED,),
    ):
        counts = dict(connection.execute("SELECT name, events FROM count WHERE consumer = ?", (id,)))
        events, profiles = connection.execute(
            "SELECT coalesce(sum(events), 0), count(*) FROM held WHERE consumer = ? AND kind = 'waiting'", (id,)
        ).fetchone()
        (letters,) = connection.execute(
            "SELECT count(*) FROM held WHERE consumer = ? AND kind <> 'waiting' AND state = 'kept'", (id,)
        ).fetchone()
        (through,) = connection.execute(
            "SELECT max(through) FROM verdicts WHERE consumer = ? AND through >= ?", (id, watermark)
        ).fetchone()
        found.append(
            ConsumerState(
                name,
                identity,
                start,
                watermark,
                read_to,
                bool(clean),
                bool(paused),
                skipped,
                counts,
                events,
                profiles,
                letters,
                NOTHING if through is None else through,
            )
        )
    return found


def add_consumer(connection: sqlite3.Connection, state: ConsumerState) -> None:
    """A name that exists starts anew; its dead letters stay."""
    (known,) = connection.execute("SELECT max(id) FROM consumer WHERE name = ?", (state.name,)).fetchone()
    connection.execute("BEGIN IMMEDIATE")
    if known is not None:
        parts.delete_all(connection, known)
        for table in ("count", "verdicts", "run", "run_fate"):
            connection.execute(f"DELETE FROM {table} WHERE consumer = ?", (known,))
        connection.execute("DELETE FROM held WHERE consumer = ? AND kind = 'waiting'", (known,))
    connection.execute(
        "INSERT OR REPLACE INTO consumer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            known,
            state.name,
            state.identity,
            state.start,
            state.watermark,
            state.read_to,
            state.clean,
            state.paused,
            state.not_addressed,
        ),
    )
    connection.execute("COMMIT")


def rename_consumer(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Letters that a removed one of the new name has left are its own from now on. Raises ValueError when there is one
    of the new name."""
    known = connection.execute("SELECT id, identity FROM consumer WHERE name = ?", (new,)).fetchone()
    if known is not None and known[1] != REMOVED:
        raise ValueError(f"there is a destination {new!r} already")
    connection.execute("BEGIN IMMEDIATE")
    if known is not None:
        move = "UPDATE held SET consumer = (SELECT id FROM consumer WHERE name = ?) WHERE consumer = ?"
        connection.execute(move, (old, known[0]))
        connection.execute("DELETE FROM consumer WHERE id = ?", (known[0],))
    connection.execute("UPDATE consumer SET name = ? WHERE name = ?", (new, old))
    connection.execute("COMMIT")


def remove_consumer(connection: sqlite3.Connection, name: str) -> None:
    """Its letters stay, under its name, until they are purged, too old, or of somebody who is forgotten."""
    row = connection.execute("SELECT id FROM consumer WHERE name = ?", (name,)).fetchone()
    if row is None:
        return
    connection.execute("BEGIN IMMEDIATE")
    parts.delete_all(connection, row[0])
    for table in ("count", "verdicts", "run", "run_fate"):
        connection.execute(f"DELETE FROM {table} WHERE consumer = ?", row)
    connection.execute("DELETE FROM held WHERE consumer = ? AND kind = 'waiting'", row)
    connection.execute("UPDATE consumer SET identity = ?, paused = 0 WHERE id = ?", (REMOVED, *row))
    connection.execute(
        "DELETE FROM consumer WHERE id = ? AND NOT EXISTS (SELECT 1 FROM held WHERE held.consumer = consumer.id)", row
    )
    connection.execute("COMMIT")


def forget_in_removed(connection: sqlite3.Connection, key: bytes) -> None:
    """Nobody reads the journal for them any more, so whoever carries out a forget does it for them as well."""
    connection.execute(
        "DELETE FROM held WHERE key = ? AND consumer IN (SELECT id FROM consumer WHERE identity = ?)", (key, REMOVED)
    )
