"""Profiles kept in the state file: stragglers, backfill beyond its share, and what a forget has to erase of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from engine.core.consent import recall
from engine.core.fold import copy_to_store, events_of
from engine.core.receipts import listed
from engine.model import NOTHING, Held, HeldKind, Lane, Outcome, Profile

if TYPE_CHECKING:
    from engine.dispatcher.consumer import Consumer

STRAGGLER_SPAN_EVENTS = 100_000
STRAGGLERS = 10_000
STRAGGLERS_EVERY_SECONDS = 1.0
"""Profiles that hold back so many events are copied to the state file, if they are no more than this."""

BACKFILL_SHARE = 0.8
"""Backfill fills at most this part of a share; beyond it profiles are held on disk, so that reading never stops."""

REFILL_SHARE = 0.25
"""Once backfill in memory has fallen to this part of a share, what is held of it is read back."""


SLICE_PROFILES, SLICES_A_TRANSACTION = 1_000, 5
"""So many are copied before others have their turn, and so often before they are written."""


class Eraser(Protocol):
    """Whoever empties the journal of forgotten keys (`pipeline.eraser`)."""

    def want(self, key: bytes, below: int, /) -> None: ...

    def want_again(self, key: bytes, below: int, /) -> None: ...

    def is_erased(self, key: bytes, below: int, /) -> bool: ...


class _NothingToErase:
    def want(self, key: bytes, below: int, /) -> None:
        """There is no journal to erase from."""

    want_again = want

    def is_erased(self, key: bytes, below: int, /) -> bool:
        return True


class Holding:
    """What one consumer holds on disk, to be delivered later. `eraser` empties the journal of forgotten keys."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.eraser: Eraser = _NothingToErase()
        self._stragglers_at = float("-inf")
        self._started_at = consumer.clock.time()

    async def hold_stragglers(self) -> None:
        """Copy the few profiles that keep the watermark far back to the state file."""
        consumer = self._consumer
        now = consumer.clock.monotonic()
        if now < self._stragglers_at + STRAGGLERS_EVERY_SECONDS:
            return
        if consumer.position - consumer.coalescer.watermark(consumer.position) > STRAGGLER_SPAN_EVENTS:
            self._stragglers_at = now
            await self._hold(consumer.coalescer.stragglers(consumer.position - STRAGGLER_SPAN_EVENTS, STRAGGLERS))

    async def _hold(self, profiles: Sequence[Profile]) -> None:
        """Copy waiting profiles to the state file. A copy replaces the key's earlier one, so what is on disk of the key
        is folded in first."""
        consumer = self._consumer
        if not profiles:
            return
        keys = [profile.key for profile in profiles]
        known = await consumer.books.look_up(consumer.store, keys)
        for profile in profiles:
            if not consumer.coalescer.may_be_held(profile):
                continue
            stored = known.get(profile.key)
            if stored is not None and stored.held is not None:
                self._absorb(profile, stored.held)
            consumer.books.open.hold.append(Held(HeldKind.WAITING, copy_to_store(profile), consumer.clock.time()))
            consumer.coalescer.holding(profile)
        consumer.dirty()

    def _absorb(self, profile: Profile, held: Held) -> None:
        gained = self._consumer.coalescer.absorb(profile, held)
        if gained:
            self.joined(profile, held, gained)

    def joined(self, profile: Profile, held: Held, gained: int) -> None:
        """A profile in memory has taken in what was held on disk of its key."""
        consumer = self._consumer
        consumer.books.held_events -= gained
        consumer.books.held_profiles -= 1
        profile.certain = profile.certain and self._is_of_this_process(held)

    def over(self) -> int:
        """How many backfill profiles are too many in memory: by number, or by what they weigh on average."""
        coalescer, policy = self._consumer.coalescer, self._consumer.policy
        ready = coalescer.ready_in(Lane.BACKFILL)
        if not ready:
            return 0
        too_many = len(coalescer) - int(policy.max_profiles * BACKFILL_SHARE)
        bytes_over = coalescer.bytes - int(policy.max_bytes * BACKFILL_SHARE)
        if bytes_over > 0:
            too_many = max(too_many, -(-bytes_over * coalescer.waiting // coalescer.bytes))
        return max(0, min(ready, too_many))

    def wanted_back(self) -> bool:
        """Is there so little backfill left in memory that what is held should come back?"""
        coalescer, policy = self._consumer.coalescer, self._consumer.policy
        ready, waiting = coalescer.ready_in(Lane.BACKFILL), max(1, coalescer.waiting)
        weight = ready * coalescer.bytes // waiting
        return ready <= policy.max_profiles * REFILL_SHARE and weight <= policy.max_bytes * REFILL_SHARE

    async def evict(self) -> None:
        """Hold the backfill profiles that would leave last; they leave memory once their copies are durable."""
        coalescer = self._consumer.coalescer
        for _ in range(SLICES_A_TRANSACTION):
            too_many = self.over() - coalescer.copies_under_way
            if too_many <= 0:
                return
            await self._hold(coalescer.evictable(min(SLICE_PROFILES, too_many)))

    async def expire(self, below: int) -> None:
        """Give up what has waited longest: every waiting profile with an event below this offset, with what is on disk
        of it. Kept as dead letters of that class while there is room for them."""
        consumer = self._consumer
        if consumer.recovering:
            return
        coalescer, books, at = consumer.coalescer, consumer.books, consumer.clock.time()
        oldest = coalescer.stragglers(below, len(coalescer))
        keys = [profile.key for profile in oldest]
        known = await books.look_up(consumer.store, keys)
        for profile in oldest:
            if not coalescer.may_be_held(profile):
                continue
            stored = known.get(profile.key)
            if stored is not None and stored.held is not None:
                self._absorb(profile, stored.held)
            recall(profile, stored.entry if stored is not None else None)
            coalescer.take_out(profile)
            if consumer.letters_full():
                books.settle(profile, Outcome.EXPIRED, "journal_full", at=at)
            else:
                books.bury(profile, HeldKind.EXPIRED, "journal_full", "", at=at)
        consumer.dirty()

    def made_durable(self, copies: Sequence[Held]) -> None:
        """The settler's word that these WAITING copies are on disk: backfill that is too much in memory leaves it."""
        coalescer = self._consumer.coalescer
        for held in copies:
            coalescer.held(held.profile.key, held.profile.last)
        too_many = self.over()
        for held in copies:
            if too_many > 0 and held.profile.lane == Lane.BACKFILL:
                too_many -= self._unload(held)

    def _unload(self, held: Held) -> bool:
        consumer = self._consumer
        gone = consumer.coalescer.unload(held.profile.key, held.profile.last)
        if gone is None:
            return False
        consumer.books.held_events += events_of(gone)
        consumer.books.held_profiles += 1
        for tracker, *_ in listed(gone.receipts, gone.last):
            tracker.lose()  # type: ignore[attr-defined]
        return True

    def load(self, held: Held) -> None:
        """Take a profile from disk back in, unless its key is here: then hand-over joins the two."""
        consumer = self._consumer
        profile = held.profile
        profile.certain = profile.certain and self._is_of_this_process(held)
        if profile.last > self._settled_lately(profile.key) and consumer.coalescer.load(profile):
            consumer.books.held_events -= events_of(profile)
            consumer.books.held_profiles -= 1

    def _is_of_this_process(self, held: Held | None) -> bool:
        """A copy made by a predecessor may have been sent since: nothing is certain about it."""
        return held is not None and held.at >= self._started_at

    def _settled_lately(self, key: bytes) -> int:
        entry = self._consumer.books.recent.get(key)
        return NOTHING if entry is None else entry.settled_through

    async def erase_forgotten(self) -> None:
        """Carry out the forgets that are due: what is stored of their keys goes with the next transaction."""
        consumer = self._consumer
        while (marker := consumer.coalescer.next_marker(self.eraser.is_erased)) is not None:
            # Not overlaid: of what is on disk only that is done with which the open transition drops or forgets.
            stored = (await consumer.store.keys(consumer.name, [marker.key])).get(marker.key)
            held = stored.held if stored is not None else None
            if held is not None and held.profile.last <= max(marker.held_through, consumer.books.dropped(marker.key)):
                held = None
            if marker.events:
                waiting = msgspec.structs.replace(marker, last=marker.through)
                consumer.books.settle(waiting, Outcome.EXCLUDED, "forgotten", at=consumer.clock.time())
            consumer.books.forgotten(marker.key, marker.last, held)
            consumer.coalescer.settle(marker.key)
            consumer.dirty()
            consumer.account.wake()
