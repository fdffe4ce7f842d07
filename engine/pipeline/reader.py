"""Reading: recovery first, then the journal behind the tail, whenever a consumer could not take it from memory."""

from __future__ import annotations

import asyncio
import logging

import anyio

from engine.core.receipts import Receipts, Tracker
from engine.dispatcher.consumer import Consumer
from engine.dispatcher.holding import BACKFILL_SHARE
from engine.model import Append, Lane
from engine.ports import Journal, State

logger = logging.getLogger("engine.pipeline")

READ_EVENTS = 2_000
HELD_AT_ONCE = 500

BEHIND_EVENTS = 500
"""More than this that was not read yet is much, for a live event behind it."""

BACKFILL_OVER, ROOM_SHARE = 5_000, 0.75
"""Backfill profiles in memory beyond their share, until they are on disk: so many, at most this part of the room that
is left beside that share, so that live events are taken in as they come."""


class Reader:
    """Feeds one consumer. At the tail `offer` hands over from memory; `run` does everything else."""

    def __init__(
        self, consumer: Consumer, journal: Journal, state: State, receipts: Receipts, settling: anyio.Lock
    ) -> None:
        self.consumer, self._journal, self._state, self._receipts = consumer, journal, state, receipts
        self._lock = settling
        self._held_after = 0
        self._at_once = max(1, min(HELD_AT_ONCE, consumer.policy.max_profiles // 4))
        self._share = int(consumer.policy.max_profiles * BACKFILL_SHARE)
        self._over_allowed = min(BACKFILL_OVER, int((consumer.policy.max_profiles - self._share) * ROOM_SHARE))
        self._next = 0
        self._followed: Tracker | None = None  # whose events were read from the journal last
        self._wake = asyncio.Event()
        self.recovered = asyncio.Event()  # or it never will be, if the consumer is `recovering` still

    def offer(self, append: Append) -> None:
        """A durable append, from the commit stage. Taken from memory if the consumer is at the tail and has room."""
        self._next = append.first + len(append.events)
        consumer = self.consumer
        at_tail = consumer.position == append.first and self._next <= consumer.read_to
        if at_tail and not consumer.recovering and consumer.room() >= len(append.events):
            consumer.take(append, self._receipts.get(append.first))
            consumer.account.wake()
            if consumer.holding.over():
                self._wake.set()
        else:
            self._wake.set()

    def wake(self) -> None:
        """There may be room again, or `read_to` has been raised."""
        if self.consumer.position < self._next or self.consumer.books.held_profiles or self.consumer.holding.over():
            self._wake.set()

    def has_enough_backfill(self, coming: int) -> bool:
        """Is so much backfill in memory, with as much as is coming, that more of it would be in the way of live events
        until copies are on disk? One that is behind for another reason, because nothing leaves for example, is not
        waited for."""
        consumer, coalescer = self.consumer, self.consumer.coalescer
        if consumer.recovering:
            return False
        if self._next - consumer.position > BEHIND_EVENTS and coalescer.copies_under_way > 0:
            return True
        over = consumer.holding.over()
        if over and not consumer.room():
            return True
        soon = min(coalescer.ready_in(Lane.BACKFILL), len(coalescer) - self._share) + coming if coming else 0
        return max(over, soon) > self._over_allowed

    async def recover(self, journal_next: int, dispatching: bool) -> None:
        """Read [watermark, read_to) whole, dropping what is settled or held, before the first dispatch: whatever a
        predecessor may have sent is in there, so nothing older can be sent after it."""
        consumer = self.consumer
        self._next = max(self._next, journal_next)
        accounted = await self._state.accounted(consumer.name)
        end = min(consumer.recovery_end, journal_next)
        while consumer.position < end:
            for append in await self._journal.read(consumer.position, READ_EVENTS):
                consumer.take(_cut(append, end), self._receipts.get(append.first), accounted)
                if consumer.position >= end:
                    break
        if dispatching and not consumer.was_clean:
            # Even with nothing to read: what is held may have been under way as well.
            await anyio.sleep(consumer.policy.unknown_hold_seconds)
        consumer.recovering = False
        consumer.dirty()  # what was settled meanwhile has not moved the watermark
        if end > consumer.watermark:
            logger.info("destination %s: recovered %d events", consumer.name, end - consumer.watermark)
        self.recovered.set()
        consumer.account.wake()

    async def run(self, journal_next: int, dispatching: bool = True) -> None:
        await self.recover(journal_next, dispatching)
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._read_on()
            await self._balance()

    async def _read_on(self) -> None:
        consumer = self.consumer
        while consumer.position < min(self._next, consumer.read_to) and (room := consumer.room()):
            self._take(await self._journal.read(consumer.position, min(READ_EVENTS, room)))
            consumer.account.wake()
            if consumer.holding.over() and not self._lock.locked():  # reading goes on while copies are being written
                await self._evict()

    def _take(self, appends: list[Append]) -> None:
        """As much of them as there is room for."""
        consumer = self.consumer
        for append in appends:
            end = min(consumer.read_to, consumer.position + consumer.room())
            if append.first != consumer.position or append.first >= end:
                break  # the commit stage handed it over meanwhile, or there is no more room
            consumer.take(_cut(append, end), self._receipt(append.first))

    def _receipt(self, first: int) -> Tracker | None:
        """Of the append that the events from this offset on are of; what does not fit at once is read in pieces."""
        known = self._receipts.get(first) or self._followed
        covers = known is not None and known.first <= first < known.first + known.events
        self._followed = known if covers else None
        return self._followed

    async def _balance(self) -> None:
        """Backfill beyond its share goes to disk; what is held comes back when there is room."""
        if self.consumer.holding.over():
            await self._evict()
        else:
            await self._load()

    async def _evict(self) -> None:
        """Under the settler's lock: what is on disk of a key must not be forgotten between look and copy."""
        async with self._lock:
            await self.consumer.holding.evict()
        self.consumer.dirty()

    async def _load(self) -> None:
        """Take held profiles back in, oldest first and round and round, until there is no more room or one whole round
        brought nothing new."""
        consumer, begins_round = self.consumer, self._held_after == 0
        while consumer.books.held_profiles and consumer.room() and consumer.holding.wanted_back():
            if await self._load_some():
                continue
            if begins_round:
                return
            begins_round = True

    async def _load_some(self) -> bool:
        """False at the end of a round. Under the settler's lock, so that a copy that was settled a moment ago is known
        to be."""
        consumer = self.consumer
        async with self._lock:
            limit = min(self._at_once, consumer.room())
            if not limit:
                return True  # others took the room while the lock was waited for
            found = await self._state.held(consumer.name, limit, after=self._held_after)
            fitting = found[: consumer.room()]  # the commit stage may have handed over events meanwhile
            for held in fitting:
                consumer.holding.load(held)
        consumer.account.wake()
        more = len(found) == limit or len(fitting) < len(found)
        if fitting or not more:
            self._held_after = fitting[-1].id if more else 0
        return more


def _cut(append: Append, end: int) -> Append:
    if append.first + len(append.events) <= end:
        return append
    events = append.events[: end - append.first]
    return Append(events, append.source, append.lane, append.accepted_at, append.first)
