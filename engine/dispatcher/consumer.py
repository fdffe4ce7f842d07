"""One destination reading the journal: what it has read and merged, what it leases, and what became of it.

Everything here is decided without an await; attempts.py does the waiting.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from engine.core.backoff import Backoff
from engine.core.batcher import Batcher
from engine.core.breaker import Breaker
from engine.core.coalescer import Coalescer
from engine.core.fold import EMPTY, Merge, events_of
from engine.core.handover import Policy
from engine.core.lanes import LaneChooser
from engine.dispatcher import attempts
from engine.dispatcher.account import Account, AccountPermit
from engine.dispatcher.books import Books, Tracker, copy_to_store
from engine.metrics import DestinationMetrics
from engine.model import NOTHING, Append, Event, Held, HeldKind, Kind, Lane, Outcome, Profile
from engine.ports import Clock, ConsumerState, Destination, State, Transition

READ_AHEAD_EVENTS = 100_000
"""`read_to` is raised in steps of this many offsets before they are read (DESIGN §4, Recovery)."""

STRAGGLER_SPAN_EVENTS = 100_000
STRAGGLERS = 10_000
STRAGGLERS_EVERY_SECONDS = 1.0
"""Profiles that hold back so many events are copied to the state file, if they are no more than this."""

FORGETS_REMEMBERED = 100_000
"""How many forgets are remembered after they were carried out, for replays that were on their way meanwhile."""

BACKFILL_SHARE = 0.8
"""Backfill fills at most this part of a share; beyond it profiles are held on disk, so that reading never stops."""


class ConsumerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one destination; durations in seconds."""

    sources: frozenset[str] | None = None  # None: all
    handover: Policy = Policy()
    dry_run: bool = False
    suppress: bool = True
    suppress_ttl_seconds: float = 86_400.0
    max_attempts: int = 12
    max_age_seconds: float = 0.0
    unknown_hold_seconds: float = 2.0
    max_profiles: int = 1_000_000  # its share of the buffer
    max_bytes: int = 1_073_741_824


class Eraser(Protocol):
    """Whoever empties the journal of forgotten keys (`pipeline.eraser`)."""

    def want(self, key: bytes, below: int, /) -> None: ...

    def is_erased(self, key: bytes, below: int, /) -> bool: ...


class _NothingToErase:
    def want(self, key: bytes, below: int, /) -> None:
        """There is no journal to erase from."""

    def is_erased(self, key: bytes, below: int, /) -> bool:
        return True


