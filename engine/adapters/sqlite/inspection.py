"""Looking at the files of a stopped engine without changing them, and saving what is whole of a damaged journal."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from engine.adapters.sqlite import consumer_sql, held_sql, journal_sql, state_sql
from engine.adapters.sqlite.file_format import FileFormat
from engine.adapters.sqlite.files import DAMAGE, copy_connection, prepare_file, sync_directory
from engine.adapters.sqlite.journal_sql import Row
from engine.adapters.sqlite.pages import good_rows
from engine.adapters.sqlite.wal import examine, wal_of
from engine.core.codec import unpack_block, unpack_verdicts
from engine.errors import DataDirectoryError, StorageFailed
from engine.model import Append, Event, Lane, Trait
from engine.ports import ConsumerState, LetterFilter

NOBODY = bytes(32)
"""The key of what was lost: no address has it."""
FILLED_EVENTS = 1_000
SHOWN_PROBLEMS = 10
LARGEST_APPEND = 1_000_000
MOST_LOST = 100_000_000
"""A number that is damaged itself may ask for any number of offsets."""
READ_AT_ONCE = 1_000


class FoundState(msgspec.Struct):
    exists: bool = False
    consumers: list[ConsumerState] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)


class FoundJournal(msgspec.Struct):
    """What is whole of it. `lost`: [from, to) of offsets that should be there, and are not or not as they were."""

    exists: bool = False
    id: str = ""
    rows: dict[int, Row] = msgspec.field(default_factory=dict)
    first: int = 0
    next: int = 0
    lost: list[tuple[int, int]] = msgspec.field(default_factory=list)
    discarded_frames: int = 0
    problems: list[str] = msgspec.field(default_factory=list)
    foreign: bool = False  # of another program or a newer version: nothing of it is understood here

    @property
    def appends(self) -> int:
        return len(self.rows)

    @property
    def events(self) -> int:
        return sum(row[1] for row in self.rows.values())


def inspect_state(path: Path) -> FoundState:
    """Everything in it is read once."""
    found = FoundState(path.exists())
    if not found.exists:
        return found
    _inspect_wal(path, found.problems)
    with reading(path, found.problems) as connection:
        if connection is None or _is_foreign(connection, path, state_sql.FORMAT, found.problems):
            return found
        found.problems += _integrity(connection, path, state_sql.FORMAT)
        try:
            found.consumers = consumer_sql.read_consumers(connection)
            for (packed,) in connection.execute("SELECT packed FROM verdicts"):
                unpack_verdicts(packed)
            _read_ledger(connection)
            _read_held(connection)
        except (*DAMAGE, msgspec.MsgspecError, ValueError, TypeError) as error:
            found.problems.append(f"{path.name} cannot be read ({error})")
    return found


def _read_ledger(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'block'").fetchone():  # not in older versions
        for (packed,) in connection.execute("SELECT packed FROM block"):
            unpack_block(packed)


def _read_held(connection: sqlite3.Connection) -> None:
    after, every = 0, LetterFilter(state=None)
    while letters := held_sql.letters(connection, every, READ_AT_ONCE, after):
        after = letters[-1][1].id
    for consumer in consumer_sql.consumer_ids(connection).values():
        after = 0
        while waiting := held_sql.waiting_after(connection, consumer, after, READ_AT_ONCE):
            after = waiting[-1].id


def inspect_journal(path: Path, consumers: Sequence[ConsumerState]) -> FoundJournal:
    """`consumers`: what the state knows tells which offsets have to be there."""
    found = FoundJournal(path.exists())
    if not found.exists and not consumers:
        return found
    found.discarded_frames = _inspect_wal(path, found.problems)
    end, extents = max((max(one.watermark, one.settled_through + 1) for one in consumers), default=0), []
    with reading(path, found.problems) as connection:
        if connection is not None:
            found.foreign = _is_foreign(connection, path, journal_sql.FORMAT, found.problems)
            if found.foreign:
                return found
            found.problems += _integrity(connection, path, journal_sql.FORMAT)
            found.id, extents = journal_id(connection), _extents(connection)
            end = max(end, _marked(connection))
            if extents and not found.id:
                found.problems.append(f"{path.name}: its id is not where it was written")
    _read_rows(path, found, min((one.watermark for one in consumers), default=None), end, extents)
    return found


def _read_rows(
    path: Path, found: FoundJournal, needed_from: int | None, end: int, extents: Sequence[tuple[int, int]]
) -> None:
    live, spare = good_rows(path)
    if needed_from is not None:  # what lies before it is released, and may stand in old pages still
        live = {first: row for first, row in live.items() if first + row[1] > needed_from}
    found.next = max([end, *(first + row[1] for first, row in live.items())])
    for first, count in extents:  # a row that is not as it was, right behind the last that is, ends where it says
        found.next += count if first == found.next and 0 < count <= LARGEST_APPEND else 0
    start = min(live, default=found.next)
    found.first = start if needed_from is None else min(start, needed_from)
    found.rows, found.lost = _in_order({**spare, **live}, found.first, found.next)
    for begin, stop in found.lost[:SHOWN_PROBLEMS]:
        found.problems.append(f"{path.name}: offsets {begin} to {stop - 1} cannot be read")
    if len(found.lost) > SHOWN_PROBLEMS:
        found.problems.append(f"{path.name}: and {len(found.lost) - SHOWN_PROBLEMS} more such gaps")


def _in_order(rows: dict[int, Row], start: int, end: int) -> tuple[dict[int, Row], list[tuple[int, int]]]:
    """The rows of [start, end) that follow each other, and the gaps between them."""
    kept: dict[int, Row] = {}
    lost = []
    position = start
    for first in sorted(rows):
        if not position <= first < end:
            continue
        if first > position:
            lost.append((position, first))
        kept[first] = rows[first]
        position = first + rows[first][1]
    if position < end:
        lost.append((position, end))
    return kept, lost


# -- one file ---------------------------------------------------------------------------------------------------------


def _inspect_wal(path: Path, problems: list[str]) -> int:
    """How many frames belong to no commit that was acknowledged."""
    try:
        tail = examine(path)
    except (*DAMAGE, OSError):
        return 0  # the file itself says more
    if tail.acknowledged:
        problems.append(f"{path.name}-wal is damaged: {tail.taken} of {tail.frames} frames can be read in order")
    return 0 if tail.acknowledged else tail.discarded


@contextmanager
def reading(path: Path, problems: list[str]) -> Iterator[sqlite3.Connection | None]:
    """A connection that can change nothing, or None when there can be none. Without a WAL it leaves no files either."""
    wal = wal_of(path)
    mode = "mode=ro" if wal.exists() and wal.stat().st_size else "mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, isolation_level=None)
    except DAMAGE as error:
        problems.append(f"{path.name} cannot be opened ({error})")
        yield None
        return
    with closing(connection):
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except DAMAGE as error:
            problems.append(f"{path.name} cannot be read ({error})")
            yield None
        else:
            yield connection


def _is_foreign(connection: sqlite3.Connection, path: Path, format: FileFormat, problems: list[str]) -> bool:
    id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = _version(connection)
    if (id ^ format.application_id).bit_count() == 1:
        problems.append(f"{path.name}: its application id has a turned bit")
        return False
    if id != format.application_id:
        problems.append(f"{path.name} is not a file of this engine")
    elif not format.knows(version):
        problems.append(f"{path.name} has format {version}; this version of the engine knows format {format.version}")
    return bool(id != format.application_id or not format.knows(version))


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _integrity(connection: sqlite3.Connection, path: Path, format: FileFormat) -> list[str]:
    """What SQLite finds wrong with it, and whether its tables are what they should be."""
    try:
        version = _version(connection)
        if not format.is_that_of(connection, version if format.knows(version) else format.version):
            return [f"{path.name}: its tables are not those of its format"]
        rows = connection.execute(f"PRAGMA integrity_check({SHOWN_PROBLEMS})").fetchall()
    except DAMAGE as error:
        return [f"{path.name}: {error}"]
    lines = [line for (text,) in rows for line in str(text).splitlines()]
    return [f"{path.name}: {line}" for line in lines if line != "ok" and not line.startswith("*** in database")]


def journal_id(connection: sqlite3.Connection) -> str:
    try:
        row = connection.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
    except DAMAGE:
        return ""
    return str(row[0]) if row else ""


def _marked(connection: sqlite3.Connection) -> int:
    try:
        return journal_sql.marked(connection)
    except DAMAGE:
        return 0


def _extents(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """(first, count) of the rows as the tree has them, whole or not, as far as it can be walked."""
    found: list[tuple[int, int]] = []
    with suppress(*DAMAGE, TypeError):  # a damaged schema has other columns
        for first, count in connection.execute("SELECT first, count FROM append ORDER BY first"):
            found.append((int(first), int(count)))
    return found


# -- saving what is whole ---------------------------------------------------------------------------------------------


def salvage(journal: FoundJournal, directory: Path) -> None:
    """Write a new journal.db with every row that is whole at its offset. Lost offsets stay taken: each holds an event
    of nobody (`Trait.LOST`), which ends excluded with the reason `lost`. Raises DataDirectoryError, NoSpace."""
    target, lost = directory / "journal.db", sum(end - begin for begin, end in journal.lost)
    if lost > MOST_LOST:
        raise DataDirectoryError(f"{lost} offsets would be lost: restore a backup, or start anew")
    if target.exists():
        raise DataDirectoryError(f"{target} is there already: name an empty folder")
    prepare_file(target, journal_sql.FORMAT)
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("INSERT INTO meta VALUES ('id', ?)", (journal.id or secrets.token_hex(8),))
        journal_sql.insert(connection, [*journal.rows.values(), *_fillings(journal)], journal.next)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    sync_directory(directory)


def _fillings(journal: FoundJournal) -> Iterator[Row]:
    event = Event(NOBODY, b"{}", Trait.LOST)
    at = max((row[4] for row in journal.rows.values()), default=0.0)  # young enough not to expire instead
    for begin, end in journal.lost:
        for first in range(begin, end, FILLED_EVENTS):
            count = min(FILLED_EVENTS, end - first)
            yield from journal_sql.rows_of([Append([event] * count, "", Lane.LIVE, at)], first)


def go_on_from(path: Path, id: str, following: int) -> None:
    """Make a journal that goes on where another one ended. Its newest row tells the next offset, so there is one, of
    nobody. Raises DataDirectoryError, NoSpace."""
    lost = [(following - 1, following)] if following else []
    salvage(FoundJournal(True, id, {}, max(0, following - 1), following, lost), path.parent)


def salvage_state(path: Path, directory: Path) -> None:
    """A copy of a state file that is whole. Raises DataDirectoryError, NoSpace."""
    with reading(path, []) as connection:
        if connection is None:
            raise StorageFailed(f"{path.name} cannot be read")
        copy_connection(connection, directory / path.name)
