"""Statements on the consumers of `state.db`. Every function takes the connection it works on."""

from __future__ import annotations

import sqlite3

from engine.model import NOTHING
from engine.ports import ConsumerState


def consumer_ids(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, id FROM consumer"))


def read_consumers(connection: sqlite3.Connection) -> list[ConsumerState]:
    found = []
    for id, name, identity, start, watermark, read_to, clean, paused, skipped in connection.execute(
        "SELECT id, name, identity, start, watermark, read_to, clean, paused, not_addressed FROM consumer ORDER BY id"
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
        for table in ("count", "verdicts", "ledger", "run", "run_fate"):
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
    """Raises ValueError when there is one of the new name."""
    if connection.execute("SELECT 1 FROM consumer WHERE name = ?", (new,)).fetchone():
        raise ValueError(f"there is a destination {new!r} already")
    connection.execute("UPDATE consumer SET name = ? WHERE name = ?", (new, old))


def remove_consumer(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for table in ("count", "verdicts", "ledger", "held", "run", "run_fate"):
        connection.execute(f"DELETE FROM {table} WHERE consumer = (SELECT id FROM consumer WHERE name = ?)", (name,))
    connection.execute("DELETE FROM consumer WHERE name = ?", (name,))
    connection.execute("COMMIT")