class Consumer:
    """See the module's docstring. `letters_full` tells whether one more dead letter would be too many."""

    def __init__(
        self,
        state: ConsumerState,
        destination: Destination,
        account: Account,
        store: State,
        *,
        policy: ConsumerPolicy,
        batcher: Batcher,
        breaker: Breaker,
        backoff: Backoff,
        merge: Merge,
        clock: Clock,
        random: random.Random,
        metrics: DestinationMetrics,
        dirty: Callable[[], None],
        letters_full: Callable[[], bool] = lambda: False,
        weight: int = 1,
    ) -> None:
        self.name, self.weight, self.identity = state.name, weight, state.identity
        self.destination, self.account, self.store = destination, account, store
        self.policy, self.batcher, self.breaker, self.backoff = policy, batcher, breaker, backoff
        self.merge, self.clock, self.random, self.metrics = merge, clock, random, metrics
        self.dirty, self.letters_full = dirty, letters_full
        self.eraser: Eraser = _NothingToErase()
        self.books = Books(state, metrics)
        self.coalescer = Coalescer(merge)
        self.lanes = LaneChooser()
        self.position = state.watermark
        self.watermark = state.watermark  # the durable one
        self.read_to = state.read_to  # the durable one
        self.recovery_end = state.read_to
        self.recovering = True
        self.was_clean = state.clean
        self.paused = state.paused
        self.halves: deque[list[Profile]] = deque()  # of batches that have to be split: still leased
        self.unknown = 0  # profiles whose attempt may still be travelling
        self.uncounted: list[bytes] = []  # attempts since the last success, given back if the breaker opens
        self._started_at = clock.time()
        self._still_since: float | None = None
        self._still_total = 0.0
        self._read_to_asked = state.read_to
        self._stragglers_at = float("-inf")
        self._forgets: OrderedDict[bytes, int] = OrderedDict()  # key -> offset of its newest forget that was read

    def __repr__(self) -> str:
        return f"<Consumer {self.name} {self.coalescer!r} watermark {self.watermark} position {self.position}>"

    # -- reading --------------------------------------------------------------------------------------------------

    def has_room(self, events: int = 1) -> bool:
        """May it take in so many more events? Recovery may always."""
        coalescer, policy = self.coalescer, self.policy
        return self.recovering or (
            len(coalescer) + events <= policy.max_profiles and coalescer.bytes < policy.max_bytes
        )

    def take(self, append: Append, tracker: Tracker | None, accounted: Mapping[bytes, int] | None = None) -> None:
        """Take in an append at `position`. `accounted` (recovery): what is settled or held already, by key."""
        assert append.first == self.position, "offsets only grow, without a gap"
        end = append.first + len(append.events)
        # Control events (no source) are judged one by one.
        if append.source and self.policy.sources is not None and append.source not in self.policy.sources:
            self.books.skip(append.first, end)
            if tracker is not None:
                tracker.skip(self.name, len(append.events))
        else:
            self._take_events(append, tracker, accounted)
        self.position = end
        self._ask_to_read_on()

    def _take_events(self, append: Append, tracker: Tracker | None, accounted: Mapping[bytes, int] | None) -> None:
        add, lane, at, offset = self.coalescer.add, append.lane, append.accepted_at, append.first - 1
        certain, still = not self.recovering, self.still_seconds()
        for event in append.events:
            offset += 1
            settled = accounted is not None and accounted.get(event.key, NOTHING) >= offset
            if event.kind == Kind.PROFILE:
                if not settled:
                    add(event, offset, lane, at, certain=certain, still_seconds=still, tracker=tracker)
            elif event.kind == Kind.REPLAY and event.destination == self.name:
                if not settled:
                    event = self._unless_forgotten(event, offset)
                    self.coalescer.add_replay(event, offset, at, certain=certain, tracker=tracker)
            else:
                self._skip(offset, tracker)
                if event.kind == Kind.FORGET:
                    self._forget(event.key, offset, at, settled)

    def _skip(self, offset: int, tracker: Tracker | None) -> None:
        """A control event, or another destination's replay: its offset counts for nobody here."""
        self.books.skip(offset, offset + 1)
        if tracker is not None:
            tracker.skip(self.name, 1)

    def _forget(self, key: bytes, offset: int, at: float, settled: bool) -> None:
        self._forgets[key] = offset
        self._forgets.move_to_end(key)
        if len(self._forgets) > FORGETS_REMEMBERED:
            self._forgets.popitem(last=False)
        if not settled:
            self.eraser.want(key, offset)
            self.coalescer.forget(key, offset, at)
            self.dirty()

    def _unless_forgotten(self, event: Event, offset: int) -> Event:
        """A dead letter can be replayed after its key's forget was accepted and before that is carried out: what it
        holds is from below the forget, which overtakes it."""
        if event.through > self._forgets.get(event.key, NOTHING):
            return event
        self.eraser.want(event.key, offset + 1)
        return msgspec.structs.replace(event, content=EMPTY, traits=0, audiences=None)

    def announce(self) -> None:
        """Before anything is read or sent: how far it may be read, and that attempts may be under way from now on."""
        self.books.open.clean = False
        self._ask_to_read_on()

    def _ask_to_read_on(self) -> None:
        if self.position + READ_AHEAD_EVENTS // 2 > self._read_to_asked:
            self._read_to_asked = max(self.position, self._read_to_asked) + READ_AHEAD_EVENTS
            self.books.open.read_to = self._read_to_asked
            self.dirty()

    # -- what may leave -------------------------------------------------------------------------------------------

    def may_send(self) -> bool:
        return not self.paused and not self.recovering and self.breaker.state != "open"

    def due(self, now: float) -> bool:
        """See `account.Sender`."""
        if self.paused or self.recovering:
            return False
        self.coalescer.wake(now)
        if not self.halves and not self._cut(now):
            return False
        return self.breaker.may_send(now)

    def due_at(self, now: float) -> float | None:
        if self.paused or self.recovering:
            return None
        if not self.breaker.may_send(now):
            return self.breaker.next_probe_at
        wakes = self.coalescer.wakes_at()
        since = self._oldest_since(now)
        lingers = None if since is None else self.batcher.due_at(since)
        times = [at for at in (wakes, lingers) if at is not None]
        return min(times) if times else None

    def _cut(self, now: float) -> object:
        ready = self.coalescer.ready
        if not ready:
            return None
        return self.batcher.due(
            now,
            waiting=ready,
            bytes_waiting=self.coalescer.content_bytes,
            oldest_waiting_since=self._oldest_since(now),
        )

    def _oldest_since(self, now: float) -> float | None:
        """Since when (monotonic) the oldest profile that may go has waited."""
        oldest = self.coalescer.oldest_ready_at()
        return None if oldest is None else now - max(0.0, self.clock.time() - oldest)

    def lease(self, limit: int) -> list[Profile]:
        """Take up to `limit` profiles, oldest first, lane by lane as their shares allow."""
        taken: list[Profile] = []
        coalescer, fits = self.coalescer, self.batcher.fits
        size, only = 0, coalescer.only_ready_lane()
        while len(taken) < limit:
            lane = self.lanes.next(coalescer.ready_in) if only is None else only
            head = coalescer.head(lane) if lane is not None else None
            if head is None or not fits(len(taken), size, len(head.content)):
                break
            coalescer.lease(head)
            taken.append(head)
            size += len(head.content)
        return taken

    def lease_next(self) -> attempts.Leased | None:
        """See `account.Sender`."""
        if self.halves:
            return attempts.Leased(self.halves.popleft(), again=True)
        profiles = self.lease(self.destination.profiles_per_request)
        return attempts.Leased(profiles) if profiles else None

    async def attempt(self, permit: AccountPermit, leased: attempts.Leased) -> None:
        """See `account.Sender`."""
        await attempts.run(self, permit, leased)

    def expire(self, below: int) -> None:
        """Give up what has waited longest: every waiting profile with an event below this offset. Kept as dead letters
        of that class while there is room for them."""
        if self.recovering:
            return
        for profile in self.coalescer.stragglers(below, len(self.coalescer)):
            self.coalescer.take_out(profile)
            at = self.clock.time()
            if self.letters_full():
                self.books.settle(profile, Outcome.EXPIRED, "journal_full", at=at)
            else:
                self.books.bury(profile, HeldKind.EXPIRED, "journal_full", "", at=at)
        self.dirty()

    # -- standing still: age does not run --------------------------------------------------------------------------

    def still_seconds(self) -> float:
        """For how long, in all, nothing could be sent: paused, or a breaker open."""
        since = self._still_since
        return self._still_total + (0.0 if since is None else self.clock.monotonic() - since)

    def note_still(self) -> None:
        """To be called when pause or breaker may have changed."""
        still = self.paused or self.breaker.state != "closed" or self.account.breaker.state != "closed"
        now = self.clock.monotonic()
        if still and self._still_since is None:
            self._still_since = now
        elif not still and self._still_since is not None:
            self._still_total += now - self._still_since
            self._still_since = None

    def too_old(self, profile: Profile) -> bool:
        limit = self.policy.max_age_seconds
        if not limit:
            return False
        stood_still = self.still_seconds() - profile.still_seconds
        return self.clock.time() - profile.oldest_at - stood_still > limit

    # -- held profiles --------------------------------------------------------------------------------------------

    async def hold_stragglers(self) -> None:
        """Copy the few profiles that keep the watermark far back to the state file."""
        now = self.clock.monotonic()
        if now < self._stragglers_at + STRAGGLERS_EVERY_SECONDS:
            return
        if self.position - self.coalescer.watermark(self.position) > STRAGGLER_SPAN_EVENTS:
            self._stragglers_at = now
            await self._hold(self.coalescer.stragglers(self.position - STRAGGLER_SPAN_EVENTS, STRAGGLERS))

    async def _hold(self, profiles: Sequence[Profile]) -> None:
        """Copy waiting profiles to the state file. A copy replaces the key's earlier one, so what is on disk of the key
        is folded in first."""
        if not profiles:
            return
        keys = [profile.key for profile in profiles]
        known = self.books.overlay(keys, await self.store.keys(self.name, keys))
        for profile in profiles:
            if not self.coalescer.may_be_held(profile):
                continue
            stored = known.get(profile.key)
            if stored is not None and stored.held is not None:
                self._absorb(profile, stored.held)
            self.books.open.hold.append(Held(HeldKind.WAITING, copy_to_store(profile), self.clock.time()))
            self.coalescer.holding(profile)
        self.dirty()

    def _absorb(self, profile: Profile, held: Held) -> None:
        gained = self.coalescer.absorb(profile, held)
        if gained:
            self.joined(profile, held, gained)

    def joined(self, profile: Profile, held: Held, gained: int) -> None:
        """A profile in memory has taken in what was held on disk of its key."""
        self.books.held_events -= gained
        self.books.held_profiles -= 1
        profile.certain = profile.certain and self.is_of_this_process(held)

    def backfill_over(self) -> int:
        """How many backfill profiles are too many in memory."""
        ready = self.coalescer.ready_in(Lane.BACKFILL)
        room = int(self.policy.max_profiles * BACKFILL_SHARE)
        return max(0, min(ready, len(self.coalescer) - room))

    async def evict(self, limit: int = 5_000) -> None:
        """Hold the backfill profiles that would leave last; they leave memory once their copies are durable."""
        await self._hold(self.coalescer.evictable(min(limit, self.backfill_over())))

    def made_durable(self, held: Held) -> None:
        """The settler's word that a WAITING copy is on disk."""
        key, last = held.profile.key, held.profile.last
        self.coalescer.held(key, last)
        if held.profile.lane != Lane.BACKFILL or not self.backfill_over():
            return
        gone = self.coalescer.unload(key, last)
        if gone is not None:
            self.books.held_events += events_of(gone)
            self.books.held_profiles += 1
            for tracker, _ in gone.receipts or ():
                tracker.lose()  # type: ignore[attr-defined]

    def load(self, held: Held) -> None:
        """Take a profile from disk back in, unless its key is here: then hand-over joins the two."""
        profile = held.profile
        profile.certain = profile.certain and self.is_of_this_process(held)
        if profile.last > self._settled_lately(profile.key) and self.coalescer.load(profile):
            self.books.held_events -= events_of(profile)
            self.books.held_profiles -= 1

    def is_of_this_process(self, held: Held | None) -> bool:
        """A copy made by a predecessor may have been sent since: nothing is certain about it."""
        return held is not None and held.at >= self._started_at

    def _settled_lately(self, key: bytes) -> int:
        entry = self.books.recent.get(key)
        return NOTHING if entry is None else entry.settled_through

    # -- settling -------------------------------------------------------------------------------------------------

    async def erase_forgotten(self) -> None:
        """Carry out the forgets that are due: what is stored of their keys goes with the next transaction."""
        while (marker := self.coalescer.next_marker(self.eraser.is_erased)) is not None:
            # Not overlaid: what waited when the forget came is settled, but it had not taken in what is on disk.
            stored = (await self.store.keys(self.name, [marker.key])).get(marker.key)
            held = stored.held if stored is not None else None
            if held is not None and held.profile.last <= max(marker.held_through, self.books.dropped(marker.key)):
                held = None
            if marker.events:
                waiting = msgspec.structs.replace(marker, last=marker.through)
                self.books.settle(waiting, Outcome.EXCLUDED, "forgotten", at=self.clock.time())
            self.books.forgotten(marker.key, marker.last, held)
            self.coalescer.settle(marker.key)
            self.dirty()
            self.account.wake()

    def durable(self, transition: Transition) -> None:
        """The settler's word that this is on disk."""
        self.books.durable(transition)
        if transition.watermark is not None:
            self.watermark = transition.watermark
        if transition.read_to is not None:
            assert transition.read_to >= self.position, "nothing is read before it was announced"
            self.read_to = transition.read_to

    # -- control --------------------------------------------------------------------------------------------------

    def set_paused(self, paused: bool) -> None:
        self.paused = paused
        self.books.open.paused = paused
        self.note_still()
        self.dirty()
        self.account.wake()

    def pending(self, journal_next: int) -> int:
        """Events accepted for it that have no outcome yet."""
        return (journal_next - self.position) + self.coalescer.events + self.books.held_events

    def oldest_pending_at(self) -> float | None:
        """Epoch seconds at which the oldest event in memory was accepted."""
        leased = [profile.oldest_at for profile in self.coalescer.leased_profiles() if profile.events]
        heads = [head.oldest_at for lane in Lane if (head := self.coalescer.head(lane)) is not None]
        return min(leased + heads, default=None)

    def accepted(self, journal_next: int) -> int:
        return journal_next - self.books.start - self.books.not_addressed

    def residual(self, journal_next: int) -> int:
        """accepted - outcomes - pending: 0, or there is a bug. While recovering, what is accounted for is not read
        yet, so nothing can be said."""
        if self.recovering:
            return 0
        outcomes = sum(self.books.counts.values())
        return self.accepted(journal_next) - outcomes - self.pending(journal_next)
