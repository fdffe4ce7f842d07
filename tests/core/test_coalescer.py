"""The coalescer against a model that keeps every event: nothing lost, nothing counted twice, one lease a key."""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.core.coalescer import Coalescer
from engine.core.fold import events_of, fold_held, fold_under
from engine.core.handover import fold_replays
from engine.core.receipts import listed
from engine.model import NOTHING, Event, Held, HeldKind, Kind, Lane, LedgerEntry, Membership, Profile

KEYS = [bytes([n]) * 32 for n in range(6)]


def merge(older: bytes, newer: bytes) -> tuple[bytes, int]:
    return json.dumps(json.loads(older) | json.loads(newer)).encode(), 1


def event(key: bytes, **fields: object) -> Event:
    return Event(key, json.dumps(fields).encode(), 1)


def content(profile: Profile) -> dict[str, object]:
    return json.loads(profile.content)


def lease_any(coalescer: Coalescer, lane: Lane = Lane.LIVE, *, fresh_first: bool = False) -> Profile | None:
    head = coalescer.head(lane, fresh_first=fresh_first)
    if head is not None:
        coalescer.lease(head)
    return head


class Machine(RuleBasedStateMachine):
    """Random steps; the model knows for every key which offsets are waiting and which are leased."""

    def __init__(self) -> None:
        super().__init__()
        self.coalescer = Coalescer(merge)
        self.position = 0
        self.now = 0.0
        self.waiting: dict[bytes, dict[int, dict[str, int]]] = {}
        self.leased: dict[bytes, dict[int, dict[str, int]]] = {}
        self.held: dict[bytes, int] = {}
        self.durable: dict[bytes, int] = {}

    @rule(key=st.sampled_from(KEYS), field=st.sampled_from("abc"), lane=st.sampled_from(list(Lane)))
    def add(self, key: bytes, field: str, lane: Lane) -> None:
        self.coalescer.add(event(key, **{field: self.position}), self.position, lane, self.now)
        self.waiting.setdefault(key, {})[self.position] = {field: self.position}
        self.position += 1
        self.now += 1

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=8), lane=st.sampled_from(list(Lane)))
    def add_all(self, keys: list[bytes], lane: Lane) -> None:
        first = self.position
        for key in keys:
            self.waiting.setdefault(key, {})[self.position] = {"d": self.position}
            self.position += 1
        events = [event(key, d=offset) for offset, key in enumerate(keys, first)]
        assert self.coalescer.add_all(events, first, lane, self.now) == len(keys)
        self.now += 1

    @rule(lane=st.sampled_from(list(Lane)), fresh_first=st.booleans())
    def lease(self, lane: Lane, fresh_first: bool) -> None:
        profile = lease_any(self.coalescer, lane, fresh_first=fresh_first)
        if profile is not None:
            self._leased(profile)

    @rule(lane=st.sampled_from(list(Lane)), most=st.integers(1, 4), fresh_first=st.booleans())
    def lease_oldest(self, lane: Lane, most: int, fresh_first: bool) -> None:
        for profile in self.coalescer.lease_oldest(lane, most, 1_000_000, fresh_first=fresh_first):
            self._leased(profile)

    @rule()
    def lease_least_tried(self) -> None:
        ready = self.coalescer.ready
        taken = self.coalescer.lease_least_tried()
        assert (len(taken), self.coalescer.ready) == ((1, ready - 1) if ready else (0, 0))
        for profile in taken:
            self._leased(profile)

    def _leased(self, profile: Profile) -> None:
        assert profile.key not in self.leased
        events = self.leased[profile.key] = self.waiting.pop(profile.key)
        folded: dict[str, int] = {}
        for offset in sorted(events):
            folded |= events[offset]
        assert content(profile) == folded
        assert profile.through == max(events)
        assert profile.events == len(events)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.leased)))
        assert events_of(self.coalescer.settle(key)) == len(self.leased.pop(key))

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def settle_all(self, data: st.DataObject) -> None:
        some = data.draw(st.sets(st.sampled_from(sorted(self.leased))))
        profiles = [one for one in self.coalescer.leased_profiles() if one.key in some]
        self.coalescer.settle_all(profiles)
        assert sum(map(events_of, profiles)) == sum(len(self.leased.pop(key)) for key in some)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), wait=st.sampled_from([None, 1.0, 5.0]))
    def give_back(self, data: st.DataObject, wait: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.leased)))
        for profile in self.coalescer.leased_profiles():
            profile.tries += profile.key == key
        self.coalescer.give_back(key, None if wait is None else self.now + wait)
        self.waiting[key] = self.leased.pop(key) | self.waiting.get(key, {})

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def wake(self, seconds: float) -> None:
        self.now += seconds
        self.coalescer.wake(self.now)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def start_hold(self, data: st.DataObject) -> None:
        for profile in self.coalescer.stragglers(self.position, 100):
            if data.draw(st.booleans()):
                self.coalescer.holding(profile)
                self.held[profile.key] = profile.last

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish_hold(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        last = self.held.pop(key)
        self.coalescer.held(key, last)
        self.durable[key] = max(self.durable.get(key, NOTHING), last)

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: bytes) -> None:
        if self.coalescer.is_forgotten(key):
            return
        self.coalescer.forget(key, self.position, self.now)
        events = len(self.waiting.pop(key, []))
        self.position += 1
        if key in self.leased:
            assert self.coalescer.is_forgotten(key)
            self.leased.pop(key)
            self.coalescer.settle(key)
        marker = self.coalescer.next_marker()
        assert marker is not None
        assert (marker.key, marker.events) == (key, events)
        self.coalescer.settle(key)

    @invariant()
    def events_add_up(self) -> None:
        total = sum(len(events) for events in [*self.waiting.values(), *self.leased.values()])
        assert self.coalescer.events == total
        assert self.coalescer.waiting == len(self.waiting)
        assert self.coalescer.leased == len(self.leased)

    @invariant()
    def watermark_never_steps_over_an_event_that_is_neither_settled_nor_held(self) -> None:
        open_offsets = [
            offset
            for side in (self.waiting, self.leased)
            for key, events in side.items()
            for offset in events
            if offset > self.durable.get(key, NOTHING)
        ]
        assert self.coalescer.watermark(self.position) <= min(open_offsets, default=self.position)

    @invariant()
    def watermark_is_exact_while_nothing_is_held(self) -> None:
        if not self.durable and not self.held:
            offsets = [o for side in (self.waiting, self.leased) for events in side.values() for o in events]
            assert self.coalescer.watermark(self.position) == min(offsets, default=self.position)

    @invariant()
    def what_may_go_is_counted_right(self) -> None:
        parked = len(self.coalescer._parked_keys)
        behind = len(set(self.waiting) & set(self.leased))
        assert self.coalescer.ready == len(self.waiting) - parked - behind

    @invariant()
    def bytes_are_those_of_the_waiting(self) -> None:
        assert self.coalescer.content_bytes == sum(
            len(profile.content) for key in self.waiting if (profile := self.coalescer.find(key)[0])
        )


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestCoalescer = Machine.TestCase


