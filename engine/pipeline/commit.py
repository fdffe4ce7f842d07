"""The commit stage: the one place that owns the order of events.

It takes what waits at the front, appends it in one commit, hands every event to the consumers in offset order with no
await in between, and only then releases those who wait for their 202. Handlers that appended and handed over each by
themselves could let the watermark step over a durable event.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import anyio
import msgspec

from engine.callbacks import call, future_of
from engine.core.drain_rate import DrainRate
from engine.errors import NoSpace, Overloaded, Stopped, StorageFailed
from engine.metrics import Metrics
from engine.model import Append
from engine.ports import Clock, Journal

logger = logging.getLogger("engine.pipeline")

FRONT_EVENTS = 100_000
"""Events that may wait for their commit; beyond that producers are told to slow down."""

COMMIT_EVENTS = 5_000
"""Events in one commit: bounds how long one fsync and one hand-over may take."""

GATHER_SECONDS, GATHERED = 0.001, 16
"""A commit waits no longer for more to share it, nor for more appends: among so many its cost is small, and while it is
on its way to the disk the others are read."""

PROBE_SECONDS = 1.0
"""How often a full journal is asked whether there is room again."""


Told = Callable[[int | Exception], None]
"""Is called once: with the first offset of what is durable now, or with Overloaded or Stopped."""


class _Submission(msgspec.Struct, eq=False):
    append: Append
    told: Told


class CommitStage:
    """`hand_over` is called with the appends of each commit, in offset order, before a submitter hears of it."""

    def __init__(
        self,
        journal: Journal,
        hand_over: Callable[[Sequence[Append]], None],
        *,
        clock: Clock,
        metrics: Metrics,
        drain: DrainRate,
        make_room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._journal, self._hand_over = journal, hand_over
        self._clock, self._metrics, self._drain, self._make_room = clock, metrics, drain, make_room
        self._front: deque[_Submission] = deque()
        self._front_events = 0
        self._gathered = asyncio.Event()  # what waits is to be committed now
        self._empty = asyncio.Event()
        self._empty.set()
        self._no_space: NoSpace | None = None
        self._refusing = False  # from the first refusal to the next commit: what the log tells
        self.closed: Stopped | None = None
        self.next_offset = 0

    def refusal(self) -> Overloaded | None:
        """Why nothing can be accepted now."""
        if self._no_space is not None:
            return Overloaded(self._no_space.type, self._no_space.detail, self._drain.retry_after_seconds(0))
        if self._front_events >= FRONT_EVENTS:
            detail = "more events are waiting to be written than the disk takes in a moment"
            return Overloaded("busy", detail, self._drain.retry_after_seconds(self._front_events))
        return None

    def should_progress(self) -> tuple[bool, int]:
        """Does anything wait for its commit, though there is room? And what grows with every commit."""
        return not self._empty.is_set() and self._no_space is None, self.next_offset

    async def submit(self, append: Append) -> int:
        """Durable on return; the first offset. When cancelled, the append may still become durable.

        Raises Overloaded (nothing written) and Stopped."""
        return await future_of(partial(self.hand_in, append))

    def hand_in(self, append: Append, told: Told) -> None:
        """As `submit`, for who does not want to wait in a task: `told` is called later. Raises what is known at once,
        and then `told` is not called."""
        if self.closed is not None:
            raise self.closed
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        self._front.append(_Submission(append, told))
        self._front_events += len(append.events)
        if self._empty.is_set():
            self._empty.clear()
            self._gather()

    async def run(self) -> None:
        """Commit what waits until cancelled. Ends with StorageFailed when the journal can no longer be trusted."""
        try:
            while True:
                await self._gathered.wait()
                self._gathered.clear()
                if self._front:
                    await self._commit(self._take())
                if self._front:
                    self._gather()
                else:
                    self._empty.set()
        finally:
            self.close(Stopped("the engine has stopped"))

    def close_door(self, reason: Stopped) -> None:
        """Nothing new comes in; what waits is still committed."""
        self.closed = self.closed or reason

    def close(self, reason: Stopped) -> None:
        """Nothing more is accepted; those who wait hear why."""
        self.close_door(reason)
        assert self.closed is not None
        waiting, self._front = self._front, deque()
        self._empty.set()
        _tell(waiting, self.closed)

    async def flushed(self) -> None:
        """Wait until nothing waits for its commit."""
        await self._empty.wait()

    def _gather(self) -> None:
        """While every turn of the loop brings more, let it: a commit costs as much as many requests do. Under little
        load the next turn brings nothing, and that is all that is waited for."""
        loop, until = asyncio.get_running_loop(), self._clock.monotonic() + GATHER_SECONDS

        def look(known: int) -> None:
            waiting = len(self._front)
            if known < waiting < GATHERED and self._clock.monotonic() < until:
                loop.call_soon(look, waiting)
            else:
                self._gathered.set()

        loop.call_soon(look, 0)

    def _take(self) -> list[_Submission]:
        taken: list[_Submission] = []
        events = 0
        while self._front and (not taken or events + len(self._front[0].append.events) <= COMMIT_EVENTS):
            taken.append(self._front.popleft())
            events += len(taken[-1].append.events)
        self._front_events -= events
        return taken

    async def _commit(self, submissions: list[_Submission]) -> None:
        now = self._clock.time()
        for submission in submissions:
            submission.append.accepted_at = now
        started = self._clock.monotonic()
        try:
            first = await self._journal.append([submission.append for submission in submissions])
        except NoSpace as error:
            self._refuse(submissions, error)
            await self._space()
            return
        except StorageFailed as error:
            stopped = Stopped("the journal failed; nothing more is accepted")
            stopped.__cause__ = error
            self.close_door(stopped)
            _tell(submissions, stopped)
            raise
        except BaseException:
            # Cut off in mid-commit: it may be durable, so nobody may hear that it is or that it is not.
            _tell(submissions, Stopped("the engine was stopped in the middle of a commit"))
            raise
        if self._refusing:
            self._refusing = False
            logger.warning("accepting events again")
        self._metrics.journal_fsync_seconds.observe(self._clock.monotonic() - started)
        self._hand_over_all(submissions, first)

    def _hand_over_all(self, submissions: list[_Submission], first: int) -> None:
        """No await in here: an event that is durable is known to every consumer before anything else happens."""
        appends, following = [submission.append for submission in submissions], first
        for append in appends:
            append.first = following
            following += len(append.events)
        self.next_offset = following
        self._metrics.accepted(following - first)
        self._hand_over(appends)
        for submission in submissions:
            call(submission.told, submission.append.first)

    def _refuse(self, submissions: list[_Submission], error: NoSpace) -> None:
        self._no_space = error
        if not self._refusing:
            self._refusing = True
            logger.warning("refusing events: %s (%s)", error.detail, error.type)
        refusal = self.refusal()
        assert refusal is not None
        waiting, self._front = self._front, deque()
        self._front_events = 0
        self._empty.set()
        _tell([*submissions, *waiting], refusal)

    async def _space(self) -> None:
        """Wait until there is room again. Meanwhile everybody is refused at the door."""
        while True:
            if self._make_room is not None and self._no_space is not None and self._no_space.type == "journal-full":
                await self._make_room()
            await anyio.sleep(PROBE_SECONDS)
            try:
                await self._journal.probe()
            except NoSpace as error:
                self._no_space = error
            else:
                self._no_space = None
                return


def _tell(submissions: Iterable[_Submission], error: Exception) -> None:
    for submission in submissions:
        call(submission.told, error)
