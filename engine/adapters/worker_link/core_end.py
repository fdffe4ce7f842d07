"""The core's end of the link to one worker: its appends go to the commit stage as they are, its questions are answered.

An append is answered when the commit stage says that it is durable, not before, and not at all if it never says.
Nothing is judged again; what cannot be read as events breaks the link, and the worker is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup

from engine.adapters.worker_link.counts import add_counts
from engine.adapters.worker_link.door import Way
from engine.adapters.worker_link.frames import FrameKind, LinkBroken
from engine.adapters.worker_link.link import Link
from engine.adapters.worker_link.messages import (
    AppendHead,
    Count,
    Counted,
    Counts,
    Drained,
    Ended,
    Found,
    GiveUp,
    Open,
    Ready,
    Refused,
    Stored,
    ToWorker,
    Wait,
    append_of,
    framed,
    to_core,
)
from engine.core.codec import unpack_events
from engine.errors import EngineError, Overloaded
from engine.metrics import Metrics
from engine.model import Append, Lane

QUOTA = "this key has used up its events per second"


class Front(Protocol):
    """What of the engine a worker reaches; see `assembly.intake.EngineIntake`."""

    def begin(self, append: Append, /) -> asyncio.Future[int]:
        """The first offset, once the append is durable. Raises Overloaded (nothing written) and Stopped."""

    async def begin_paced(self, append: Append, /) -> int:
        """As `begin`, of backfill: it waits for its turn first."""

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None: ...

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool: ...


class CoreEnd(Link):
    """`front` is asked anew every time: the engine behind it starts and stops. `take`: see `api_keys.Keys.take`; the
    quotas of all workers are kept here. `tasks` runs what has to wait. `way`: how connections get there."""

    def __init__(
        self,
        front: Callable[[], Front],
        *,
        take: Callable[[str, int], float],
        metrics: Metrics,
        tasks: TaskGroup,
        most_bytes: int,
        most_waits: int,
        way: Way,
    ) -> None:
        super().__init__(most_bytes)
        self._front, self._take, self._metrics, self._tasks = front, take, metrics, tasks
        self._most_waits, self.way = most_waits, way
        self._stored: list[tuple[int, int]] = []
        self._waits: dict[int, anyio.CancelScope] = {}
        self._counting: dict[int, asyncio.Event] = {}
        self._count_number = 0
        self.ready, self.drained, self._begun = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def counted(self) -> None:
        """Wait until all is here that the worker had counted by now, or the link has ended."""
        if self.closed.is_set():
            return
        self._count_number = number = self._count_number + 1
        self._counting[number] = counted = asyncio.Event()
        self.tell(Count(number))
        try:
            await counted.wait()
        finally:
            self._counting.pop(number, None)

    async def started(self) -> None:
        """Wait until the worker serves (then `ready` is set), or the link has ended before."""
        await self._begun.wait()

    def tell(self, message: ToWorker) -> None:
        self.send(framed(message))

    def got(self, kind: int, body: memoryview) -> None:
        if kind == FrameKind.APPEND:
            self._append(*append_of(body))
            return
        if kind != FrameKind.MESSAGE:
            raise LinkBroken(f"a frame of the unknown kind {kind}")
        message = to_core(body)
        if isinstance(message, Wait):
            self._begin_wait(message)
        elif isinstance(message, GiveUp):
            if (scope := self._waits.get(message.number)) is not None:
                scope.cancel()
        elif isinstance(message, Counts):
            add_counts(self._metrics, message)
        elif isinstance(message, Counted):
            if (counted := self._counting.pop(message.number, None)) is not None:
                counted.set()
        elif isinstance(message, Open):
            self.way.told(message.connections)
        elif isinstance(message, Ready):
            self.ready.set()
            self._begun.set()
        elif isinstance(message, Drained):
            self.drained.set()

    def lost(self) -> None:
        self.drained.set()
        self._begun.set()
        for counted in self._counting.values():
            counted.set()
        for scope in self._waits.values():
            scope.cancel()

    # -- appends --------------------------------------------------------------------------------------------------

    def _append(self, given: AppendHead, body: memoryview) -> None:
        packed = bytes(body)
        try:
            events = unpack_events(packed)
        except msgspec.DecodeError:
            raise LinkBroken("an append that does not hold events") from None
        if not events:
            raise LinkBroken("an append without events")
        append = Append(events, given.source, given.lane, packed=packed)
        wait = self._take(given.owner, len(events))
        if wait > 0:
            self.tell(Refused(given.number, problem="quota", detail=QUOTA, retry_after_seconds=wait))
            return
        if given.lane == Lane.BACKFILL:
            self._tasks.start_soon(self._paced, given, append)
            return
        try:
            commit = self._front().begin(append)
        except EngineError as error:
            self._refuse(given, len(events), error)
            return
        commit.add_done_callback(partial(self._committed, given, append))

    async def _paced(self, given: AppendHead, append: Append) -> None:
        try:
            first = await self._front().begin_paced(append)
        except EngineError as error:
            self._refuse(given, len(append.events), error)
        else:
            self._answer(given, append, first)

    def _committed(self, given: AppendHead, append: Append, commit: asyncio.Future[int]) -> None:
        error = None if commit.cancelled() else commit.exception()
        if isinstance(error, EngineError):
            self._refuse(given, len(append.events), error)
        elif error is None and not commit.cancelled():
            self._answer(given, append, commit.result())

    def _answer(self, given: AppendHead, append: Append, first: int) -> None:
        append.packed = b""  # it is in the journal; the events alone go on
        if not self._stored:
            asyncio.get_running_loop().call_soon(self._tell_stored)
        self._stored.append((given.number, first))

    def _tell_stored(self) -> None:
        """All of one commit at once."""
        stored, self._stored = self._stored, []
        self.tell(Stored(stored))

    def _refuse(self, given: AppendHead, events: int, error: EngineError) -> None:
        self._take(given.owner, -events)
        if isinstance(error, Overloaded):
            self.tell(Refused(given.number, error.type, error.detail, error.retry_after_seconds))
        else:
            self.tell(Ended(given.number, str(error)))

    # -- receipts -------------------------------------------------------------------------------------------------

    def _begin_wait(self, message: Wait) -> None:
        if len(self._waits) >= self._most_waits:
            raise LinkBroken("more waits for receipts than the worker has connections")
        self._waits[message.number] = scope = anyio.CancelScope()
        self._tasks.start_soon(self._wait, message, scope)

    async def _wait(self, message: Wait, scope: anyio.CancelScope) -> None:
        front, settled = self._front(), False
        with scope:
            try:
                settled = await front.settled(message.receipt, message.timeout_seconds, owner=message.owner)
            except EngineError:
                settled = False  # the engine ends; what is known of it by now is the answer
            report = msgspec.json.encode(front.receipt(message.receipt, owner=message.owner))
            self.tell(Found(message.number, settled, report))
        self._waits.pop(message.number, None)
