"""Commits under way. They go on whatever becomes of the requests that asked for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import anyio
import msgspec

from engine.adapters.http_ingress.admission import Admission, Admitted
from engine.adapters.http_ingress.problems import Problem, problem_of
from engine.callbacks import future_of
from engine.errors import EngineError
from engine.model import Append, Event

RETRY_SECONDS = 5.0

Told = Callable[[str | Exception], None]
"""Is called once: with the id of the receipt, or with the exception to answer with."""


class _Waiting(msgspec.Struct, eq=False):
    """`told` is taken away when it has been called."""

    told: Told | None
    until: float


class Commits:
    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._under_way = 0
        self._finished = asyncio.Event()
        self._waiting: deque[_Waiting] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def stored(self, events: list[Event], admitted: Admitted, until: float) -> str:
        """The id of the receipt. `until`: in the loop's time. When cancelled, the commit goes on. Raises Problem."""
        commit: asyncio.Future[str] = future_of(partial(self._begin, events, admitted))
        await asyncio.wait({commit}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        if not commit.done():
            raise _late()
        return commit.result()

    def store(self, events: list[Event], admitted: Admitted, until: float, told: Told) -> None:
        """As `stored`, without a task: `told` is called later. `until`: in the time of `time.monotonic`; it must not go
        back from call to call. Raises Problem when the end is known at once."""
        waiting = _Waiting(told, until)

        def ended(result: str | Exception) -> None:
            told, waiting.told = waiting.told, None
            while self._waiting and self._waiting[0].told is None:
                self._waiting.popleft()
            if told is not None:
                told(result)

        self._begin(events, admitted, ended)
        self._waiting.append(waiting)
        if self._alarm is None:
            self._set_alarm(until - time.monotonic())

    def _begin(self, events: list[Event], admitted: Admitted, told: Told) -> None:
        caller, count = admitted.caller, len(events)
        self._admission.spend(caller, count)

        def ended(result: str | Exception) -> None:
            self._under_way -= 1
            if not self._under_way:
                self._finished.set()
            told(self._problem(result, admitted, count) if isinstance(result, EngineError) else result)

        try:
            admitted.intake.hand_in(Append(events, admitted.source, admitted.lane), ended, owner=caller.name)
        except EngineError as error:
            raise self._problem(error, admitted, count) from error
        self._under_way += 1  # `ended` is not called before this

    def _problem(self, error: EngineError, admitted: Admitted, count: int) -> Problem:
        """Nothing was stored of what the caller's quota was asked for."""
        self._admission.give_back(admitted.caller, count)
        return problem_of(error)

    def _ring(self) -> None:
        """Whoever has waited for too long hears that it is not known."""
        self._alarm, now = None, time.monotonic()
        while self._waiting and (self._waiting[0].told is None or self._waiting[0].until <= now):
            waiting = self._waiting.popleft()
            told, waiting.told = waiting.told, None
            if told is not None:
                told(_late())
        if self._waiting:
            self._set_alarm(self._waiting[0].until - now)

    def _set_alarm(self, seconds: float) -> None:
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._ring)

    async def finished(self, timeout_seconds: float) -> None:
        """Wait until none is under way, at most so long."""
        self._finished.clear()
        if self._under_way:
            with anyio.move_on_after(timeout_seconds):
                await self._finished.wait()


def _late() -> Problem:
    detail = "the events are not known to be stored yet and may still be; sending them again is safe"
    return Problem("commit-timeout", detail, retry_after_seconds=RETRY_SECONDS)
