"""What alerts remember, in `state.db`: one row an alert and destination."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

TABLE = """
CREATE TABLE alert (
    name TEXT NOT NULL, destination TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (name, destination)
) WITHOUT ROWID
"""


def read_alerts(connection: sqlite3.Connection) -> dict[tuple[str, str], bytes]:
    rows = connection.execute("SELECT name, destination, content FROM alert")
    return {(name, destination): content for name, destination, content in rows}


def keep_alerts(connection: sqlite3.Connection, rows: Mapping[tuple[str, str], bytes | None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for (name, destination), content in rows.items():
        if content is None:
            connection.execute("DELETE FROM alert WHERE name = ? AND destination = ?", (name, destination))
        else:
            connection.execute("INSERT OR REPLACE INTO alert VALUES (?, ?, ?)", (name, destination, content))
    connection.execute("COMMIT")
