"""A glance at the files in a data directory, whoever works on them: nothing is changed, and nobody is disturbed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.adapters.sqlite import consumer_sql, journal_sql
from engine.adapters.sqlite.files import DAMAGE
from engine.adapters.sqlite.inspection import journal_id, reading
from engine.errors import DataDirectoryError
from engine.ports import ConsumerState

T = TypeVar("T")


def glance_state(path: Path) -> list[ConsumerState]:
    """The consumers of a state file, whoever works on it: as they are at the moment. Raises DataDirectoryError."""
    return _glance(path, consumer_sql.read_consumers)


def glance_journal(path: Path) -> tuple[str, int, int]:
    """(id, first offset, next offset) of a journal, whoever works on it: as they are at the moment, without a look at
    its contents. Raises DataDirectoryError when it cannot be read."""

    def look(connection: sqlite3.Connection) -> tuple[str, int, int]:
        first, end = connection.execute("SELECT min(first), max(first + count) FROM append").fetchone()
        following = max(journal_sql.marked(connection), end or 0)
        return journal_id(connection), following if first is None else first, following

    return _glance(path, look)


def _glance(path: Path, look: Callable[[sqlite3.Connection], T]) -> T:
    problems: list[str] = []
    try:
        with reading(path, problems) as connection:
            if connection is not None:
                return look(connection)
    except DAMAGE as error:
        problems.append(str(error))
    raise DataDirectoryError(f"{path.parent} cannot be read: {'; '.join(problems)}")
