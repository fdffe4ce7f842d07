"""What is written comes back as it was, a flipped bit is seen, and what is erased is gone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.codec import (
    VerdictRow,
    checksum,
    erase_events,
    newer_entry,
    pack_events,
    pack_profile,
    pack_verdicts,
    unpack_events,
    unpack_profile,
    unpack_verdicts,
)
from engine.model import NOTHING, Event, Kind, Lane, LedgerEntry, Membership, Profile, Trait

KEY, OTHER = bytes(32), bytes([1]) * 32
OFFSETS = st.integers(NOTHING, 2**53)
TIMES = st.floats(0.0, 4e9)
AUDIENCES = st.none() | st.dictionaries(st.text(max_size=8), st.builds(Membership, st.booleans(), TIMES), max_size=3)
EVENTS = st.builds(
    Event,
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=60),
    st.integers(0, 7),
    AUDIENCES,
    st.none() | TIMES,
    st.sampled_from([int(kind) for kind in Kind]),
    st.text(max_size=10),
    OFFSETS,
    st.integers(0, 2**40),
)
PARTS = st.builds(
    Profile,
    key=st.just(KEY),
    content=st.binary(max_size=60),
    traits=st.integers(0, 7),
    lane=st.sampled_from(list(Lane)),
    lowest=OFFSETS,
    through=OFFSETS,
    last=OFFSETS,
    events=st.integers(0, 10**6),
    oldest_at=TIMES,
    audiences=AUDIENCES,
    stamps=st.none() | st.dictionaries(st.text(max_size=8), TIMES, max_size=3),
    attempts=st.integers(0, 99),
    certain=st.booleans(),
)
ENTRIES = st.builds(
    LedgerEntry,
    st.binary(min_size=32, max_size=32),
    st.text(max_size=12),
    st.text(max_size=12),
    OFFSETS,
    OFFSETS,
    st.binary(max_size=16),
    TIMES,
    st.text(max_size=12),
)


@given(st.lists(EVENTS, max_size=5))
def test_events_come_back_as_they_were(events: list[Event]) -> None:
    assert unpack_events(pack_events(events)) == events


@given(PARTS, st.none() | st.lists(PARTS, max_size=2))
def test_held_profiles_come_back_as_they_were(profile: Profile, under: list[Profile] | None) -> None:
    profile.under = under
    assert unpack_profile(pack_profile(profile)) == profile


@given(st.lists(ENTRIES, max_size=4), st.lists(st.tuples(st.binary(min_size=32, max_size=32), OFFSETS), max_size=3))
def test_verdicts_come_back_as_they_were(entries: list[LedgerEntry], accounted: list[tuple[bytes, int]]) -> None:
    row = VerdictRow(entries, accounted)
    assert unpack_verdicts(pack_verdicts(row)) == row
    offsets = [*(entry.settled_through for entry in entries), *(offset for _, offset in accounted)]
    assert row.through() == max(offsets, default=NOTHING)


def test_nobody_s_receipt_is_ever_stored() -> None:
    profile = Profile(KEY, b"{}", 1, Lane.LIVE, 0, 0, 0, 1, 0.0, receipts=[("somebody", 0, 1)])
    with pytest.raises(AssertionError, match=r"^nobody's receipt is ever stored"):
        pack_profile(profile)


@given(st.binary(max_size=40))
def test_foreign_bytes_are_refused_not_misread(payload: bytes) -> None:
    try:
        events = unpack_events(payload)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return
    assert events == [] or all(isinstance(event, Event) for event in events)


ROW = (7, 3, "crm", 0, 1_790_000_000.25)


@given(st.binary(min_size=1, max_size=80), st.data())
def test_a_flipped_bit_in_the_payload_is_seen(payload: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(payload) * 8 - 1))
    flipped = bytearray(payload)
    flipped[place // 8] ^= 1 << place % 8
    assert checksum(*ROW, payload) != checksum(*ROW, bytes(flipped))


@pytest.mark.parametrize("other", [(8, *ROW[1:]), (7, 4, *ROW[2:]), (*ROW[:2], "web", *ROW[3:]), (*ROW[:3], 1, ROW[4])])
def test_a_row_in_another_place_is_seen(other: tuple[int, int, str, int, float]) -> None:
    assert checksum(*ROW, b"payload") != checksum(*other, b"payload")


def test_erasing_empties_only_the_key_and_only_below_its_offset() -> None:
    events = [
        Event(KEY, b'{"a":1}', Trait.EMAIL, {"x": Membership(True, 1.0)}, 5.0),
        Event(OTHER, b'{"a":2}', Trait.EMAIL),
        Event(KEY, b'{"a":3}', Trait.EMAIL),
    ]
    erased = erase_events(events, 10, {KEY: 12})
    assert erased is not None
    assert erased[0] == Event(KEY, b"{}", Trait.ERASED), "audiences and times are data of the person as well"
    assert erased[1:] == events[1:]


def test_audiences_of_a_hash_without_any_field_are_erased_too() -> None:
    event = Event(KEY, b"{}", Trait.NONE, {"x": Membership(True, 1.0)})
    assert erase_events([event], 10, {KEY: 11}) == [Event(KEY, b"{}", Trait.ERASED)]


def test_a_replay_that_is_erased_is_still_counted_where_it_was_meant_for() -> None:
    replay = Event(KEY, b'{"a":1}', 1, kind=Kind.REPLAY, destination="demo", through=4, letter=9)
    assert erase_events([replay], 10, {KEY: 5}) == [
        Event(KEY, b"{}", Trait.ERASED, kind=Kind.REPLAY, destination="demo", through=4)
    ]
    assert erase_events([replay], 2, {KEY: 4}) is None, "what it carries is from above"


def test_nothing_to_erase_rewrites_nothing() -> None:
    events = [Event(KEY, b'{"a":1}', 1), Event(KEY, b"{}", Trait.ERASED)]
    assert erase_events(events, 10, {OTHER: 99}) is None
    assert erase_events(events, 10, {KEY: 10}) is None
    assert erase_events(events[1:], 10, {KEY: 99}) is None


@given(ENTRIES, ENTRIES)
def test_the_later_verdict_replaces_the_earlier_one_and_offsets_only_grow(known: LedgerEntry, new: LedgerEntry) -> None:
    merged = newer_entry(known, new)
    assert merged.key == new.key
    assert merged.digest == new.digest
    last = new if new.outcome or not known.outcome else known  # one without an outcome settles nothing
    assert (merged.outcome, merged.at) == (last.outcome, last.at)
    assert merged.reason == (new if new.outcome else known).reason
    assert merged.settled_through == max(known.settled_through, new.settled_through)
    assert merged.confirmed_through == max(known.confirmed_through, new.confirmed_through)
    assert merged.attendee_id == (new.attendee_id or known.attendee_id)
    assert newer_entry(None, new) is new


def test_a_standing_from_before_audiences_had_names_is_read() -> None:
    events = [Event(KEY, b'{"a":1}', Trait.EMAIL, {"x": Membership(True, 1.0)})]
    row = msgspec.msgpack.decode(pack_events(events))
    row[0][3]["x"] = row[0][3]["x"][:2]
    assert unpack_events(msgspec.msgpack.encode(row)) == events


@given(ENTRIES)
def test_a_change_takes_the_digest_and_nothing_else(known: LedgerEntry) -> None:
    change = LedgerEntry(known.key, "", "", NOTHING, at=7.0)
    expected = msgspec.structs.replace(known, digest=b"", at=known.at if known.outcome else 7.0)
    assert newer_entry(known, change) == expected
