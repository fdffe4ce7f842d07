"""Statements on the hourly runs of `state.db`. Every function takes the connection it works on.

`run` holds what `count` holds, by hour: for every name the hours add up to the count, since what is pruned goes into
the hour `BEFORE`. `run_fate` says more of each hour: what became of events, of all ("") and by audience.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping

from engine.history import BEFORE, HOUR_SECONDS, OTHER, Run, RunFilter
from engine.ports import Transition

_COUNT = """
INSERT INTO run VALUES (?, ?, ?, ?) ON CONFLICT (consumer, hour, name) DO UPDATE SET events = events + excluded.events
"""
_FATE = """
INSERT INTO run_fate VALUES (?, ?, ?, ?, ?)
ON CONFLICT (consumer, hour, audience, fate) DO UPDATE SET events = events + excluded.events
"""


class Audiences:
    """Which audiences of a consumer have rows of their own in its newest hour, so that they stay within a limit. What a
    transaction that was rolled back has put in only costs its place."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._hours: dict[int, tuple[int, set[str]]] = {}

    def named(
        self, connection: sqlite3.Connection, id: int, hour: int, audiences: Mapping[str, dict[str, int]]
    ) -> Iterator[tuple[str, str, int]]:
        """(audience, fate, events), the audience `OTHER` beyond the limit."""
        known = self._known(connection, id, hour)
        for audience, fates in audiences.items():
            if audience not in known:
                if len(known) >= self._most:
                    audience = OTHER
                else:
                    known.add(audience)
            for fate, events in fates.items():
                yield audience, fate, events

    def _known(self, connection: sqlite3.Connection, id: int, hour: int) -> set[str]:
        at, known = self._hours.get(id, (BEFORE, set[str]()))
        if at != hour:
            rows = connection.execute(
                "SELECT DISTINCT audience FROM run_fate WHERE consumer = ? AND hour = ? AND audience NOT IN ('', ?)",
                (id, hour, OTHER),
            )
            known = {audience for (audience,) in rows}
            self._hours[id] = (hour, known)
        return known

    def clear(self) -> None:
        """Consumers were added or removed."""
        self._hours.clear()


def count(connection: sqlite3.Connection, id: int, transition: Transition, audiences: Audiences) -> None:
    """Inside the caller's transaction."""
    hour = int(transition.at // HOUR_SECONDS)
    connection.executemany(_COUNT, [(id, hour, name, events) for name, events in transition.counts.items()])
    rows = [(id, hour, "", fate, events) for fate, events in transition.fates.items()]
    if transition.audiences:
        named = audiences.named(connection, id, hour, transition.audiences)
        rows += [(id, hour, audience, fate, events) for audience, fate, events in named]
    connection.executemany(_FATE, rows)


def runs(connection: sqlite3.Connection, which: RunFilter, limit: int) -> list[Run]:
    """As of one moment. Hour by hour, so that a page costs what stands in it, however many hours are kept."""
    connection.execute("BEGIN")
    found: list[Run] = []
    for hour, name, id in _hours(connection, which):
        found += _of_hour(connection, id, Run(name, hour), which)
        if len(found) >= limit:
            break
    connection.execute("COMMIT")
    return found[:limit]


def _hours(connection: sqlite3.Connection, which: RunFilter) -> list[tuple[int, str, int]]:
    """(hour, name of the consumer, its id) of what may be in the answer, in its order."""
    parts: list[tuple[str, tuple[object, ...]]] = [("r.hour > ?", (BEFORE,))]
    if which.consumer is not None:
        parts.append(("c.name = ?", (which.consumer,)))
    if which.since is not None:
        parts.append(("r.hour >= ?", (math.ceil(which.since / HOUR_SECONDS),)))
    if which.until is not None:
        parts.append(("r.hour < ?", (math.ceil(which.until / HOUR_SECONDS),)))
    if which.below is not None:
        parts.append(("(-r.hour, c.name) >= (?, ?)", (-which.below[0], which.below[1])))
    where, values = " AND ".join(part for part, _ in parts), [value for _, some in parts for value in some]
    rows = connection.execute(
        "SELECT DISTINCT r.hour, c.name, c.id FROM run r JOIN consumer c ON c.id = r.consumer "
        f"WHERE {where} ORDER BY r.hour DESC, c.name",
        values,
    )
    return [row for row in rows if which.among is None or row[1] in which.among]


def _of_hour(connection: sqlite3.Connection, id: int, whole: Run, which: RunFilter) -> list[Run]:
    """The runs of one hour of one consumer: of all of it, and by audience."""
    only, values = ("", ()) if which.audience is None else ("AND audience = ?", (which.audience,))
    rows = connection.execute(
        f"SELECT audience, fate, events FROM run_fate WHERE consumer = ? AND hour = ? {only} ORDER BY audience",
        (id, whole.hour, *values),
    )
    found = {"": whole} if not which.audience else {}
    for audience, fate, events in rows:
        found.setdefault(audience, Run(whole.consumer, whole.hour, audience)).fates[fate] = events
    begun = which.below is not None and which.below[:2] == (whole.hour, whole.consumer)
    after = which.below[2] if begun and which.below is not None else None
    wanted = [run for audience, run in found.items() if after is None or audience > after]
    if wanted and wanted[0] is whole:
        counts = connection.execute("SELECT name, events FROM run WHERE consumer = ? AND hour = ?", (id, whole.hour))
        whole.counts = dict(counts.fetchall())
    return wanted


def prune_before(connection: sqlite3.Connection, hour: int) -> int:
    """Forget one hour of one consumer that is older; what it counted stays in the sums. How many hours were forgotten:
    0 or 1."""
    row = connection.execute(
        "SELECT consumer, hour FROM run WHERE hour < ? AND hour <> ? ORDER BY consumer, hour LIMIT 1", (hour, BEFORE)
    ).fetchone()
    if row is None:
        return 0
    connection.execute("BEGIN IMMEDIATE")
    old = connection.execute("SELECT name, events FROM run WHERE consumer = ? AND hour = ?", row).fetchall()
    connection.executemany(_COUNT, [(row[0], BEFORE, name, events) for name, events in old])
    for table in ("run", "run_fate"):
        connection.execute(f"DELETE FROM {table} WHERE consumer = ? AND hour = ?", row)
    connection.execute("COMMIT")
    return 1


def problems(connection: sqlite3.Connection, id: int) -> Iterator[str]:
    """What contradicts itself in the runs of one consumer."""
    counted = dict(connection.execute("SELECT name, events FROM count WHERE consumer = ?", (id,)))
    summed = dict(connection.execute("SELECT name, sum(events) FROM run WHERE consumer = ? GROUP BY name", (id,)))
    for name in sorted(counted.keys() | summed.keys()):
        if counted.get(name, 0) != summed.get(name, 0):
            yield f"its runs hold {summed.get(name, 0)} events {name}, and {counted.get(name, 0)} are counted"
    (uneven,) = connection.execute(
        "SELECT count(*) FROM (SELECT hour, sum(events) AS events FROM run WHERE consumer = ? AND hour <> ? "
        "GROUP BY hour) r WHERE r.events <> (SELECT coalesce(sum(events), 0) FROM run_fate WHERE consumer = ? "
        "AND hour = r.hour AND audience = '')",
        (id, BEFORE, id),
    ).fetchone()
    if uneven:
        yield f"in {uneven} of its runs the outcomes and what became of the events differ"
