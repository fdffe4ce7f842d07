"""The ingress workers as the core sees them: started, told what changes, replaced when they end, drained, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import random as random_module
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol, Self

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from engine.adapters.api_keys import Keys
from engine.adapters.worker_link import Callers, CoreEnd, Drain, Entrance, Hello, Way
from engine.assembly.engine import Engine
from engine.assembly.worker_plan import (
    CallersPlan,
    Inner,
    WorkerPlan,
    callers_plan,
    config_for_workers,
    most_bytes,
    pack_plan,
)
from engine.config import Config
from engine.core.backoff import Backoff
from engine.errors import EngineError

START_SECONDS = 60.0
END_SECONDS = 5.0
"""How long a worker may take to end by itself: more than the answers that are on their way out then may take."""

STEADY_SECONDS = 10.0
"""A worker that has lived for so long is replaced at once; one that has not waits longer with every time."""

COUNTED_SECONDS = 0.5
DRAINED_SECONDS = 0.5
"""Beyond the time of an answer: for the word of it."""

RESTART = Backoff(0.25, 10.0)

log = logging.getLogger("engine.workers")


class Child(Protocol):
    """A process; see `asyncio.subprocess.Process`."""

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


Spawn = Callable[[socket.socket, socket.socket], Awaitable[Child]]
"""Start a worker that inherits its end of the link, and of the door that connections come through."""


class WorkerFailed(EngineError):
    """An ingress worker could not start; what it has logged says why."""


class Workers:
    """`end_of`: makes the core's end of a link. `restarted`: told of every one that had to be replaced. `failed`: told
    when this fails itself. One task owns everything, so that entering and leaving may happen in different ones."""

    def __init__(
        self,
        plans: Sequence[WorkerPlan],
        entrance: Entrance,
        spawn: Spawn,
        *,
        end_of: Callable[[TaskGroup, Way], CoreEnd],
        restarted: Callable[[], None],
        failed: Callable[[], None],
        drain_seconds: float,
    ) -> None:
        self._plans, self._entrance, self._spawn = list(plans), entrance, spawn
        self._end_of, self._restarted, self._failed, self._drain_seconds = end_of, restarted, failed, drain_seconds
        self._random = random_module.Random()
        self._ends: dict[int, CoreEnd] = {}
        self._children: dict[int, Child] = {}
        self._draining = self._ending = False
        self._serving, self._stop = asyncio.Event(), asyncio.Event()
        self._tasks: TaskGroup
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        """All of them serve on return. Raises WorkerFailed."""
        self._task = asyncio.create_task(self._run(), name="rainfocus-engine-workers")
        serving = asyncio.create_task(self._serving.wait())
        try:
            await asyncio.wait({self._task, serving}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        finally:
            serving.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Raises what this has failed of."""
        self._stop.set()
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            await self._cancel()
            raise
        self._task.result()

    async def _cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                await self._start()
                self._serving.set()
                await self._stop.wait()
                await self._end()
                tasks.cancel_scope.cancel()
        except Exception:
            self._failed()
            raise

    async def _start(self) -> None:
        async with anyio.create_task_group() as starting:
            for index in range(len(self._plans)):
                starting.start_soon(self._tasks.start, self._keep, index)

    def reload(self, callers: CallersPlan) -> None:
        self._plans = [msgspec.structs.replace(plan, callers=callers) for plan in self._plans]
        packed = pack_plan(callers)
        for end in self._ends.values():
            end.tell(Callers(packed))

    def drain(self, then: Callable[[], None]) -> None:
        """Let nobody new in, and call `then` once nothing comes from any worker any more, or time is over."""
        if self._task.done():
            then()
        elif not self._draining:
            self._draining = True
            self._tasks.start_soon(self._drain, then)

    async def _drain(self, then: Callable[[], None]) -> None:
        ends = [*self._ends.values()]
        for end in ends:
            end.tell(Drain())
        with anyio.move_on_after(self._drain_seconds):
            for end in ends:
                await end.drained.wait()
        then()

    async def counted(self) -> None:
        """All that the workers have counted until now is in the metrics, but for one that does not answer in time."""
        with anyio.move_on_after(COUNTED_SECONDS):
            for end in [*self._ends.values()]:
                await end.counted()

    async def _end(self) -> None:
        """Answers that are on their way are given; who takes longer is killed when the tasks are cancelled."""
        self._ending = True
        for end in self._ends.values():
            end.close()
        with anyio.move_on_after(END_SECONDS):
            for child in [*self._children.values()]:
                await child.wait()

    # -- one worker after the other, in one place -----------------------------------------------------------------

    async def _keep(self, index: int, *, task_status: TaskStatus[None]) -> None:
        failures, begun = 0, False
        while True:
            since = time.monotonic()
            ready, code = await self._one(index, None if begun else task_status)
            if self._ending:
                return
            if not begun and not ready:
                raise WorkerFailed(f"an ingress worker could not start (exit code {code}); its log says why")
            begun = True
            failures = 0 if time.monotonic() - since >= STEADY_SECONDS else failures + 1
            log.error("an ingress worker has ended (%s), another takes its place", code, extra={"worker": index + 1})
            self._restarted()
            if failures:
                await anyio.sleep(RESTART.seconds(failures, self._random))

    async def _one(self, index: int, status: TaskStatus[None] | None) -> tuple[bool, int]:
        """From its start to its end: whether it ever served, and its exit code."""
        (link, its_link), (door, its_door) = socket.socketpair(), socket.socketpair()
        with link, door:
            with its_link, its_door:
                child = self._children[index] = await self._spawn(its_link, its_door)
            try:
                end = await self._greeted(index, link, door)
                ready = await self._served(end)
                if ready and status is not None:
                    status.started()
                await end.closed.wait()
                self._entrance.remove(end.way)
                with anyio.move_on_after(END_SECONDS):
                    await child.wait()
            finally:
                self._let_go(index)
                await _ended(child)
        return ready, await child.wait()

    def _let_go(self, index: int) -> None:
        end = self._ends.pop(index, None)
        if end is not None:
            self._entrance.remove(end.way)
            end.close()

    async def _greeted(self, index: int, link: socket.socket, door: socket.socket) -> CoreEnd:
        for one in (link, door):
            one.setblocking(False)
        end = self._end_of(self._tasks, Way(door))
        await asyncio.get_running_loop().create_unix_connection(lambda: end, sock=link)
        end.tell(Hello(pack_plan(self._plans[index])))
        self._ends[index] = end
        if self._draining:
            end.tell(Drain())
        return end

    async def _served(self, end: CoreEnd) -> bool:
        """Wait until it serves, or never will."""
        with anyio.move_on_after(START_SECONDS):
            await end.started()
        if end.ready.is_set():
            self._entrance.add(end.way)
        else:
            end.close()
        return end.ready.is_set()