@pytest.fixture
def coalescer() -> Coalescer:
    return Coalescer(merge)


def test_profiles_leave_in_the_order_of_their_oldest_event(coalescer: Coalescer) -> None:
    """A hot key keeps its place, it doesn't lose it; what comes back after a retry is ahead of what came later."""
    for offset, key in enumerate([0, 1, 0, 2]):
        coalescer.add(event(KEYS[key], n=offset), offset, Lane.LIVE, float(offset))
    first = lease_any(coalescer)
    assert first is not None
    assert first.key == KEYS[0]
    coalescer.give_back(first.key)
    assert [lease_any(coalescer).key for _ in range(3)] == [KEYS[0], KEYS[1], KEYS[2]]  # type: ignore[union-attr]


def test_a_probe_takes_what_failed_least(coalescer: Coalescer) -> None:
    """The newest that never was leased, in the best lane; then whatever failed least, however old others are."""
    for offset, key in enumerate(KEYS[:4]):
        coalescer.add(event(key), offset, Lane.BACKFILL if offset == 3 else Lane.LIVE, float(offset))
    for tries in (3, 1):
        head = lease_any(coalescer)
        assert head is not None
        head.tries = tries
    coalescer.give_back(KEYS[0])
    coalescer.give_back(KEYS[1])
    assert [coalescer.lease_least_tried()[0].key for _ in range(4)] == [KEYS[2], KEYS[3], KEYS[1], KEYS[0]]
    assert coalescer.lease_least_tried() == []


