"""The table `held` of `state.db`: waiting profiles and dead letters. Every function takes its connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from engine.core.codec import pack_profile, unpack_profile
from engine.core.fold import events_of
from engine.model import Held, HeldKind, LetterState, Profile, Trait
from engine.ports import LetterFilter

KEYS_PER_QUERY = 500
_HELD = "id, kind, at, reason, excerpt, state, profile"


_KINDS, _STATES = frozenset(HeldKind), frozenset(LetterState)


def hold(connection: sqlite3.Connection, id: int, several: Sequence[Held]) -> None:
    """A WAITING one takes the place of the key's earlier one, under an id of its own."""
    connection.executemany(
        "DELETE FROM held WHERE consumer = ? AND key = ? AND kind = 'waiting'",
        ((id, held.profile.key) for held in several if held.kind == HeldKind.WAITING),
    )
    connection.executemany(
        "INSERT INTO held (consumer, kind, key, at, reason, excerpt, state, events, last, profile) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                id,
                str(held.kind),
                held.profile.key,
                held.at,
                held.reason,
                held.excerpt,
                str(held.state),
                events_of(held.profile),
                held.profile.last,
                pack_profile(held.profile),
            )
            for held in several
        ),
    )


def holders(connection: sqlite3.Connection, condition: str) -> set[int]:
    """Consumers of which something is held that meets this condition."""
    return {id for (id,) in connection.execute(f"SELECT DISTINCT consumer FROM held WHERE {condition}")}


def waiting(connection: sqlite3.Connection, id: int, keys: Sequence[bytes]) -> Iterable[Held]:
    marks = ", ".join("?" * len(keys))
    for row in connection.execute(
        f"SELECT {_HELD} FROM held WHERE consumer = ? AND kind = 'waiting' AND key IN ({marks})", (id, *keys)
    ):
        yield _held(row)


def keys_with_letters(connection: sqlite3.Connection, id: int, keys: Sequence[bytes]) -> set[bytes]:
    """Which of these keys have a dead letter, whatever became of it."""
    found: set[bytes] = set()
    for start in range(0, len(keys), KEYS_PER_QUERY):
        some = keys[start : start + KEYS_PER_QUERY]
        marks = ", ".join("?" * len(some))
        query = f"SELECT key FROM held WHERE consumer = ? AND kind <> 'waiting' AND key IN ({marks})"
        found.update(key for (key,) in connection.execute(query, (id, *some)))
    return found


def holders_of_letters(connection: sqlite3.Connection, id: int) -> set[bytes]:
    """Every key that has a dead letter, whatever became of it."""
    rows = connection.execute("SELECT DISTINCT key FROM held WHERE consumer = ? AND kind <> 'waiting'", (id,))
    return {key for (key,) in rows}


def waiting_after(connection: sqlite3.Connection, id: int, after: int, limit: int) -> list[Held]:
    rows = connection.execute(
        f"SELECT {_HELD} FROM held WHERE consumer = ? AND kind = 'waiting' AND id > ? ORDER BY id LIMIT ?",
        (id, after, limit),
    )
    return [_held(row) for row in rows]


def _held(row: tuple[int, str, float, str, str, str, bytes]) -> Held:
    """Raises msgspec.DecodeError when the row is not what was written."""
    id, kind, at, reason, excerpt, state, profile = row
    if kind not in _KINDS or state not in _STATES or not isinstance(profile, bytes):
        raise msgspec.DecodeError(f"the row of the held profile {id} is not what was written")
    return Held(HeldKind(kind), unpack_profile(profile), at, reason, excerpt, LetterState(state), id)


def letter_condition(which: LetterFilter) -> tuple[str, list[object]]:
    """The WHERE clause of a filter, over `held` joined with `consumer`."""
    parts, values = ["held.kind <> 'waiting'"], list[object]()
    for clause, value in (
        ("consumer.name = ?", which.consumer),
        ("held.kind = ?", None if which.kind is None else str(which.kind)),
        ("held.reason = ?", which.reason),
        ("held.key = ?", which.key),
        ("held.state = ?", None if which.state is None else str(which.state)),
        ("held.at >= ?", which.since),
        ("held.at <= ?", which.until),
    ):
        if value is not None:
            parts.append(clause)
            values.append(value)
    if which.ids is not None:
        parts.append("held.id IN (SELECT value FROM json_each(?))")
        values.append(msgspec.json.encode(list(which.ids)).decode())
    return " AND ".join(parts), values


def letters(connection: sqlite3.Connection, which: LetterFilter, limit: int, after: int) -> list[tuple[str, Held]]:
    condition, values = letter_condition(which)
    columns = ", ".join(f"held.{column}" for column in _HELD.split(", "))
    rows = connection.execute(
        f"SELECT consumer.name, {columns} FROM held JOIN consumer ON consumer.id = held.consumer "
        f"WHERE {condition} AND held.id > ? ORDER BY held.id LIMIT ?",
        (*values, after, limit),
    )
    return [(row[0], _held(row[1:])) for row in rows]


def count_letters(connection: sqlite3.Connection, which: LetterFilter) -> int:
    condition, values = letter_condition(which)
    query = f"SELECT count(*) FROM held JOIN consumer ON consumer.id = held.consumer WHERE {condition}"
    return int(connection.execute(query, values).fetchone()[0])


def purge_letters(connection: sqlite3.Connection, which: LetterFilter, limit: int) -> int:
    """Empty some letters of their content and keep their rows, so that what was counted stays explained; how many."""
    condition, values = letter_condition(which)
    rows = connection.execute(
        "SELECT held.id, held.profile FROM held JOIN consumer ON consumer.id = held.consumer "
        f"WHERE {condition} AND held.state <> 'purged' LIMIT ?",
        (*values, limit),
    ).fetchall()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "UPDATE held SET state = 'purged', excerpt = '', profile = ? WHERE id = ?",
        [(pack_profile(_emptied(unpack_profile(packed))), id) for id, packed in rows],
    )
    connection.execute("COMMIT")
    return len(rows)


def _emptied(profile: Profile) -> Profile:
    return msgspec.structs.replace(
        profile,
        content=b"{}",
        traits=int(Trait.ERASED),
        audiences=None,
        consents=None,
        stamps=None,
        under=None,
        passed=None,
    )


def delete_letters_before(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Delete some letters that were written before the time `before` (epoch seconds); how many."""
    done = connection.execute(
        "DELETE FROM held WHERE id IN (SELECT id FROM held WHERE kind <> 'waiting' AND at < ? LIMIT ?)", (before, limit)
    )
    return done.rowcount