async def _ended(child: Child) -> None:
    """It does not outlive this, whatever happens here."""
    with suppress(ProcessLookupError):
        child.kill()
    with anyio.CancelScope(shield=True):
        await child.wait()


def workers_of(config: Config, engine: Engine, keys: Keys, inner: Inner, entrance: Entrance, spawn: Spawn) -> Workers:
    """`config`: with its secrets read. `inner`: where they ask for everything but events."""

    def end_of(tasks: TaskGroup, way: Way) -> CoreEnd:
        return CoreEnd(
            lambda: engine.intake,
            take=keys.take,
            metrics=engine.metrics,
            tasks=tasks,
            most_bytes=most_bytes(config),
            most_waits=config.ingress.max_connections,
            way=way,
        )

    return Workers(
        _plans(config, engine, callers_plan(config, keys.signing_key), inner),
        entrance,
        spawn,
        end_of=end_of,
        restarted=engine.metrics.worker_restarted,
        failed=engine.stop,
        drain_seconds=config.ingress.answer_timeout_seconds + DRAINED_SECONDS,
    )


def _plans(config: Config, engine: Engine, callers: CallersPlan, inner: Inner) -> list[WorkerPlan]:
    theirs, journal_id = config_for_workers(config), engine.intake.journal_id
    numbers = range(1, config.ingress.workers + 1)
    return [WorkerPlan(number, theirs, callers, journal_id, inner, os.getpid()) for number in numbers]