def test_what_came_back_waits_for_the_others_when_it_has_to(coalescer: Coalescer) -> None:
    for offset, key in enumerate(KEYS[:3]):
        coalescer.add(event(key), offset, Lane.LIVE, float(offset))
    lease_any(coalescer)
    coalescer.give_back(KEYS[0])
    assert coalescer.head(Lane.LIVE).key == KEYS[0]  # type: ignore[union-attr]
    assert coalescer.head(Lane.LIVE, fresh_first=True).key == KEYS[1]  # type: ignore[union-attr]
    taken = coalescer.lease_oldest(Lane.LIVE, 3, 1_000, fresh_first=True)
    assert [profile.key for profile in taken] == [KEYS[1], KEYS[2]]
    assert [profile.key for profile in coalescer.lease_oldest(Lane.LIVE, 3, 1_000, fresh_first=True)] == [KEYS[0]]


def test_an_append_is_taken_in_up_to_the_first_event_of_another_kind(coalescer: Coalescer) -> None:
    forget = Event(KEYS[3], b"{}", kind=Kind.FORGET)
    events = [event(KEYS[0], a=1), event(KEYS[1], a=2), forget, event(KEYS[2], a=3)]
    assert coalescer.add_all(events, 7, Lane.LIVE, 5.0) == 2
    assert (len(coalescer), coalescer.events, coalescer.watermark(9)) == (2, 2, 7)
    assert coalescer.add_all([forget], 9, Lane.LIVE, 5.0, kind=Kind.FORGET) == 1


def test_what_is_known_of_an_append_is_known_of_each_of_its_profiles(coalescer: Coalescer) -> None:
    asker = object()
    coalescer.add_all([event(KEYS[0], a=1)], 6, Lane.BACKFILL, 4.0, certain=False, still_seconds=2.0)
    coalescer.add_all(
        [event(KEYS[0], a=1), event(KEYS[1], a=2), event(KEYS[0], b=3)],
        7,
        Lane.LIVE,
        5.0,
        still_seconds=3.0,
        tracker=asker,
    )
    (first, _), (second, _) = coalescer.find(KEYS[0]), coalescer.find(KEYS[1])
    assert first is not None
    assert second is not None
    assert (first.certain, first.still_seconds, first.oldest_at, first.lane) == (False, 2.0, 4.0, Lane.LIVE)
    assert (second.certain, second.still_seconds, second.oldest_at, second.lowest) == (True, 3.0, 5.0, 8)
    assert (listed(first.receipts, first.last), listed(second.receipts, 8)) == ([(asker, 9, 2)], [(asker, 8, 1)])


def test_what_comes_while_a_key_is_leased_waits_behind_it_and_wins(coalescer: Coalescer) -> None:
    """An event that came during the attempt folds over what the attempt carried, whatever became of it."""
    coalescer.add(event(KEYS[0], city="Lille", zip="1"), 0, Lane.LIVE, 0.0)
    lease_any(coalescer)
    coalescer.add(event(KEYS[0], city="Paris"), 1, Lane.LIVE, 1.0)
    assert lease_any(coalescer) is None
    profile = coalescer.give_back(KEYS[0])
    assert content(profile) == {"city": "Paris", "zip": "1"}
    assert (profile.lowest, profile.through, profile.events) == (0, 1, 2)


def test_a_better_lane_takes_the_profile_over(coalescer: Coalescer) -> None:
    """A key sits in its best lane."""
    coalescer.add(event(KEYS[0], a=1), 0, Lane.BACKFILL, 0.0)
    coalescer.add(event(KEYS[0], b=2), 1, Lane.LIVE, 1.0)
    assert coalescer.head(Lane.BACKFILL) is None
    assert coalescer.ready_in(Lane.LIVE) == 1


