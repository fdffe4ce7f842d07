"""One SQLite connection in one thread: the way in for coroutines, and what a failure of it means."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.adapters.sqlite.files import DAMAGE, NO_SPACE_CODES, Connect
from engine.adapters.sqlite.threads import in_thread
from engine.errors import NoSpace, StorageFailed

T = TypeVar("T")
Job = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any] | None", "asyncio.AbstractEventLoop | None"]


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
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.answer(function, future)
        return await future

    def answer(self, function: Callable[[sqlite3.Connection], T], future: asyncio.Future[T]) -> None:
        """Give the function's result, or what `run` would raise, to a future of the running loop."""
        if self.failed is not None:
            future.set_exception(self.failed)
        elif self._thread is None:
            future.set_exception(StorageFailed(f"{Path(self._path).name} is not open"))
        else:
            self._jobs.put((function, future, future.get_loop()))

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
            await in_thread(thread.join)

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
            except Exception as error:
                self._busy = False
                self._translate(error)  # it has no caller to tell, and what it works on cannot be trusted
        return self._jobs.get()

    def _attempt(self, function: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        if self.failed is not None:
            raise self.failed
        try:
            return function(connection)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):  # a wrong statement, not a broken disk
            self._roll_back(connection)
            raise
        except (*DAMAGE, OSError, msgspec.DecodeError) as error:
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
