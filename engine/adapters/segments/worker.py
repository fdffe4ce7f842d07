"""One thread for what waits for a disk: the way in for coroutines, and what a failure in there means."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from engine.adapters.segments.files import NO_SPACE
from engine.errors import NoSpace, StorageFailed

T = TypeVar("T")
Ended = Callable[[Any, "BaseException | None"], None]
Job = tuple[Callable[[], Any], "asyncio.Future[Any] | None", "asyncio.AbstractEventLoop | None", "Ended | None"]


class Trust:
    """Can what is on disk be relied on? After one failed write or sync nobody knows what is there, so nothing is ever
    tried again as if it were well: every later call meets the same failure."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.failed: StorageFailed | None = None

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed

    def translate(self, error: BaseException) -> BaseException:
        """No space is not an I/O error: a later try may pass. Every other error of the disk is the end."""
        if not isinstance(error, OSError):
            return error
        if error.errno in NO_SPACE:
            return NoSpace("disk-full", "the disk is full: nothing was written")
        return self.fail(error)

    def fail(self, error: BaseException) -> StorageFailed:
        if self.failed is None:
            self.failed = StorageFailed(f"{self._name}: {error}; restart to recover from what is on disk")
            self.failed.__cause__ = error
        return self.failed


class Worker:
    """Runs functions one after the other. While nothing waits it calls `idle`, which does one slice of background work
    and says whether there is more."""

    def __init__(self, name: str, trust: Trust, idle: Callable[[], bool] | None = None) -> None:
        self._name, self._trust, self._idle = name, trust, idle
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[], T], ended: Ended | None = None) -> T:
        """The function's result. It runs to its end even if the caller is cancelled; `ended(result, error)` is called
        on the event loop in any case, before the caller goes on. Raises what the function raises, an OSError as
        NoSpace or StorageFailed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.give(function, future, ended)
        return await future

    @property
    def is_open(self) -> bool:
        return self._thread is not None

    def post(self, function: Callable[[], object]) -> None:
        """Run it some time; nobody waits for its result."""
        self._jobs.put((function, None, None, None))

    def give(self, function: Callable[[], T], future: asyncio.Future[T], ended: Ended | None) -> None:
        if self._thread is None:
            raise StorageFailed(f"{self._name} is not open")
        self._jobs.put((function, future, future.get_loop(), ended))

    def nudge(self) -> None:
        """There is background work. Its failure is met by whoever comes next."""
        if not self._busy and self._thread is not None:
            self._busy = True
            self.post(lambda: None)

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._jobs.put(None)
        ended = asyncio.get_running_loop().run_in_executor(None, thread.join)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:  # left behind, it would go on with files whose lock is given up already
            await asyncio.wait({ended})
            raise

    def _work(self) -> None:
        while (job := self._next()) is not None:
            function, future, loop, ended = job
            result, error = self.attempt(function)
            if loop is not None and future is not None:
                self._tell(loop, future, ended, result, error)

    def _next(self) -> Job | None:
        while self._busy and self._jobs.empty() and self._idle is not None:
            more, error = self.attempt(self._idle)
            self._busy = bool(more) and error is None
            if error is not None and not isinstance(error, NoSpace):
                self._trust.fail(error)  # it has no caller to tell
        return self._jobs.get()

    def attempt(self, function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
        try:
            return function(), None
        except BaseException as error:
            return None, self._trust.translate(error)

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        ended: Ended | None,
        result: Any,
        error: BaseException | None,
    ) -> None:
        try:
            loop.call_soon_threadsafe(deliver, future, ended, result, error)
        except RuntimeError:  # the loop was closed before its job was done; the work itself is on disk
            return


def deliver(future: asyncio.Future[Any], ended: Ended | None, result: Any, error: BaseException | None) -> None:
    if ended is not None:
        ended(result, error)
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
