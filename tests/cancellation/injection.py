"""Finds where tasks wait, and cancels one of them exactly there.

A task factory wraps the coroutine of every task in an object that sees each suspension: in which task, the how many-th,
and at which lines of the engine, outermost first. Played again from the start, the same scene comes to the same
suspension, and there the task is cancelled. A scene has to be deterministic, so it runs on virtual time.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Coroutine, Generator, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[2]
ENGINE = f"{ROOT / 'engine'}/"
FAKES = f"{ROOT / 'engine' / 'testing'}/"

AWAITS = (ast.Await, ast.AsyncWith, ast.AsyncFor)

Line = tuple[str, int]
"""(file below the root, line)."""


class Moment(StrEnum):
    """When the task hears of it."""

    PENDING = "pending"  # what it waits for has not come
    DONE = "done"  # what it waits for has come, and the task has not run since: the result is lost
    TWICE = "twice"  # as pending, and once more where it waits next


class Place(msgspec.Struct, frozen=True):
    """Where a task waits: `lines` of the engine, outermost first."""

    task: str  # its name: that of its outermost function, unless it was given another
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        return f"{self.task} at {' > '.join(f'{file}:{line}' for file, line in self.lines)}"


class Suspension(msgspec.Struct, frozen=True):
    """One wait: the `number`-th of the `index`-th task. 0 is the moment before its first step."""

    index: int
    number: int
    place: Place


class Instrument:
    """To be installed in a running loop; what exists already is not seen. `target`: where to cancel, and when."""

    def __init__(self, target: Suspension | None = None, moment: Moment = Moment.PENDING) -> None:
        self.target, self.moment = target, moment
        self.suspensions: list[Suspension] = []
        self.victim: asyncio.Task[Any] | None = None
        self.strayed: Place | None = None  # where the task was instead of where it was to be
        self.tasks: list[asyncio.Task[Any]] = []
        self.cancelled_at: list[Place] = []

    def install(self) -> None:
        asyncio.get_running_loop().set_task_factory(self._make)

    def remove(self) -> None:
        asyncio.get_running_loop().set_task_factory(None)

    def _make(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        watched = _Watched(self, len(self.tasks), coroutine)
        task: asyncio.Task[Any] = asyncio.Task(watched.run(), loop=loop, **options)
        task.add_done_callback(watched.ended)
        self.tasks.append(task)
        self.suspended(watched, None)
        return task

    def suspended(self, watched: _Watched, awaited: Any) -> None:
        name = self.tasks[watched.index].get_name() if watched.number else "before its first step"
        place = Place(name, lines_of(watched.coroutine) if watched.number else ())
        here = Suspension(watched.index, watched.number, place)
        self.suspensions.append(here)
        target = self.target
        if self.victim is None and target and (target.index, target.number) == (here.index, here.number):
            self.strayed = None if place == target.place else place
            self._cancel(here, awaited)
        elif self.moment == Moment.TWICE and len(self.cancelled_at) == 1 and self.tasks[here.index] is self.victim:
            self._cancel(here, awaited)

    def _cancel(self, here: Suspension, awaited: Any) -> None:
        victim = self.victim = self.tasks[here.index]
        self.cancelled_at.append(here.place)
        if self.moment == Moment.DONE and asyncio.isfuture(awaited):
            awaited.add_done_callback(lambda _: victim.cancel())  # before the task's own: it is asked first
        else:
            victim.cancel()


class _Watched:
    """The coroutine of one task, seen from where the task drives it."""

    def __init__(self, instrument: Instrument, index: int, coroutine: Any) -> None:
        self.coroutine, self.index, self.number = coroutine, index, 0
        self._instrument = instrument

    async def run(self) -> Any:
        return await self

    def ended(self, _: object) -> None:
        if inspect.getcoroutinestate(self.coroutine) == inspect.CORO_CREATED:  # cancelled before its first step
            handle = self.coroutine.cr_frame.f_locals.get("self")
            if isinstance(inner := getattr(handle, "coro", None), Coroutine):
                inner.close()  # anyio's task handles hold what they were to run
        self.coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]

    def __iter__(self) -> _Watched:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        return self._note(self.coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        return self._note(self.coroutine.throw(*error))

    def close(self) -> None:
        self.coroutine.close()

    def _note(self, awaited: Any) -> Any:
        self.number += 1
        self._instrument.suspended(self, awaited)
        return awaited


def lines_of(coroutine: Any) -> tuple[Line, ...]:
    """The lines of the engine at which it waits, outermost first; the fakes are not the engine."""
    found: list[Line] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(ENGINE) and not file.startswith(FAKES):
                found.append((file.removeprefix(f"{ROOT}/"), frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return tuple(found)


class Await(msgspec.Struct, frozen=True):
    """An `await`, `async with` or `async for`: `lines` are those a task can wait at."""

    function: str
    lines: range

    def __str__(self) -> str:
        return f"{self.function}:{self.lines.start}"


def awaits_of(file: str) -> list[Await]:
    """All of a file of ours."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    return [
        Await(function.name, range(node.lineno, _end_of(node) + 1))
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, AWAITS)
    ]


def _end_of(node: ast.Await | ast.AsyncWith | ast.AsyncFor) -> int:
    """The body of a block is no part of its head."""
    if isinstance(node, ast.AsyncWith):
        return node.items[-1].context_expr.end_lineno or node.lineno
    return (node.value if isinstance(node, ast.Await) else node.iter).end_lineno or node.lineno


def not_hit(file: str, places: Iterable[Place]) -> list[Await]:
    """The awaits of a file at which no task was waiting in any of these places."""
    lines = {line for place in places for name, line in place.lines if name == file}
    return [one for one in awaits_of(file) if not lines.intersection(one.lines)]
