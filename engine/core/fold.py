"""The fold of promise 2: what two states of one attendee become together.

Per field, and per consent, the last event that carries it wins, an absent one is unchanged; per audience the newest
qualification wins, a tie goes to the later offset. Sources with order = "timestamp" compare event times field by field,
among what is waiting. How two contents are joined is handed in (`Merge`), since it is the profiles' room that knows the
fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from engine.core.receipts import listed
from engine.model import NOTHING, Consent, Event, Held, Lane, Membership, Profile, Trait

Merge = Callable[[bytes, bytes], tuple[bytes, int]]
"""(older content, newer content) -> (content, traits); the newer one's fields win."""

EMPTY = b"{}"

_ERASED = int(Trait.ERASED)  # a plain number: IntFlags are slow to join

_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def stamps_of(content: bytes, timestamp: float | None) -> dict[str, float] | None:
    """Every field of the content under the event's time, for sources that go by it."""
    return None if timestamp is None else dict.fromkeys(_raw_fields.decode(content), timestamp)


def fold_audiences(
    older: dict[str, Membership] | None, newer: dict[str, Membership] | None
) -> dict[str, Membership] | None:
    """Per audience the newest qualification; on a tie the newer event's."""
    if not older or not newer:
        return newer or older
    folded = dict(older)
    for audience, membership in newer.items():
        known = folded.get(audience)
        if known is None or membership.qualified_at >= known.qualified_at:
            folded[audience] = membership
        if known is not None and known.name != membership.name:
            folded[audience] = _named(folded[audience], membership.name or known.name)
    return folded


def _named(membership: Membership, name: str) -> Membership:
    """An audience keeps the name that it was given last, also where a later event does not repeat it."""
    return Membership(membership.realized, membership.qualified_at, name)


def fold_consents(older: dict[str, Consent] | None, newer: dict[str, Consent] | None) -> dict[str, Consent] | None:
    """Per path what was stated last; event times decide where both have one. A path that is not stated is unchanged."""
    if not older or not newer:
        return newer or older
    folded = dict(older)
    for path, consent in newer.items():
        known = folded.get(path)
        if known is None or known.at is None or consent.at is None or consent.at >= known.at:
            folded[path] = consent
    return folded


def profile_of(
    event: Event, offset: int, lane: Lane, accepted_at: float, certain: bool, still_seconds: float, tracker: object
) -> Profile:
    """A profile of this one event."""
    return profiles_of((event,), offset, lane, accepted_at, certain, still_seconds, tracker)[0]


def profiles_of(
    events: Sequence[Event],
    first: int,
    lane: Lane,
    accepted_at: float,
    certain: bool,
    still_seconds: float,
    tracker: object,
) -> list[Profile]:
    """A profile of each of these events, of which the first one is at the offset `first`."""
    return [
        Profile(
            event.key,
            event.content,
            event.traits,
            lane,
            offset,
            offset,
            offset,
            1,
            accepted_at,
            event.audiences,
            None if event.timestamp is None else stamps_of(event.content, event.timestamp),
            certain,
            still_seconds,
            event.consents,
            tracker,
        )
        for offset, event in enumerate(events, first)
    ]


def add_event(profile: Profile, event: Event, offset: int, merge: Merge) -> None:
    """Fold one newer event into a waiting profile, in place. Which slot it came from stays the caller's business."""
    stamps = stamps_of(event.content, event.timestamp)
    _fold_content(profile, event.content, event.traits, stamps, merge)
    if event.audiences is not None:
        profile.audiences = fold_audiences(profile.audiences, event.audiences)
    if event.consents is not None:
        profile.consents = fold_consents(profile.consents, event.consents)
    profile.events += 1
    profile.through = profile.last = offset


