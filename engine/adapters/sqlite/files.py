"""SQLite files from outside: made, checked, copied, and their directory made durable."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from engine.adapters.sqlite.file_format import FileFormat
from engine.adapters.sqlite.wal import examine
from engine.errors import DataDirectoryError, NoSpace

Connect = Callable[..., sqlite3.Connection]
SyncDirectory = Callable[[Path], None]

PRIMARY_CODE = 0xFF
"""The low byte of an extended SQLite result code names its class."""
NO_SPACE_CODES = {sqlite3.SQLITE_FULL}
BUSY_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file may raise; the second where SQLite quotes damaged text in its message."""
WAL_INDEX_BYTES = 32_768
DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, 0}
WAY_OUT = (
    "`rainfocus-engine journal check` says what is damaged and how to go on with the rest; or restore journal.db and "
    "state.db from one backup"
)
"""What there is to do about a damaged file."""


def sync_directory(directory: Path) -> None:
    """Make the names in it durable: a new file without this may be gone after a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prepare_file(
    path: Path,
    format: FileFormat,
    connect: Connect = sqlite3.connect,
    sync_directory: SyncDirectory = sync_directory,
) -> int:
    """Create or check the file, bring an older one up to date, replay and truncate its WAL, and fsync its directory.

    Returns how many frames of the WAL belonged to no commit. Raises DataDirectoryError for a damaged, foreign or newer
    file, NoSpace when there is no room even for this."""
    discarded = _checked_wal(path)
    try:
        connection = connect(str(path), isolation_level=None)
    except sqlite3.Error as error:
        raise DataDirectoryError(f"{path.name} cannot be opened: {error}") from error
    try:
        _check_or_create(connection, path, format)
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise DataDirectoryError(_in_use(path))
    except DAMAGE as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in NO_SPACE_CODES or (code & PRIMARY_CODE == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
            raise NoSpace("disk-full", f"no room on the disk to open {path.name}") from error
        if code & PRIMARY_CODE in BUSY_CODES:
            raise DataDirectoryError(_in_use(path)) from error
        raise unusable(path, error) from error
    finally:
        connection.close()
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise DataDirectoryError(f"{path.parent} cannot be made durable ({error.strerror})") from error
    return discarded


def _is_full(directory: Path) -> bool:
    """SQLite calls it an I/O error when it finds no room for the index of a WAL."""
    return shutil.disk_usage(directory).free < WAL_INDEX_BYTES


def _checked_wal(path: Path) -> int:
    """How many frames SQLite is going to throw away. Raises DataDirectoryError when it should not."""
    try:
        tail = examine(path)
    except (*DAMAGE, OSError):
        return 0  # whatever it is, opening the file to work on it meets it again and has a name for it
    if tail.acknowledged:
        raise DataDirectoryError(
            f"{path.name}-wal is damaged: only {tail.taken} of its {tail.frames} frames can be read in order, and "
            f"commits that were acknowledged stand behind them. Nothing was changed. {WAY_OUT}"
        )
    return tail.discarded


def unusable(path: Path, error: BaseException) -> DataDirectoryError:
    """What a failure to work on this file means: a disk that does not work is not a damaged file."""
    if getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE not in DAMAGE_CODES:
        return DataDirectoryError(f"{path.name} cannot be read and written ({error})")
    return DataDirectoryError(f"{path.name} is damaged ({error}). {WAY_OUT}")


def _in_use(path: Path) -> str:
    return f"{path.name} is open in another program: close that one first"


def _check_or_create(connection: sqlite3.Connection, path: Path, format: FileFormat) -> None:
    found_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if empty and not found_id:
        _use_wal(connection, path)
        connection.execute("PRAGMA synchronous=FULL")
        format.create(connection)
        os.chmod(path, 0o600)
        return
    if found_id != format.application_id:
        raise DataDirectoryError(f"{path.name} is not a file of this engine: name another data_dir")
    if version > format.version:
        raise DataDirectoryError(
            f"{path.name} was written by a newer version (format {version}, this one knows {format.version}): run that "
            "version, or restore a backup of this one"
        )
    if not format.knows(version) or not format.is_that_of(connection, version):
        raise DataDirectoryError(f"{path.name} is damaged (its tables are not those of its format). {WAY_OUT}")
    _use_wal(connection, path)
    if version < format.version:
        connection.execute("PRAGMA synchronous=FULL")
        format.upgrade(connection, version)


def _use_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Asked for at every open, and the answer read: SQLite stays with a rollback journal without an error when the
    change fails, and then a commit is durable only once the deletion of that journal is, which nobody syncs."""
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise DataDirectoryError(
            f"{path.name} cannot be used with a write-ahead log here (it stays in mode {mode!r}): the disk has failed, "
            "or its file system has no shared memory, as network file systems; keep data_dir on a local disk"
        )


def copy_file(source: Path, target: Path, connect: Connect = sqlite3.connect) -> None:
    """A consistent copy of a file that is being written, readable by its owner only, on disk on return.

    On a connection of its own, so that neither a failure of the target nor the time it takes concerns anybody else.
    Raises NoSpace, and DataDirectoryError for every other failure."""
    with closing(connect(str(source), isolation_level=None)) as connection:
        connection.execute("PRAGMA query_only=1")
        copy_connection(connection, target)


def copy_connection(connection: sqlite3.Connection, target: Path) -> None:
    """All in one step: between two steps any commit would make SQLite begin anew, so under load it would never end."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(target)) as copy:
            connection.backup(copy)
        sync_directory(target.parent)
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) in NO_SPACE_CODES or getattr(error, "errno", 0) == errno.ENOSPC:
            raise NoSpace("disk-full", f"no room for the copy {target.name}") from error
        raise DataDirectoryError(f"the copy {target.name} cannot be written: {error}") from error


def truncate_wal(connection: sqlite3.Connection) -> None:
    """Copy all of it into the file and leave no trace of it. Raises NoSpace when it is being read: try again later."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise NoSpace("busy", "the WAL could not be truncated: it is being read")