def test_a_held_profile_folds_as_older_than_what_came_after_it(coalescer: Coalescer) -> None:
    """And is folded in once, however often it is looked up."""
    coalescer.add(event(KEYS[0], city="Paris"), 9, Lane.LIVE, 9.0)
    profile = lease_any(coalescer)
    assert profile is not None
    stored = Profile(KEYS[0], b'{"city": "Lille", "zip": "1"}', 1, Lane.BACKFILL, NOTHING, 4, 4, 3, 1.0)
    held = Held(HeldKind.WAITING, stored)
    assert fold_held(profile, held, merge) == 3
    assert fold_held(profile, held, merge) == 0
    assert content(profile) == {"city": "Paris", "zip": "1"}
    assert (profile.lowest, profile.through, profile.events, profile.oldest_at) == (9, 9, 4, 1.0)


@pytest.mark.parametrize(("confirmed", "passed"), [(NOTHING, False), (5, False), (6, True)])
def test_a_replay_is_sent_unless_a_confirmed_newer_state_has_passed_it(
    coalescer: Coalescer, confirmed: int, passed: bool
) -> None:
    letter = Event(KEYS[0], b'{"zip": "1"}', 1, kind=Kind.REPLAY, destination="demo", through=5, letter=7)
    coalescer.add_replay(letter, 20, 2.0)
    coalescer.add(event(KEYS[0], city="Paris"), 21, Lane.LIVE, 3.0)
    profile = lease_any(coalescer)
    assert profile is not None
    fold_replays(profile, LedgerEntry(KEYS[0], "delivered", "", confirmed, confirmed), merge)
    assert [part.letter for part in profile.passed or ()] == ([7] if passed else [])
    assert content(profile) == ({"city": "Paris"} if passed else {"city": "Paris", "zip": "1"})
    assert (profile.events, profile.last) == (1 if passed else 2, 21)


def test_evicted_profiles_are_the_ones_that_would_leave_last(coalescer: Coalescer) -> None:
    """Backfill beyond its share goes to disk; it leaves memory only once its whole content is durable."""
    for offset, key in enumerate(KEYS):
        coalescer.add(event(key, n=offset), offset, Lane.BACKFILL, float(offset))
    out = coalescer.evictable(2)
    assert [profile.key for profile in out] == [KEYS[5], KEYS[4]]
    for profile in out:
        coalescer.holding(profile)
    coalescer.add(event(KEYS[5], n=9), 9, Lane.BACKFILL, 9.0)
    assert coalescer.unload(KEYS[4], 4) is None, "the copy is not durable yet"
    coalescer.held(KEYS[4], 4)
    coalescer.held(KEYS[5], 5)
    assert coalescer.unload(KEYS[4], 4) is out[1]
    assert coalescer.unload(KEYS[5], 5) is None, "an event came after the copy"
    assert coalescer.watermark(10) == 0
    assert coalescer.events == 6


def test_folding_keeps_the_newest_membership_of_each_audience() -> None:
    """Per audience the newest qualification wins, a tie goes to the later offset."""
    older = Profile(
        KEYS[0], b"{}", 1, Lane.LIVE, 0, 0, 0, 1, 0.0, {"a": Membership(True, 9.0), "b": Membership(True, 1.0)}
    )
    newer = Profile(
        KEYS[0], b"{}", 1, Lane.LIVE, 1, 1, 1, 1, 1.0, {"a": Membership(False, 5.0), "b": Membership(False, 1.0)}
    )
    fold_under(newer, older, merge)
    assert newer.audiences == {"a": Membership(True, 9.0), "b": Membership(False, 1.0)}


def test_sources_that_go_by_time_let_a_late_event_lose_field_by_field(coalescer: Coalescer) -> None:
    """order = "timestamp": among waiting events the newest time wins each field, whatever came last."""
    for offset, (fields, at) in enumerate([({"a": 1, "b": 1}, 10.0), ({"a": 2, "c": 2}, 5.0), ({"b": 3}, 11.0)]):
        coalescer.add(Event(KEYS[0], json.dumps(fields).encode(), 1, timestamp=at), offset, Lane.LIVE, 0.0)
    profile = lease_any(coalescer)
    assert profile is not None
    assert content(profile) == {"a": 1, "b": 3, "c": 2}
