"""The fold of promise 2, against an oracle that keeps every event and works it out at the end."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.fold import add_event, events_of, fold_audiences, fold_held, fold_under, overtaken, stamps_of
from engine.model import NOTHING, Event, Held, HeldKind, Lane, Membership, Profile, Trait

KEY = bytes(32)
FIELDS = st.dictionaries(st.sampled_from(["city", "zip", "phone"]), st.integers(0, 99))
AUDIENCES = st.none() | st.dictionaries(
    st.sampled_from(["aam/1", "aam/2", "csv/9"]), st.builds(Membership, st.booleans(), st.sampled_from([1.0, 2.0, 3.0]))
)
UNTIMED = st.builds(lambda fields, audiences: Event(KEY, pack(fields), 1, audiences), FIELDS, AUDIENCES)
TIMED = st.builds(
    lambda fields, at: Event(KEY, pack(fields), 1, timestamp=at), FIELDS, st.sampled_from([1.0, 2.0, 3.0, 4.0])
)


def pack(fields: dict[str, int]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def merge(older: bytes, newer: bytes) -> tuple[bytes, int]:
    return pack(json.loads(older) | json.loads(newer)), 1


def profile_of(event: Event, offset: int) -> Profile:
    """A profile of one event, as the coalescer makes it."""
    stamps = stamps_of(event.content, event.timestamp)
    return Profile(
        KEY, event.content, event.traits, Lane.LIVE, offset, offset, offset, 1, float(offset), event.audiences, stamps
    )


def folded(events: list[Event], first: int = 0) -> Profile:
    profile = profile_of(events[0], first)
    for offset, event in enumerate(events[1:], first + 1):
        add_event(profile, event, offset, merge)
    return profile


def content(profile: Profile) -> dict[str, int]:
    return json.loads(profile.content)


def oracle(events: list[Event]) -> tuple[dict[str, int], dict[str, Membership]]:
    fields: dict[str, int] = {}
    audiences: dict[str, Membership] = {}
    for event in events:
        fields |= json.loads(event.content)
        for name, membership in (event.audiences or {}).items():
            if name not in audiences or membership.qualified_at >= audiences[name].qualified_at:
                audiences[name] = membership
    return fields, audiences


def timed_oracle(events: list[Event]) -> dict[str, int]:
    """Per field the newest time wins, a tie goes to the later offset."""
    best: dict[str, tuple[float, int]] = {}
    for event in events:
        assert event.timestamp is not None
        for name, value in json.loads(event.content).items():
            if name not in best or event.timestamp >= best[name][0]:
                best[name] = (event.timestamp, value)
    return {name: value for name, (_, value) in best.items()}


@given(st.lists(UNTIMED, min_size=1, max_size=12))
def test_per_field_the_last_event_that_carries_it_wins(events: list[Event]) -> None:
    profile = folded(events)
    fields, audiences = oracle(events)
    assert content(profile) == fields
    assert (profile.audiences or {}) == audiences


@given(st.lists(TIMED, min_size=1, max_size=12))
def test_a_source_with_times_goes_by_time_and_ties_go_to_the_later(events: list[Event]) -> None:
    assert content(folded(events)) == timed_oracle(events)


@given(st.lists(UNTIMED, min_size=2, max_size=12), st.data())
def test_where_a_history_is_cut_makes_no_difference(events: list[Event], data: st.DataObject) -> None:
    """A lease ends, and what it carried is folded under what came meanwhile: the same as if it had never been out."""
    cut = data.draw(st.integers(1, len(events) - 1))
    whole, newer = folded(events), folded(events[cut:], cut)
    fold_under(newer, folded(events[:cut]), merge)
    assert content(newer) == content(whole)
    assert (newer.audiences or {}) == (whole.audiences or {})
    assert (newer.through, newer.last, newer.events) == (whole.through, whole.last, whole.events)
    assert newer.oldest_at == whole.oldest_at


@given(st.lists(TIMED, min_size=2, max_size=12), st.data())
def test_nor_does_it_for_sources_with_times(events: list[Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(events) - 1))
    newer = folded(events[cut:], cut)
    fold_under(newer, folded(events[:cut]), merge)
    assert content(newer) == timed_oracle(events)


@given(st.lists(UNTIMED, min_size=3, max_size=3) | st.lists(TIMED, min_size=3, max_size=3))
def test_folding_under_is_associative(events: list[Event]) -> None:
    """(a under b) under c is a under (b under c): whichever comes back first, from disk or from a lease."""
    left = [profile_of(event, offset) for offset, event in enumerate(events)]
    right = deepcopy(left)
    fold_under(left[1], left[0], merge)
    fold_under(left[2], left[1], merge)
    fold_under(right[2], right[1], merge)
    fold_under(right[2], right[0], merge)
    assert left[2] == right[2]


def test_an_absent_field_is_unchanged_and_a_present_one_wins_whatever_it_says() -> None:
    profile = folded([Event(KEY, b'{"city":1,"zip":1}', 1), Event(KEY, b'{"city":0}', 1)])
    assert content(profile) == {"city": 0, "zip": 1}


def test_a_field_without_a_time_is_as_new_as_its_arrival() -> None:
    """Sources of both orders meet under one key: the untimed field wins, and is beaten by whatever comes next."""
    timed, untimed, late = (
        Event(KEY, b'{"city":1}', 1, timestamp=100.0),
        Event(KEY, b'{"city":2}', 1),
        Event(KEY, b'{"city":3}', 1, timestamp=5.0),
    )
    assert content(folded([timed, untimed])) == {"city": 2}
    assert content(folded([timed, untimed, late])) == {"city": 3}


@pytest.mark.parametrize(
    ("older", "newer", "winner"),
    [(1.0, 2.0, "newer"), (2.0, 1.0, "older"), (1.0, 1.0, "newer")],
    ids=["newest wins", "an older one loses though it came later", "a tie goes to the later offset"],
)
def test_per_audience_the_newest_qualification_wins(older: float, newer: float, winner: str) -> None:
    both = {"older": Membership(True, older), "newer": Membership(False, newer)}
    assert fold_audiences({"a": both["older"]}, {"a": both["newer"]}) == {"a": both[winner]}


@pytest.mark.parametrize(
    ("older", "newer", "kept"), [("VIP", "", "VIP"), ("", "VIP", "VIP"), ("VIP", "Guests", "Guests")]
)
@pytest.mark.parametrize(("first", "then"), [(1.0, 2.0), (1.0, 1.0), (2.0, 1.0)])
def test_an_audience_keeps_the_name_it_was_given_last(
    older: str, newer: str, kept: str, first: float, then: float
) -> None:
    """Not every call names it: an event without the name must not take an attendee out of what is chosen by name."""
    folded = fold_audiences({"a": Membership(True, first, older)}, {"a": Membership(False, then, newer)})
    assert folded == {"a": Membership(then < first, max(first, then), kept)}


def test_audiences_that_are_not_mentioned_stay() -> None:
    one, other = {"a": Membership(True, 1.0)}, {"b": Membership(True, 1.0)}
    assert fold_audiences(one, other) == one | other
    assert fold_audiences(one, None) == one
    assert fold_audiences(None, one) == one


def test_folding_leaves_what_it_was_given_alone() -> None:
    one, other = {"a": Membership(True, 1.0)}, {"a": Membership(False, 2.0)}
    fold_audiences(one, other)
    assert (one, other) == ({"a": Membership(True, 1.0)}, {"a": Membership(False, 2.0)})


def test_the_older_one_lends_its_age_its_lane_and_its_attempts() -> None:
    older, newer = folded([Event(KEY, b"{}", 1)]), folded([Event(KEY, b"{}", 1)], first=9)
    older.lane, older.attempts, older.tries, older.first_tried_at, older.still_seconds = Lane.LIVE, 3, 4, 5.0, 6.0
    older.certain, newer.lane = False, Lane.BACKFILL
    fold_under(newer, older, merge)
    assert (newer.lane, newer.attempts, newer.tries, newer.first_tried_at) == (Lane.LIVE, 3, 4, 5.0)
    assert (newer.oldest_at, newer.still_seconds, newer.certain) == (0.0, 6.0, False)
    assert newer.lowest == 9, "which of the two holds the watermark is the coalescer's to know"


def test_everybody_who_asks_for_one_of_the_events_is_told() -> None:
    older, newer = folded([Event(KEY, b"{}", 1)]), folded([Event(KEY, b"{}", 1)], first=9)
    older.receipts, newer.receipts = [("first", 0, 1)], [("second", 9, 1)]
    fold_under(newer, older, merge)
    assert newer.receipts == [("first", 0, 1), ("second", 9, 1)]


def test_a_held_copy_of_what_is_already_merged_in_is_not_folded_again() -> None:
    stored = folded([Event(KEY, b'{"city":1}', 1), Event(KEY, b'{"zip":1}', 1)])
    held, profile = Held(HeldKind.WAITING, stored), folded([Event(KEY, b'{"city":2}', 1)], first=5)
    assert fold_held(profile, None, merge) == 0
    assert fold_held(profile, held, merge) == 2
    assert fold_held(profile, held, merge) == 0
    assert (content(profile), profile.events, profile.held_through) == ({"city": 2, "zip": 1}, 3, 1)


def test_that_an_event_was_erased_is_not_lost_in_the_fold() -> None:
    erased, plain = Event(KEY, b"{}", Trait.ERASED), Event(KEY, b'{"city":1}', Trait.EMAIL)
    for events in ([erased, plain], [plain, erased], [erased, erased], [plain, plain, erased]):
        assert folded(events).traits & Trait.ERASED
    assert not folded([plain, plain]).traits & Trait.ERASED


def test_a_replay_that_was_emptied_is_overtaken_by_the_forget_that_did_it() -> None:
    part = folded([Event(KEY, b"{}", 0)], first=5)
    assert overtaken(part, NOTHING)


def test_replays_kept_apart_count_as_events() -> None:
    profile = folded([Event(KEY, b"{}", 1)])
    profile.under, profile.passed = [folded([Event(KEY, b"{}", 1)])], [folded([Event(KEY, b"{}", 1)])]
    assert events_of(profile) == 3


@pytest.mark.parametrize(("confirmed", "is_overtaken"), [(NOTHING, False), (4, False), (5, False), (6, True)])
def test_a_replay_is_overtaken_only_by_something_newer_that_was_confirmed(confirmed: int, is_overtaken: bool) -> None:
    part = folded([Event(KEY, b'{"city":1}', 1)], first=5)
    assert overtaken(part, confirmed) is is_overtaken


def test_what_is_known_of_the_address_stays_known_whatever_is_folded_in() -> None:
    """An event without a field, before or after: the profile may still leave."""
    address, empty = Event(KEY, b'{"email":"a@b.example"}', Trait.EMAIL), Event(KEY, b"{}", Trait.NONE)
    for events in ([address, empty], [empty, address], [address, address]):
        assert folded(events).traits & Trait.EMAIL


def test_of_two_as_old_the_earlier_one_tells_how_long_it_has_stood_still() -> None:
    older, newer = folded([Event(KEY, b"{}", 1)]), folded([Event(KEY, b"{}", 1)])
    older.still_seconds, newer.still_seconds = 6.0, 1.0
    fold_under(newer, older, merge)
    assert newer.still_seconds == 6.0


def test_a_younger_one_lends_neither_its_age_nor_how_long_it_stood_still() -> None:
    older, newer = folded([Event(KEY, b"{}", 1)], first=9), folded([Event(KEY, b"{}", 1)])
    older.still_seconds = 6.0
    fold_under(newer, older, merge)
    assert (newer.oldest_at, newer.still_seconds) == (0.0, 0.0)


@pytest.mark.parametrize(("older", "newer", "letter"), [(0, 0, 0), (7, 0, 7), (0, 8, 8), (7, 8, 8)])
def test_the_dead_letter_that_a_profile_came_from_is_remembered(older: int, newer: int, letter: int) -> None:
    one, other = folded([Event(KEY, b"{}", 1)]), folded([Event(KEY, b"{}", 1)], first=9)
    one.letter, other.letter = older, newer
    fold_under(other, one, merge)
    assert other.letter == letter


def test_replays_of_both_are_kept_the_older_one_s_first() -> None:
    older, newer = folded([Event(KEY, b"{}", 1)]), folded([Event(KEY, b"{}", 1)], first=9)
    a, b, c, d = (folded([Event(KEY, b"{}", 1)], first=n) for n in range(20, 24))
    older.under, newer.under, older.passed, newer.passed = [a], [b], [c], [d]
    fold_under(newer, older, merge)
    assert (newer.under, newer.passed) == ([a, b], [c, d])
    assert events_of(newer) == 6


@pytest.mark.parametrize("mine", [True, False])
def test_who_asked_is_told_whichever_of_the_two_it_was(mine: bool) -> None:
    older, newer = folded([Event(KEY, b"{}", 1)]), folded([Event(KEY, b"{}", 1)], first=9)
    older.receipts, newer.receipts = (None, [("a", 9, 1)]) if mine else ([("a", 0, 1)], None)
    fold_under(newer, older, merge)
    assert newer.receipts == [("a", 9 if mine else 0, 1)]