def fold_under(newer: Profile, older: Profile, merge: Merge) -> None:
    """Fold `older` under `newer`, in place: the newer one's fields win, counts add up, the oldest event's time stays.

    `lowest` is not touched: which of the two holds the watermark is the coalescer's to know.
    """
    content, traits, stamps = newer.content, newer.traits, newer.stamps
    newer.content, newer.traits, newer.stamps = older.content, older.traits, older.stamps
    _fold_content(newer, content, traits, stamps, merge)
    newer.audiences = fold_audiences(older.audiences, newer.audiences)
    newer.consents = fold_consents(older.consents, newer.consents)
    if older.receipts is not None or newer.receipts is not None:
        newer.receipts = listed(older.receipts, older.last) + listed(newer.receipts, newer.last)
    newer.through = max(newer.through, older.through)
    newer.last = max(newer.last, older.last)
    newer.events += older.events
    if older.oldest_at <= newer.oldest_at:
        newer.oldest_at, newer.still_seconds = older.oldest_at, older.still_seconds
    newer.lane = min(newer.lane, older.lane)
    newer.certain = newer.certain and older.certain
    newer.held_through = max(newer.held_through, older.held_through)
    newer.attempts, newer.tries = max(newer.attempts, older.attempts), max(newer.tries, older.tries)
    newer.first_tried_at = older.first_tried_at or newer.first_tried_at
    newer.letter = newer.letter or older.letter
    newer.under = [*(older.under or ()), *(newer.under or ())] or None
    newer.passed = [*(older.passed or ()), *(newer.passed or ())] or None


def fold_held(profile: Profile, held: Held | None, merge: Merge) -> int:
    """Fold what is stored of the key under the leased profile, unless it is in there already; the events gained."""
    if held is None or held.profile.last <= profile.held_through:
        return 0
    older = held.profile
    events = events_of(older)
    fold_under(profile, older, merge)
    profile.held_through = older.last
    return events


def empty_into(marker: Profile, older: Profile, last_event: int) -> None:
    """The events of `older` end with the marker. Its lowest offset stays the watermark's."""
    marker.events += events_of(older)
    marker.through = max(marker.through, last_event)
    marker.held_through = max(marker.held_through, older.held_through)
    marker.lowest = min(low for low in (marker.lowest, older.lowest) if low != NOTHING)
    receipts = [
        receipt
        for part in [older, *(older.under or ()), *(older.passed or ())]
        for receipt in listed(part.receipts, part.last)
    ]
    marker.receipts = [*receipts, *listed(marker.receipts, marker.last)] or None


def _fold_content(profile: Profile, content: bytes, traits: int, stamps: dict[str, float] | None, merge: Merge) -> None:
    erased = (profile.traits | traits) & _ERASED  # of any part: the forget that did it is still to be read
    if profile.content == EMPTY:
        profile.content, profile.traits, profile.stamps = content, traits | erased, stamps
        return
    if profile.stamps is not None or stamps is not None:
        content = _winners(profile, content, stamps)
    if content != EMPTY:
        profile.content, profile.traits = merge(profile.content, content)
    profile.traits |= erased


def _winners(profile: Profile, content: bytes, stamps: dict[str, float] | None) -> bytes:
    """The fields of `content` that are not older than what the profile has; notes their times.

    A field without a time (it came from a source that goes by arrival) is as new as its arrival: it wins, and is
    beaten by whatever comes next.
    """
    known, times = profile.stamps or {}, stamps or {}
    fields = {
        name: raw
        for name, raw in _raw_fields.decode(content).items()
        if times.get(name, math.inf) >= known.get(name, -math.inf)
    }
    profile.stamps = {name: at for name, at in known.items() if name not in fields}
    profile.stamps.update((name, times[name]) for name in fields if name in times)
    return msgspec.json.encode(fields)


def events_of(profile: Profile) -> int:
    """Events merged into a profile, replays that are kept apart included."""
    return profile.events + len(profile.under or ()) + len(profile.passed or ())


def overtaken(part: Profile, confirmed_through: int) -> bool:
    """A replayed dead letter that a confirmed newer state has passed, or a forget (it was emptied):
    it must not be sent any more."""
    return part.content == EMPTY or confirmed_through > part.through


def copy_to_store(profile: Profile) -> Profile:
    """A copy that may be written down: nobody's receipts, nothing shared that still changes."""
    under = [copy_to_store(part) for part in profile.under] if profile.under else None
    passed = [copy_to_store(part) for part in profile.passed] if profile.passed else None
    return msgspec.structs.replace(profile, receipts=None, under=under, passed=passed, standing=None)
