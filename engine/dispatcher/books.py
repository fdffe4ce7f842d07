"""What one consumer has to write down, and the sums that must come out even.

`open` gathers a transition until the settler takes it away to the state file. Counts in memory run ahead of the
durable ones by exactly what `open` and the transition on its way hold.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence, Set

from engine.core.audit import outcomes_of
from engine.core.codec import newer_entry, pack_audiences, pack_consents
from engine.core.fold import copy_to_store, events_of
from engine.dispatcher import fates
from engine.dispatcher.following import Following, Notices
from engine.dispatcher.recent import Recent
from engine.metrics import DestinationMetrics
from engine.model import NOTHING, Held, HeldKind, LedgerEntry, LetterState, Outcome, Profile
from engine.ports import ConsumerState, KeyState, State, Transition

MOST_REASONS = 100
"""Reasons that are counted apart. Some hold a code that a destination answered, so that nothing else bounds them."""


_DELIVERED, _SUPERSEDED = str(Outcome.DELIVERED), str(Outcome.SUPERSEDED)
"""Plain texts: an enum's member takes ten times as long to be found in a dict."""


class Books:
    """The open transition and the running counts of one consumer."""

    def __init__(self, state: ConsumerState, metrics: DestinationMetrics, *, activated: Set[str] | None = None) -> None:
        self.name = state.name
        self._activated = activated  # its audiences; None: all
        self.start = state.start
        self.counts = Counter(state.counts)
        self.held_events = state.held_events  # in WAITING held profiles that are not in memory
        self.held_profiles = state.held_profiles
        self.letters = state.letters
        self.open = Transition(state.name)
        self.metrics = metrics
        self.keeps_verdicts: Callable[[], bool] = lambda: True  # see `ports.State`
        self.remembers_consents = self.remembers_audiences = False  # where what leaves may depend on them
        self.metrics.seed(self.counts)
        self._skipped_below, self._skipped_above = state.not_addressed, 0
        self._skips: deque[tuple[int, int]] = deque()  # [first, end) at or above the durable watermark
        self._following = Following()
        self._deliveries = fates.Deliveries(activated)
        self.recent = Recent()

    # -- outcomes -------------------------------------------------------------------------------------------------

    def settle(
        self,
        profile: Profile,
        outcome: Outcome,
        reason: str = "",
        *,
        at: float,
        confirmed: bool = False,
        digest: bytes = b"",
        attendee_id: str = "",
        in_ledger: bool = True,
    ) -> None:
        """The events of this profile have their outcome: the newest one this, the others merged into it. Whatever that
        is: what an earlier attempt may have brought there counts as known to be there, so that no replay of something
        older overwrites it."""
        self._count_profile(profile, f"{outcome}:{reason}" if reason else outcome)
        if profile.passed:
            self._overtaken(profile)
        through = profile.through if confirmed or not profile.certain else NOTHING
        if in_ledger:
            entry = LedgerEntry(profile.key, outcome, reason, profile.last, through, digest, at, attendee_id)
            self._write(self._with_what_was_said(entry, profile))
        else:
            self.open.accounted.append((profile.key, profile.last))
        self._drop(profile)
        self._following.settled(profile, str(outcome))

    def deliver_all(
        self, profiles: Sequence[Profile], digests: Sequence[bytes], attendee_ids: Sequence[str], at: float
    ) -> None:
        """As `settle` with DELIVERED and confirmed, for the profiles of one batch, counted together."""
        if self._only_for_recovery(profiles):
            self.open.accounted += [(profile.key, profile.last) for profile in profiles]
        else:
            self._write_all(profiles, digests, attendee_ids, at)
        events = sum([profile.events for profile in profiles])
        for profile in [one for one in profiles if one.held_through != NOTHING or one.passed or one.under]:
            if profile.passed:
                self._overtaken(profile)
            self._drop(profile)
            events += len(profile.under or ())
        for profile in [one for one in profiles if one.audiences]:
            mine = profile.events + len(profile.under or ())
            self._deliveries.add(self.open, profile.audiences or {}, mine)
        self._following.delivered(profiles)
        self._count(_DELIVERED, len(profiles))
        if events > len(profiles):
            self._count(_SUPERSEDED, events - len(profiles))
        self._deliveries.close(self.open, events)

    def _only_for_recovery(self, profiles: Sequence[Profile]) -> bool:
        """Will nobody ask what became of these? What is on disk of a profile, or was, has to be known to be done with
        until that is durable, and what was said in it where that may be remembered; a dead letter's replay asks."""
        if self.keeps_verdicts() or self.letters or self.remembers_consents or self.remembers_audiences:
            return False
        return not [True for one in profiles if one.held_through != NOTHING or one.passed or one.under]

    def _write_all(
        self, profiles: Sequence[Profile], digests: Sequence[bytes], attendee_ids: Sequence[str], at: float
    ) -> None:
        entries = [
            LedgerEntry(profile.key, _DELIVERED, "", profile.last, profile.through, digest, at, attendee_id)
            for profile, digest, attendee_id in zip(profiles, digests, attendee_ids, strict=True)
        ]
        if self.remembers_consents or self.remembers_audiences:
            for entry, profile in zip(entries, profiles, strict=True):
                self._with_what_was_said(entry, profile)
        self.open.verdicts += entries
        self.recent.note_all(entries)

    def _drop(self, profile: Profile) -> None:
        """What is on disk of it is done with."""
        if profile.held_through != NOTHING:
            self._unhold(profile.key)
            self.open.drop.append((profile.key, profile.last))

    def dropped(self, key: bytes) -> int:
        """Through which offset a copy on disk of this key is settled or forgotten by the open transition."""
        gone = [*self.open.drop, *self.open.forget]
        return max((through for other, through in gone if other == key), default=NOTHING)

    def _unhold(self, key: bytes) -> None:
        """A copy that was to be held in this very transition has become pointless."""
        if self.open.hold:
            self.open.hold = [
                held for held in self.open.hold if held.kind != HeldKind.WAITING or held.profile.key != key
            ]

    def _overtaken(self, profile: Profile) -> None:
        """Replayed dead letters that found a newer state confirmed: their events are excluded, the letters say why."""
        for part in profile.passed or ():
            name = self._count(f"{Outcome.EXCLUDED}:overtaken", 1)
            fates.count(self.open, part, name, 1, self._activated)
            self.open.letters.append((part.letter, LetterState.OVERTAKEN))
            self._following.settled(part, str(Outcome.EXCLUDED))

    def settle_nothing(self, profile: Profile, at: float) -> None:
        """Every replay in it was overtaken and nothing else was waiting."""
        self._overtaken(profile)
        self._drop(profile)
        self._write(LedgerEntry(profile.key, Outcome.EXCLUDED, "overtaken", profile.last, NOTHING, b"", at))

    def _with_what_was_said(self, entry: LedgerEntry, profile: Profile) -> LedgerEntry:
        """Of consents and audiences it outlives the events that said it, whatever became of them."""
        if self.remembers_consents:
            entry.consents = pack_consents(profile.consents)
        if self.remembers_audiences and profile.audiences:
            entry.audiences = pack_audiences({**(profile.standing or {}), **profile.audiences})
        return entry

    def _write(self, entry: LedgerEntry) -> None:
        self.open.verdicts.append(entry)
        self.recent.note(entry)

    def changed(self, key: bytes, attendee_id: str, *, at: float) -> None:
        """Somebody has changed this attendee there: no digest is certain any more, and the id may be new."""
        change = LedgerEntry(key, "", "", NOTHING, NOTHING, b"", at, attendee_id)
        self._write(newer_entry(self.recent.get(key), change))

    def bury(self, profile: Profile, kind: HeldKind, reason: str, excerpt: str, *, at: float) -> None:
        """Dead-letter it (or let it expire): outcome and letter in one transaction."""
        letter = copy_to_store(profile)
        self.open.hold.append(Held(kind, letter, at, reason, excerpt))
        self.letters += 1
        outcome = Outcome.DEAD_LETTERED if kind == HeldKind.DEAD else Outcome.EXPIRED
        self.settle(profile, outcome, reason, at=at)

    def forgotten(self, key: bytes, offset: int, held: Held | None) -> None:
        """Erase what is stored of a key. `held`: its profile on disk, if that is in nobody's memory: its events are
        excluded now."""
        self._unhold(key)
        letters = [held for held in self.open.hold if held.profile.key == key]  # a forget goes first in a transaction
        self.open.hold = [held for held in self.open.hold if held.profile.key != key]
        self.letters -= len(letters)
        self.open.verdicts = [entry for entry in self.open.verdicts if entry.key != key]
        self.open.forget.append((key, offset))
        self.recent.forget(key, offset)
        if held is not None:
            self._count_profile(held.profile, f"{Outcome.EXCLUDED}:forgotten", passed=len(held.profile.passed or ()))
            self.held_events -= events_of(held.profile)
            self.held_profiles -= 1

    def recount_letters(self, kept: int) -> None:
        """Letters were deleted. `kept`: how many are on disk, while the settler has nothing in hand."""
        buried = sum(held.kind != HeldKind.WAITING for held in self.open.hold)
        replayed = sum(state == LetterState.REPLAYED for _, state in self.open.letters)
        self.letters = kept + buried - replayed

    def _count_profile(self, profile: Profile, name: str, *, passed: int = 0) -> None:
        """The newest event under this name, the others as merged into it; what became of it became of all."""
        events = profile.events + len(profile.under or ()) + passed
        name = self._count(name, 1)
        if events > 1:
            self._count(_SUPERSEDED, events - 1)
        fates.count(self.open, profile, name, events, self._activated)

    def _count(self, name: str, events: int) -> str:
        """Returns the name it is counted under."""
        if name not in self.counts and len(self.counts) >= MOST_REASONS and ":" in name:
            name = f"{name.partition(':')[0]}:other"
        self.counts[name] += events
        self.open.counts[name] = self.open.counts.get(name, 0) + events
        self.metrics.count(name, events)
        return name

    # -- offsets that are not for this consumer -------------------------------------------------------------------

    def skip(self, first: int, end: int) -> None:
        """Offsets in [first, end) do not concern this consumer. Made durable as the watermark passes them."""
        self._skipped_above += end - first
        if self._skips and self._skips[-1][1] == first:
            first = self._skips.pop()[0]
        self._skips.append((first, end))

    @property
    def not_addressed(self) -> int:
        return self._skipped_below + self._skipped_above

    def advance(self, watermark: int) -> None:
        """The watermark to be made durable with the open transition, and the skipped offsets below it."""
        while self._skips and self._skips[0][0] < watermark:
            first, end = self._skips.popleft()
            passed = min(end, watermark)
            self._skipped_below += passed - first
            self._skipped_above -= passed - first
            if passed < end:
                self._skips.appendleft((passed, end))
        self.open.watermark = watermark
        self.open.not_addressed = self._skipped_below

    # -- handing over to the settler ------------------------------------------------------------------------------

    @property
    def verdicts_open(self) -> int:
        return len(self.open.verdicts) + len(self.open.accounted) + len(self.open.hold)

    def take(self) -> tuple[Transition, Notices]:
        """The transition to write now, and who is to be told once it is durable."""
        transition, notices = self.open, self._following.take()
        self.open = Transition(self.name)
        self.recent.taken()
        return transition, notices

    def durable(self) -> None:
        """What was taken is on disk."""
        self.recent.durable()

    async def look_up(self, store: State, keys: Sequence[bytes]) -> dict[bytes, KeyState]:
        """What is stored of these keys, brought up to date with the verdicts that the state file does not know yet."""
        return await self.recent.look_up(store, self.name, keys)

    def durable_counts(self) -> dict[str, int]:
        """What is on disk by its own account, while the settler has nothing in hand."""
        return {name: events - self.open.counts.get(name, 0) for name, events in self.counts.items()}

    def sums(self) -> dict[str, int]:
        """Events by outcome, reasons added up."""
        return outcomes_of(self.counts)
