"""One SQLite connection in one thread: the way in for coroutines, and what a failure of it means."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import DataDirectoryError, NoSpace, StorageFailed

T = TypeVar("T")
Connect = Callable[..., sqlite3.Connection]
Job = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any] | None", "asyncio.AbstractEventLoop | None"]

NO_SPACE_CODES = {sqlite3.SQLITE_FULL}


class SqliteWorker:
    """Runs functions on its connection, one after the other. While nothing waits it calls `idle` (if given), which
    does one slice of background work and says whether there is more.

    A hand-over through a queue and one `call_soon_threadsafe` back costs about a third of an executor's.
    """

    def __init__(
        self,
        path: str,
        *,
        pragmas: tuple[str, ...] = (),
        idle: Callable[[sqlite3.Connection], bool] | None = None,
        connect: Connect = sqlite3.connect,
    ) -> None:
        self._path, self._pragmas, self._idle, self._connect = path, pragmas, idle, connect
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False
        self.failed: StorageFailed | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name=f"sqlite {Path(self._path).name}", daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The function's result. It runs to its end even if the caller is cancelled.

        Raises NoSpace (nothing was written), StorageFailed (nothing may follow), or what the function raises."""
        if self.failed is not None:
            raise self.failed
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((function, future, loop))
        return await future

    def nudge(self) -> None:
        """There is background work."""
        if self._idle is not None and not self._busy:
            self._busy = True
            self.post(lambda _: None)

    def post(self, function: Callable[[sqlite3.Connection], object]) -> None:
        """Run it some time; nobody waits for its result. A failure of storage is met by whoever comes next."""
        self._jobs.put((function, None, None))

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        connection = None
        try:
            connection = self._connect(self._path, isolation_level=None, check_same_thread=False)
            for pragma in self._pragmas:
                connection.execute(f"PRAGMA {pragma}")
            self._serve(connection)
        except sqlite3.Error as error:
            self._fail_all(error)
        finally:
            if connection is not None:
                connection.close()

    def _serve(self, connection: sqlite3.Connection) -> None:
        while True:
            job = self._next(connection)
            if job is None:
                return
            function, future, loop = job
            try:
                result = self._attempt(function, connection)
            except BaseException as error:
                _tell(loop, future, None, error)
            else:
                _tell(loop, future, result, None)

    def _next(self, connection: sqlite3.Connection) -> Job | None:
        while self._busy and self._jobs.empty() and self.failed is None:
            assert self._idle is not None
            try:
                self._busy = self._attempt(self._idle, connection)
            except (NoSpace, StorageFailed):
                self._busy = False
        return self._jobs.get()

    def _attempt(self, function: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        if self.failed is not None:
            raise self.failed
        try:
            return function(connection)
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            self._roll_back(connection)
            raise self._translate(error) from error
        except BaseException:
            self._roll_back(connection)
            raise

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._translate(error)

    def _translate(self, error: Exception) -> NoSpace | StorageFailed:
        """No space is not an I/O error: nothing was written, a later try may pass. Everything else is the end: after a
        failed write or fsync nobody knows what is on disk, so it is never tried again."""
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in NO_SPACE_CODES:
            return NoSpace("disk-full", "the disk is full: nothing was written")
        if self.failed is None:
            self.failed = StorageFailed(f"{Path(self._path).name}: {error}; restart to recover from what is on disk")
        return self.failed

    def _fail_all(self, error: sqlite3.Error) -> None:
        failure = self._translate(error)
        if isinstance(failure, StorageFailed):
            self.failed = failure
        while True:
            job = self._jobs.get()
            if job is None:
                return
            _tell(job[2], job[1], None, failure)


def _tell(
    loop: asyncio.AbstractEventLoop | None,
    future: asyncio.Future[Any] | None,
    result: Any,
    error: BaseException | None,
) -> None:
    if loop is None or future is None:
        return

    def deliver() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop was closed before its job was done; the work itself is on disk
        return


def prepare_file(path: Path, application_id: int, version: int, schema: str, connect: Connect = sqlite3.connect) -> int:
    """Create or check the file, replay and truncate its WAL, and fsync its directory.

    Returns how many frames of the WAL belonged to no commit. Raises DataDirectoryError for a damaged, foreign or newer
    file, NoSpace when there is no room even for this."""
    discarded = wal_frames_discarded(path)
    try:
        connection = connect(str(path), isolation_level=None)
    except sqlite3.Error as error:
        raise DataDirectoryError(f"{path.name} cannot be opened: {error}") from error
    try:
        _check_or_create(connection, path, application_id, version, schema)
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise DataDirectoryError(f"{path.name} is open in another program: close that one first")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) in NO_SPACE_CODES:
            raise NoSpace("disk-full", f"no room on the disk to open {path.name}") from error
        raise DataDirectoryError(
            f"{path.name} is damaged ({error}): restore it from a backup, or move it away to start anew without what "
            "it holds"
        ) from error
    finally:
        connection.close()
    sync_directory(path.parent)
    return discarded


def _check_or_create(
    connection: sqlite3.Connection, path: Path, application_id: int, version: int, schema: str
) -> None:
    found_id = connection.execute("PRAGMA application_id").fetchone()[0]
    found_version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if empty and not found_id:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(
            f"BEGIN; {schema}; PRAGMA application_id={application_id}; PRAGMA user_version={version}; COMMIT;"
        )
        os.chmod(path, 0o600)
        return
    if found_id != application_id:
        raise DataDirectoryError(f"{path.name} is not a file of this engine: name another data_dir")
    if found_version > version:
        raise DataDirectoryError(
            f"{path.name} was written by a newer version (format {found_version}, this one knows {version}): run that "
            "version, or restore a backup of this one"
        )
    if found_version < version:
        raise DataDirectoryError(f"{path.name} has format {found_version}; this version reads format {version} only")


def sync_directory(directory: Path) -> None:
    """Make the names in it durable: a new file without this may be gone after a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def wal_frames_discarded(path: Path) -> int:
    """Frames at the end of the -wal file that belong to no commit: what SQLite is going to throw away.

    Only a frame with a database size in its header ends a commit (SQLite file format, section 4.1).
    """
    wal = path.with_name(path.name + "-wal")
    try:
        size = wal.stat().st_size
        with wal.open("rb") as file:
            header = file.read(32)
            if len(header) < 32:
                return 0
            page_size = int.from_bytes(header[8:12], "big")
            salts = header[16:24]
            pending, position = 0, 32
            while position + 24 + page_size <= size:
                file.seek(position)
                frame = file.read(24)
                if frame[8:16] != salts:
                    break
                pending = 0 if int.from_bytes(frame[4:8], "big") else pending + 1
                position += 24 + page_size
            return pending
    except OSError:
        return 0
