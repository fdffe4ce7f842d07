"""The settler: writes what became of profiles, all consumers in one transaction, every 50 ms or 5,000 verdicts.

Rows leave the journal only below a watermark that is durable here; nothing spans the two files, and nothing needs to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import anyio

from engine.core.drain_rate import DrainRate
from engine.dispatcher.consumer import Consumer
from engine.dispatcher.following import Notices
from engine.errors import NoSpace, Stopped
from engine.model import HeldKind
from engine.ports import Clock, Journal, LetterFilter, State, Transition

logger = logging.getLogger("engine.pipeline")

SETTLE_SECONDS = 0.050
SETTLE_VERDICTS = 5_000
NO_SPACE_SECONDS = 1.0


class Settler:
    """One writer for the state file. `dirty` says that there is something to write."""

    def __init__(
        self,
        state: State,
        journal: Journal,
        consumers: Sequence[Consumer],
        *,
        clock: Clock,
        drain: DrainRate,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self._state, self._journal, self._consumers = state, journal, consumers
        self._clock, self._drain, self._settled = clock, drain, settled
        self._dirty = asyncio.Event()
        self._full = asyncio.Event()
        self._pauses: dict[str, float] = {}
        self.lock = anyio.Lock()
        self._released = 0
        self._asked: list[asyncio.Future[None]] = []
        self._round_ends = asyncio.Event()
        self._closed: Stopped | None = None
        self._in_hand: list[tuple[Transition, Notices]] = []  # taken, and not written yet
        self.no_space: NoSpace | None = None
        self._settling = False
        self._rounds = 0
        self.resting = 0  # how many wait for rest, or have it

    def dirty(self) -> None:
        self._dirty.set()
        if not self._full.is_set():
            waiting = 0
            for consumer in self._consumers:  # a generator in sum() costs more than all of it
                waiting += consumer.books.verdicts_open
            if waiting >= SETTLE_VERDICTS:
                self._full.set()

    def pause(self, account: str, until: float) -> None:
        """A Retry-After pause, to be stored: it survives a restart."""
        self._pauses[account] = until
        self._dirty.set()

    def at_rest(self) -> _AtRest:
        """`async with settler.at_rest():` nothing is written meanwhile, however long that takes."""
        return _AtRest(self)

    def should_progress(self) -> tuple[bool, int]:
        """Is there anything to write, or in hand, though there is room? And what grows with every transaction."""
        waits = self._dirty.is_set() or self._settling or any(one.books.verdicts_open for one in self._consumers)
        return waits and not self.resting and self.no_space is None, self._rounds

    async def run(self) -> None:
        while True:
            await self._dirty.wait()
            with anyio.move_on_after(SETTLE_SECONDS):
                await self._full.wait()
            await self.settle()

    async def flush(self) -> None:
        """Everything there is to write now is durable on return. For callers that may be cancelled: it is the settler's
        own task that writes, since what it has taken in hand has to be seen through. Raises Stopped, and NoSpace (it
        will be written when there is room)."""
        if self._closed is not None:
            raise self._closed
        if self.no_space is not None:
            raise self.no_space
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._dirty.set()
        self._full.set()
        await asked

    async def round(self) -> None:
        """Wait until something has been written next: whatever may have changed has changed by then. Raises Stopped."""
        await self._round_ends.wait()
        if self._closed is not None:
            raise self._closed

    def close(self, reason: Stopped) -> None:
        """Nothing is written any more; those who wait hear why."""
        self._closed = reason
        self._round_ends.set()
        for asked in self._asked:
            _fail(asked, reason)

    async def finish(self, *, clean: bool) -> None:
        """The last write of this process; an end is not put off until there is room."""
        try:
            await self.settle(clean=clean, patient=False)
        except NoSpace:
            logger.warning("stopped without room to write down what was delivered last: it will be sent again")

    async def settle(self, *, clean: bool = False, patient: bool = True) -> None:
        """Write everything there is to write now; durable on return. `clean`: no attempt is under way any more. For the
        task that owns the engine; others call `flush`. Raises NoSpace unless `patient`: then it waits for room."""
        async with self.lock:
            self._settling = True
            try:
                await self._settle(clean, patient)
            finally:
                self._settling = False

    async def _settle(self, clean: bool, patient: bool) -> None:
        await self._see_through(patient)
        self._dirty.clear()
        self._full.clear()
        asked = self._asked[:]
        for consumer in self._consumers:
            await consumer.holding.erase_forgotten()
            await consumer.holding.hold_stragglers()
        self._in_hand = [self._take(consumer, clean) for consumer in self._consumers]
        await self._see_through(patient)
        self._rounds += 1
        self._round_ends.set()
        self._round_ends = asyncio.Event()
        self._answer(asked)

    async def _see_through(self, patient: bool) -> None:
        """Write what is in hand. Whoever was cancelled while it waited for room has left it to the next one: a later
        watermark without these counts would break the sums."""
        taken = self._in_hand
        changed = [transition for transition, _ in taken if _says_something(transition)]
        if changed or self._pauses:
            await self._write(changed, patient)
        self._in_hand = []  # no await since it was written: it must not be written twice
        if any(transition.forget for transition in changed):
            await self._scrub()
            await self._recount_letters()
        for consumer, (transition, notices) in zip(self._consumers, taken, strict=bool(taken)):
            self._apply(consumer, transition, notices)
        self._release()
        self._settled()

    def _answer(self, asked: list[asyncio.Future[None]]) -> None:
        self._asked = [one for one in self._asked if one not in asked]
        for one in asked:
            if not one.done():
                one.set_result(None)

    def _take(self, consumer: Consumer, clean: bool) -> tuple[Transition, Notices]:
        watermark = consumer.coalescer.watermark(consumer.position) if not consumer.recovering else consumer.watermark
        if watermark > consumer.watermark:
            consumer.books.advance(watermark)
        if clean and not consumer.recovering and not consumer.unknown:
            consumer.books.open.clean = True
            consumer.books.open.read_to = consumer.position
        return consumer.books.take()

    async def _write(self, transitions: list[Transition], patient: bool) -> None:
        while True:
            pauses = self._pauses.copy()
            for transition in transitions:
                transition.at = self._clock.time()
            try:
                # Once handed to the file it is applied whatever happens to us, so we have to see it through.
                with anyio.CancelScope(shield=True):
                    await self._state.settle(transitions, pauses)
            except NoSpace as error:
                self._stuck(error)
                if not patient:
                    raise
                await anyio.sleep(NO_SPACE_SECONDS)
            else:
                self._written(pauses)
                return

    def _stuck(self, error: NoSpace) -> None:
        """Nobody who asked is left waiting: room may come in a second or never."""
        if self.no_space is None:
            logger.warning("what became of events cannot be written down: %s (%s)", error.detail, error.type)
        self.no_space = error
        asked, self._asked = self._asked, []
        for one in asked:
            _fail(one, error)

    def _written(self, pauses: dict[str, float]) -> None:
        self._pauses = {name: until for name, until in self._pauses.items() if pauses.get(name) != until}
        if self.no_space is not None:
            logger.warning("there is room again: writing down what became of events")
        self.no_space = None

    async def _scrub(self) -> None:
        while True:
            try:
                await self._state.scrub()
            except NoSpace:
                await anyio.sleep(NO_SPACE_SECONDS)
            else:
                return

    async def recount_letters(self) -> None:
        """To be called when dead letters were deleted by others than a settling transaction."""
        async with self.lock:
            await self._recount_letters()

    async def _recount_letters(self) -> None:
        for consumer in self._consumers:
            consumer.books.recount_letters(await self._state.count_letters(LetterFilter(consumer=consumer.name)))

    def _apply(self, consumer: Consumer, transition: Transition, notices: Notices) -> None:
        consumer.durable(transition)
        consumer.holding.made_durable([held for held in transition.hold if held.kind == HeldKind.WAITING])
        for (tracker, outcome), events in notices.items():
            tracker.count(consumer.name, outcome, events)
        self._drain.add(sum(transition.counts.values()), self._clock.monotonic())

    def _release(self) -> None:
        below = min((consumer.watermark for consumer in self._consumers), default=0)
        if below > self._released:
            self._released = below
            self._journal.release(below)


class _AtRest:
    """The settler's lock, taken for as long as it takes."""

    def __init__(self, settler: Settler) -> None:
        self._settler = settler

    async def __aenter__(self) -> None:
        self._settler.resting += 1
        try:
            await self._settler.lock.acquire()
        except BaseException:
            self._settler.resting -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._settler.lock.release()
        self._settler.resting -= 1


def _fail(asked: asyncio.Future[None], error: Exception) -> None:
    if not asked.done():
        asked.set_exception(error)
        asked.exception()  # read here: whoever asked may have been cancelled meanwhile


_EMPTY = Transition("")


def _says_something(transition: Transition) -> bool:
    return any(
        getattr(transition, field) != getattr(_EMPTY, field)
        for field in transition.__struct_fields__
        if field != "consumer"
    )
