"""What an audit asks of `state.db` beside its sums: how far its rows go, and which contradict themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from engine.adapters.sqlite import parts, run_sql
from engine.core.codec import KEY_BYTES, unpack_verdicts
from engine.model import HeldKind, LetterState
from engine.ports import Inspection

OWNED = ("count", "verdicts", "part", "held", "run", "run_fate")  # tables with a column `consumer`


def inspect(connection: sqlite3.Connection) -> dict[str, Inspection]:
    """By consumer, as of one moment; under "" what belongs to none."""
    connection.execute("BEGIN")
    consumers = connection.execute("SELECT id, name FROM consumer ORDER BY id").fetchall()
    found = {name: _inspect(connection, id) for id, name in consumers}
    found[""] = Inspection(problems=list(_orphans(connection)))
    connection.execute("COMMIT")
    return found


def _inspect(connection: sqlite3.Connection, id: int) -> Inspection:
    found = Inspection()
    found.problems += _ledger(connection, id, found)
    found.problems += _letters(connection, id)
    found.problems += run_sql.problems(connection, id)
    for row, through, packed in connection.execute(
        "SELECT id, through, packed FROM verdicts WHERE consumer = ?", (id,)
    ):
        found.settled_through = max(found.settled_through, through)
        found.problems += _verdicts(row, through, packed)
    return found


def _ledger(connection: sqlite3.Connection, id: int, found: Inspection) -> Iterator[str]:
    backwards = misshapen = 0
    entries = parts.entries(connection, id)
    try:
        for entry in entries:
            found.settled_through = max(found.settled_through, entry.settled_through)
            found.confirmed_through = max(found.confirmed_through, entry.confirmed_through)
            backwards += entry.confirmed_through > entry.settled_through
            misshapen += len(entry.key) != KEY_BYTES
    except msgspec.MsgspecError:
        yield "some of its ledger cannot be read"
    if backwards:
        yield f"{backwards} ledger rows confirm more than is settled"
    if misshapen:
        yield f"{misshapen} ledger rows have a key that is none"


def _verdicts(row: int, through: int, packed: bytes) -> Iterator[str]:
    try:
        reaches = unpack_verdicts(packed).through()
    except msgspec.MsgspecError:
        yield f"verdict row {row} cannot be read"
        return
    if reaches != through:
        yield f"verdict row {row} goes up to offset {reaches}, and says {through}"


def _letters(connection: sqlite3.Connection, id: int) -> Iterator[str]:
    kinds, states = {str(kind) for kind in HeldKind}, {str(state) for state in LetterState}
    for kind, state, rows in connection.execute(
        "SELECT kind, state, count(*) FROM held WHERE consumer = ? GROUP BY kind, state", (id,)
    ):
        if kind not in kinds or state not in states or (kind == HeldKind.WAITING and state != LetterState.KEPT):
            yield f"{rows} held profiles are {kind!r} in state {state!r}, which there is not"


def _orphans(connection: sqlite3.Connection) -> Iterator[str]:
    for table in OWNED:
        (rows,) = connection.execute(
            f"SELECT count(*) FROM {table} WHERE consumer NOT IN (SELECT id FROM consumer)"
        ).fetchone()
        if rows:
            yield f"{rows} rows of table {table} belong to no destination"
