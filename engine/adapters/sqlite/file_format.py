"""The format of a SQLite file: its tables, by version, and the way from one version to the next.

A version only adds: tables, indexes, and what fills them from the tables there are. So an older file is brought up to
date in one transaction when it is opened to be worked on, and the tables of every version are known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing

import msgspec

FIRST_VERSION = 1


class FileFormat(msgspec.Struct, frozen=True):
    """`schema`: the tables of the first version. `upgrades[n]`: the statements that make version n of version n - 1,
    without a gap."""

    application_id: int
    schema: str
    upgrades: Mapping[int, str] = {}

    @property
    def version(self) -> int:
        """The newest: what a new file gets."""
        return FIRST_VERSION + len(self.upgrades)

    def knows(self, version: int) -> bool:
        return FIRST_VERSION <= version <= self.version

    def script(self, version: int) -> str:
        """What makes an empty file one of this version."""
        return ";\n".join([self.schema, *(self.upgrades[n] for n in range(FIRST_VERSION + 1, version + 1))])

    def create(self, connection: sqlite3.Connection) -> None:
        """In one transaction."""
        self._run(connection, f"{self.script(self.version)}; PRAGMA application_id={self.application_id}")

    def upgrade(self, connection: sqlite3.Connection, version: int) -> None:
        """From this version to the newest, in one transaction: it is either all there or not begun."""
        self._run(connection, ";\n".join(self.upgrades[n] for n in range(version + 1, self.version + 1)))

    def _run(self, connection: sqlite3.Connection, script: str) -> None:
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={self.version}; COMMIT;")

    def is_that_of(self, connection: sqlite3.Connection, version: int) -> bool:
        """Are its tables and indexes those of this version? A bit turned in a column's name is seen nowhere else."""
        with closing(sqlite3.connect(":memory:")) as new:
            new.executescript(self.script(version))
            return _schema_of(connection) == _schema_of(new)


def _schema_of(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")
    return [(*row[:3], " ".join(str(row[3]).split())) for row in rows]
