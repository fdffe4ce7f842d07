"""One destination reading the journal: what it has read and merged, what it leases, and what became of it.

Everything here is decided without an await; attempts.py does the waiting.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from engine.core.backoff import Backoff
from engine.core.batcher import Batcher
from engine.core.breaker import Breaker
from engine.core.coalescer import Coalescer
from engine.core.fold import EMPTY, Merge
from engine.core.handover import Policy, depends_on_audiences
from engine.core.lanes import LaneChooser
from engine.dispatcher import attempts
from engine.dispatcher.account import Account, AccountPermit
from engine.dispatcher.blame import Blame
from engine.dispatcher.books import Books
from engine.dispatcher.changes import Changes
from engine.dispatcher.following import Tracker
from engine.dispatcher.holding import Holding
from engine.dispatcher.retries import Retries
from engine.dispatcher.standstill import Standstill
from engine.dispatcher.together import encoder_of
from engine.metrics import DestinationMetrics
from engine.model import NOTHING, Append, Event, Kind, Lane, Profile
from engine.ports import Clock, ConsumerState, Destination, State, Transition

logger = logging.getLogger("engine.dispatcher")

READ_AHEAD_EVENTS = 100_000
"""`read_to` is raised in steps of this many offsets before they are read (DESIGN §4, Recovery)."""

FORGETS_REMEMBERED = 100_000
"""How many forgets are remembered after they were carried out, for replays that were on their way meanwhile."""


class ConsumerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one destination; durations in seconds."""

    sources: frozenset[str] | None = None  # None: all
    takes: int = Kind.PROFILE  # the kind of events it delivers; the others are about it, or nothing to it
    every_event: bool = False  # nothing overtakes anything: what is handed in again is delivered, whatever came since
    handover: Policy = Policy()
    dry_run: bool = False
    suppress: bool = True
    suppress_ttl_seconds: float = 86_400.0
    max_attempts: int = 12
    max_age_seconds: float = 0.0
    unknown_hold_seconds: float = 2.0
    max_profiles: int = 1_000_000  # its share of the buffer
    max_bytes: int = 1_073_741_824
    patience_seconds: float = 0.0  # how long its limits let it go without a reply


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
        self.encode_all = encoder_of(destination)
        self.policy, self.batcher, self.breaker, self.backoff = policy, batcher, breaker, backoff
        self.merge, self.clock, self.random, self.metrics = merge, clock, random, metrics
        self.dirty, self.letters_full = dirty, letters_full
        self.books = Books(state, metrics, activated=policy.handover.audiences)
        self.books.keeps_verdicts = lambda: store.keeps_verdicts(state.name)
        self.books.remembers_consents = bool(policy.handover.consents)
        self.books.remembers_audiences = depends_on_audiences(policy.handover)
        self.coalescer = Coalescer(merge)
        self.changes = Changes(self.books, self.coalescer, clock)
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
        self.blame = Blame(self.coalescer)
        self.retries = Retries(account, clock)
        self.holding = Holding(self)
        self._standstill = Standstill(clock)
        self._read_to_asked = state.read_to
        self._trouble = "paused" if state.paused else ""
        self._forgets: OrderedDict[bytes, int] = OrderedDict()  # key -> offset of its newest forget that was read

    def __repr__(self) -> str:
        return f"<Consumer {self.name} {self.coalescer!r} watermark {self.watermark} position {self.position}>"

    # -- reading --------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more events it may take in: each may be about another profile. Recovery does not ask."""
        coalescer, policy = self.coalescer, self.policy
        return max(0, policy.max_profiles - len(coalescer)) if coalescer.bytes < policy.max_bytes else 0

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
        add, lane, at, takes, taken = self.coalescer.add_all, append.lane, append.accepted_at, int(self.policy.takes), 0
        certain, still = not self.recovering, self.still_seconds()
        if not accounted or accounted.keys().isdisjoint([event.key for event in append.events]):
            taken = add(
                append.events, append.first, lane, at, takes, certain=certain, still_seconds=still, tracker=tracker
            )
        offset = append.first + taken - 1
        for event in append.events[taken:]:
            offset += 1
            settled = accounted is not None and accounted.get(event.key, NOTHING) >= offset
            if event.kind == takes:
                if not settled:
                    add((event,), offset, lane, at, takes, certain=certain, still_seconds=still, tracker=tracker)
            elif event.kind == Kind.REPLAY and event.destination == self.name:
                if not settled:
                    event = self._unless_forgotten(event)
                    self.coalescer.add_replay(event, offset, at, certain=certain, tracker=tracker)
            else:
                self._skip(offset, tracker)
                if event.kind == Kind.FORGET:
                    self._forget(event.key, offset, at, settled)
                elif event.kind == Kind.CHANGE and not settled and self.changes.read(event):
                    self.dirty()

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
            self.holding.eraser.want(key, offset)
            self.coalescer.forget(key, offset, at)
            self.dirty()

    def is_forgotten(self, key: bytes, through: int) -> bool:
        """Has a forget been read that concerns what was merged through this offset?"""
        return through <= self._forgets.get(key, NOTHING)

    def has_forgotten(self, key: bytes, offset: int) -> bool:
        """Has the forget at this offset been carried out? What is leased of the key from before it, the marker that
        stands for it included, is not done with."""
        leased = self.coalescer.find(key)[1]
        return self.position > offset and (leased is None or leased.last > offset)

    def is_withdrawn(self, key: bytes) -> bool:
        """Must what is leased of this key not go into another request? A forget, or a word about consent that has still
        to be judged, came behind it."""
        waiting = self.coalescer.find(key)[0]
        judges = bool(self.policy.handover.consents)
        return self.coalescer.is_forgotten(key) or (judges and waiting is not None and waiting.consents is not None)

    def erase_if_forgotten(self, key: bytes, through: int) -> bool:
        """A dead letter can be replayed after its key's forget was accepted and before that is carried out: what it
        holds is from below the forget, which overtakes it."""
        if not self.is_forgotten(key, through):
            return False
        self.holding.eraser.want_again(key, self._forgets[key])
        return True

    def _unless_forgotten(self, event: Event) -> Event:
        if not self.erase_if_forgotten(event.key, event.through):
            return event
        return msgspec.structs.replace(event, content=EMPTY, traits=0, audiences=None, consents=None)

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

    def _cut(self, now: float) -> bool:
        """Is there a batch that need not wait any longer?"""
        coalescer, batcher = self.coalescer, self.batcher
        ready = coalescer.ready
        if not ready:
            return False
        if batcher.is_full(ready, coalescer.content_bytes):
            return True
        since = self._oldest_since(now)
        return since is not None and now >= batcher.due_at(since)

    def _oldest_since(self, now: float) -> float | None:
        """Since when (monotonic) the oldest profile that may go has waited. One of the future is from before the wall
        clock was set back, so nobody knows: then it has waited long enough."""
        oldest = self.coalescer.oldest_ready_at()
        if oldest is None:
            return None
        waited = self.clock.time() - oldest
        return now - waited if waited >= 0 else float("-inf")

    def lease(self, limit: int) -> list[Profile]:
        """Take up to `limit` profiles, oldest first, lane by lane as their shares allow; for a probe, the one that
        failed least: what fails on its own account must not answer for all."""
        if self.breaker.state != "closed":
            return self.coalescer.lease_least_tried()
        taken: list[Profile] = []
        coalescer, fits, fresh_first = self.coalescer, self.batcher.fits, self.retries.have_their_share()
        only = coalescer.only_ready_lane()
        if only is not None:
            most = min(limit, self.batcher.max_profiles)
            return coalescer.lease_oldest(only, most, self.batcher.max_bytes, fresh_first=fresh_first)
        size = 0
        while len(taken) < limit:
            lane = self.lanes.next(coalescer.ready_in)
            head = coalescer.head(lane, fresh_first=fresh_first) if lane is not None else None
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

    def attempt(self, permit: AccountPermit, leased: attempts.Leased) -> Awaitable[None]:
        """See `account.Sender`."""
        return attempts.run(self, permit, leased)

    def trouble(self) -> str:
        """Why nothing is sent: paused, or a breaker that is not closed; "" while all is well."""
        if self.paused:
            return "paused"
        breakers = (self.account.breaker, self.breaker)
        return next((breaker.reason or "failing" for breaker in breakers if breaker.state != "closed"), "")

    def should_progress(self) -> bool:
        """Is there work for the dispatcher, and nothing known that holds it up? Profiles that back off, and those whose
        attempt may still be travelling, wait for a reason."""
        coalescer, now = self.coalescer, self.clock.monotonic()
        if self.paused or self.recovering or not self.breaker.may_send(now) or self.account.held_up(now):
            return False
        wakes_at = coalescer.wakes_at()
        in_hand = coalescer.leased - coalescer.forgets_due - self.unknown
        return coalescer.ready > 0 or in_hand > 0 or (wakes_at is not None and wakes_at <= now)

    # -- standing still: age does not run --------------------------------------------------------------------------

    def still_seconds(self) -> float:
        """For how long, in all, nothing could be sent: paused, a breaker open, or no token."""
        return self._standstill.seconds()

    def note_still(self) -> None:
        """See `account.Sender`; also called when the pause or the own breaker may have changed."""
        still = self.paused or self.breaker.state != "closed" or self.account.still
        if not still and not self._trouble and not self._standstill.lasts:
            return
        trouble = self.trouble()
        if trouble != self._trouble:
            self._trouble = trouble
            logger.warning("destination %s: %s", self.name, trouble or "sending again")
        self._standstill.note(still)

    def too_old(self, profile: Profile) -> bool:
        limit = self.policy.max_age_seconds
        if not limit:
            return False
        stood_still = max(0.0, self.still_seconds() - profile.still_seconds)  # a predecessor's clock says nothing here
        return self.clock.time() - profile.oldest_at - stood_still > limit

    # -- settling -------------------------------------------------------------------------------------------------

    def durable(self, transition: Transition) -> None:
        """The settler's word that this is on disk."""
        self.books.durable()
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
