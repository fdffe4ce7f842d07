"""Commits under way. They go on whatever becomes of the requests that asked for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import msgspec

from engine.adapters.http_ingress.admission import Admission, Admitted
from engine.adapters.http_ingress.problems import Problem, problem_of
from engine.errors import EngineError
from engine.model import Append
from engine.profiles.formats import Parsed

RETRY_SECONDS = 5.0


class _Waiting(msgspec.Struct, eq=False):
    """`told` is taken away when it has been called."""

    told: Callable[[str | Exception], None] | None
    until: float
    parsed: Parsed | None
    admitted: Admitted


class Commits:
    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._under_way: set[asyncio.Future[str]] = set()
        self._waiting: deque[_Waiting] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def stored(self, parsed: Parsed, admitted: Admitted, until: float) -> str:
        """The id of the receipt. `until`: in the loop's time. When cancelled, the commit goes on. Raises Problem."""
        commit = self._begin(parsed, admitted)
        commit.add_done_callback(self._forget)
        await asyncio.wait({commit}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        if not commit.done():
            raise _late()
        return self._id(commit, parsed, admitted)

    def store(self, parsed: Parsed, admitted: Admitted, until: float, told: Callable[[str | Exception], None]) -> None:
        """As `stored`, without a task: `told` is called later, once, with the id of the receipt or with the exception.
        `until`: in the time of `time.monotonic`; it must not go back from call to call. Raises Problem when the end is
        known at once."""
        commit = self._begin(parsed, admitted)
        waiting = _Waiting(told, until, parsed, admitted)
        self._waiting.append(waiting)
        if self._alarm is None:
            self._alarm = commit.get_loop().call_later(until - time.monotonic(), self._ring)
        commit.add_done_callback(lambda commit: self._tell(waiting, commit))

    def _begin(self, parsed: Parsed, admitted: Admitted) -> asyncio.Future[str]:
        events, caller = parsed.events, admitted.caller
        self._admission.spend(caller, len(events))
        append = Append(events, admitted.source, admitted.lane)
        try:
            commit = asyncio.ensure_future(admitted.intake.accept(append, owner=caller.name))
        except EngineError as error:
            self._admission.give_back(caller, len(events))
            raise problem_of(error) from error
        self._under_way.add(commit)
        return commit

    def _id(self, commit: asyncio.Future[str], parsed: Parsed, admitted: Admitted) -> str:
        try:
            return commit.result()
        except EngineError as error:
            self._admission.give_back(admitted.caller, len(parsed.events))
            raise problem_of(error) from error

    def _tell(self, waiting: _Waiting, commit: asyncio.Future[str]) -> None:
        self._forget(commit)
        told, parsed = waiting.told, waiting.parsed
        waiting.told = waiting.parsed = None
        while self._waiting and self._waiting[0].told is None:
            self._waiting.popleft()
        if told is None or parsed is None:
            return
        try:
            result: str | Exception = self._id(commit, parsed, waiting.admitted)
        except Exception as error:
            result = error
        told(result)

    def _ring(self) -> None:
        """Whoever has waited for too long hears that it is not known."""
        self._alarm, now = None, time.monotonic()
        while self._waiting and (self._waiting[0].told is None or self._waiting[0].until <= now):
            waiting = self._waiting.popleft()
            told, waiting.told, waiting.parsed = waiting.told, None, None
            if told is not None:
                told(_late())
        if self._waiting:
            self._alarm = asyncio.get_running_loop().call_later(self._waiting[0].until - now, self._ring)

    def _forget(self, commit: asyncio.Future[str]) -> None:
        """Whoever waited has the result or has been told that it is not known; nobody else asks for it."""
        self._under_way.discard(commit)
        if not commit.cancelled():
            commit.exception()

    async def finished(self, timeout_seconds: float) -> None:
        """Wait for those under way, at most so long."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=timeout_seconds)


def _late() -> Problem:
    detail = "the events are not known to be stored yet and may still be; sending them again is safe"
    return Problem("commit-timeout", detail, retry_after_seconds=RETRY_SECONDS)
