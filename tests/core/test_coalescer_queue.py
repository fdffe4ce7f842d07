"""Who leaves next: lanes, ages, parked profiles, and taking many at once as if they were taken one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slots import ANNA, BERT, CARL, KEYS, add, content, event, lease, lease_any, merge

from engine.core.coalescer import PROFILE_OVERHEAD_BYTES, Coalescer
from engine.model import Event, Lane, Membership, Profile


@pytest.fixture
def coalescer() -> Coalescer:
    return Coalescer(merge)


# -- what there is ----------------------------------------------------------------------------------------------------


def test_waiting_parked_and_leased_are_seen_from_outside(coalescer: Coalescer) -> None:
    for offset, key in enumerate([ANNA, BERT, CARL]):
        add(coalescer, key, offset)
    lease(coalescer)
    coalescer.give_back(ANNA, not_before=9.0)
    leased = lease(coalescer)
    assert repr(coalescer) == "<Coalescer [waiting 2, parked 1 of them | leased 1]>"
    assert len(coalescer) == 3
    assert coalescer.find(BERT) == (None, leased)
    assert list(coalescer.leased_profiles()) == [leased]


def test_a_profile_costs_its_content_and_its_overhead_while_it_waits(coalescer: Coalescer) -> None:
    profile = add(coalescer, ANNA, 0, city="Lille")
    assert coalescer.bytes == len(profile.content) + PROFILE_OVERHEAD_BYTES
    assert coalescer.content_bytes == len(profile.content)
    lease(coalescer)
    assert (coalescer.bytes, coalescer.content_bytes) == (0, 0)
    coalescer.give_back(ANNA)
    assert coalescer.bytes == len(profile.content) + PROFILE_OVERHEAD_BYTES


def test_the_oldest_that_may_go_tells_how_long_it_has_waited(coalescer: Coalescer) -> None:
    assert coalescer.oldest_ready_at() is None
    add(coalescer, ANNA, 5, Lane.REPLAY)
    assert coalescer.oldest_ready_at() == 5.0
    add(coalescer, BERT, 3, Lane.BACKFILL)
    add(coalescer, CARL, 4, Lane.LIVE)
    assert coalescer.oldest_ready_at() == 3.0
    lease(coalescer, Lane.BACKFILL)
    add(coalescer, BERT, 6)
    assert coalescer.oldest_ready_at() == 4.0, "what waits behind a lease may not go, however old"


def test_one_lane_alone_is_named_and_several_or_none_are_not(coalescer: Coalescer) -> None:
    assert coalescer.only_ready_lane() is None
    add(coalescer, ANNA, 0, Lane.REPLAY)
    assert coalescer.only_ready_lane() is Lane.REPLAY
    add(coalescer, BERT, 1, Lane.BACKFILL)
    assert coalescer.only_ready_lane() is None
    lease(coalescer, Lane.REPLAY)
    assert coalescer.only_ready_lane() is Lane.BACKFILL


# -- parked -----------------------------------------------------------------------------------------------------------


def test_a_parked_profile_may_go_when_its_time_has_come_and_not_before(coalescer: Coalescer) -> None:
    profile = add(coalescer, ANNA, 0)
    assert coalescer.wakes_at() is None
    lease(coalescer)
    coalescer.give_back(ANNA, not_before=5.0)
    coalescer.wake(4.9)
    assert (coalescer.ready, coalescer.wakes_at()) == (0, 5.0)
    coalescer.wake(5.0)
    assert (coalescer.ready, coalescer.wakes_at()) == (1, None)
    assert lease(coalescer) is profile


def test_several_wake_each_at_its_time(coalescer: Coalescer) -> None:
    for offset, key in enumerate([ANNA, BERT, CARL]):
        add(coalescer, key, offset)
    for key, until in [(ANNA, 7.0), (BERT, 3.0), (CARL, 5.0)]:
        lease(coalescer)
        coalescer.give_back(key, not_before=until)
    assert coalescer.wakes_at() == 3.0
    coalescer.wake(5.0)
    assert (coalescer.ready, coalescer.wakes_at()) == (2, 7.0)
    assert [lease(coalescer).key for _ in range(2)] == [BERT, CARL]


def test_a_time_that_was_set_for_one_profile_does_not_wake_the_next_one_of_its_key(coalescer: Coalescer) -> None:
    """Parked, forgotten where it waited, and another one of the key parked for longer."""
    add(coalescer, ANNA, 0)
    lease(coalescer)
    coalescer.give_back(ANNA, not_before=5.0)
    coalescer.forget(ANNA, 1, 1.0)
    coalescer.settle(ANNA)
    add(coalescer, ANNA, 2)
    lease(coalescer)
    coalescer.give_back(ANNA, not_before=9.0)
    coalescer.wake(6.0)
    assert (coalescer.ready, coalescer.wakes_at()) == (0, 9.0)


def test_nor_is_it_when_the_next_one_wakes(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0)
    lease(coalescer)
    coalescer.give_back(ANNA, not_before=5.0)
    coalescer.forget(ANNA, 1, 1.0)
    coalescer.settle(ANNA)
    add(coalescer, ANNA, 2)
    lease(coalescer)
    coalescer.give_back(ANNA, not_before=9.0)
    assert coalescer.wakes_at() == 9.0


def test_an_event_for_a_parked_profile_does_not_let_it_go_sooner(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0, Lane.BACKFILL)
    lease(coalescer, Lane.BACKFILL)
    coalescer.give_back(ANNA, not_before=5.0)
    add(coalescer, ANNA, 1, Lane.LIVE)
    assert coalescer.ready == 0
    coalescer.wake(5.0)
    assert [coalescer.ready_in(lane) for lane in Lane] == [1, 0, 0]


# -- many at once -----------------------------------------------------------------------------------------------------


def one_by_one(coalescer: Coalescer, lane: Lane, most: int, most_bytes: int) -> list[Profile]:
    """What `lease_oldest` promises to do."""
    taken: list[Profile] = []
    size = 0
    while len(taken) < most and (head := coalescer.head(lane)) is not None:
        size += len(head.content)
        if taken and size > most_bytes:
            break
        coalescer.lease(head)
        taken.append(head)
    return taken


LANE = st.sampled_from(list(Lane))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(KEYS), LANE),
        st.tuples(st.just("add"), st.sampled_from(KEYS), st.just(Lane.LIVE)),
        st.tuples(st.just("give_back"), st.sampled_from([None, 3.0])),
        st.tuples(st.just("settle")),
        st.tuples(st.just("wake")),
        st.tuples(st.just("take"), LANE, st.integers(1, 4), st.sampled_from([0, 20, 30, 40, 1_000])),
    ),
    min_size=10,
    max_size=40,
)


@given(STEPS)
def test_many_are_taken_at_once_as_they_would_be_one_by_one(steps: list[tuple[object, ...]]) -> None:
    at_once, singly = Coalescer(merge), Coalescer(merge)
    for offset, (what, *choice) in enumerate(steps):
        taken = [
            apply(one, take, what, choice, offset)
            for one, take in ((at_once, Coalescer.lease_oldest), (singly, one_by_one))
        ]
        assert taken[0] == taken[1]
        assert seen(at_once) == seen(singly)


def apply(coalescer: Coalescer, take: object, what: object, given: list[object], offset: int) -> object:
    leased = [profile.key for profile in coalescer.leased_profiles()]
    if what == "add":
        key, lane = given
        coalescer.add(event(key, n="x" * (offset % 7)), offset, lane, float(offset))  # type: ignore[arg-type]
    elif what == "wake":
        coalescer.wake(3.0)
    elif what == "take":
        return take(coalescer, *given)  # type: ignore[operator]
    elif leased:
        coalescer.settle(leased[0]) if what == "settle" else coalescer.give_back(leased[0], *given)  # type: ignore[arg-type]
    return None


def seen(coalescer: Coalescer) -> tuple[object, ...]:
    ready = [coalescer.ready_in(lane) for lane in Lane]
    heads = [coalescer.head(lane) for lane in Lane]
    return ready, heads, coalescer.bytes, coalescer.events, coalescer.waiting, list(coalescer.leased_profiles())


def test_a_profile_too_big_for_a_batch_goes_alone(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0, note="x" * 100)
    add(coalescer, BERT, 1)
    assert [profile.key for profile in coalescer.lease_oldest(Lane.LIVE, 10, 50)] == [ANNA]
    assert [profile.key for profile in coalescer.lease_oldest(Lane.LIVE, 10, 50)] == [BERT]


def test_a_batch_may_be_exactly_as_big_as_allowed(coalescer: Coalescer) -> None:
    size = sum(len(add(coalescer, key, offset).content) for offset, key in enumerate(KEYS[:3]))
    assert len(coalescer.lease_oldest(Lane.LIVE, 10, size)) == 3
    for key in KEYS[:3]:
        coalescer.give_back(key)
    assert len(coalescer.lease_oldest(Lane.LIVE, 10, size)) == 3, "the same for what came back"
    for key in KEYS[:3]:
        coalescer.give_back(key)
    assert len(coalescer.lease_oldest(Lane.LIVE, 10, size - 1)) == 2


def test_what_came_back_goes_before_what_is_as_old_and_never_came_out(coalescer: Coalescer) -> None:
    for key in (ANNA, BERT):
        coalescer.add(event(key), 0, Lane.LIVE, 1.0)
    assert lease(coalescer).key == ANNA
    coalescer.give_back(ANNA)
    assert lease_any(coalescer).key == ANNA  # type: ignore[union-attr]
    assert content(lease(coalescer)) == {}


def test_many_at_once_are_limited_by_bytes_as_well(coalescer: Coalescer) -> None:
    for offset, key in enumerate(KEYS):
        add(coalescer, key, offset, note="x" * 20)
    size = len(coalescer.find(ANNA)[0].content)  # type: ignore[union-attr]
    assert len(coalescer.lease_oldest(Lane.LIVE, 10, 3 * size - 1)) == 2
    assert len(coalescer.lease_oldest(Lane.LIVE, 10, 3 * size)) == 3


def test_what_came_back_is_among_many_at_its_age(coalescer: Coalescer) -> None:
    for offset, key in enumerate([ANNA, BERT, CARL]):
        add(coalescer, key, offset)
    lease(coalescer)
    lease(coalescer)
    coalescer.give_back(BERT)
    coalescer.give_back(ANNA)
    assert [profile.key for profile in coalescer.lease_oldest(Lane.LIVE, 2, 1_000)] == [ANNA, BERT]


def test_a_profile_cannot_be_leased_twice(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0)
    profile = lease(coalescer)
    with pytest.raises(AssertionError, match=r"^a key is never leased twice"):
        coalescer.lease(profile)


# -- order and lanes --------------------------------------------------------------------------------------------------


def test_what_is_lifted_out_of_a_worse_lane_goes_by_its_age(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 1, Lane.LIVE)
    add(coalescer, BERT, 2, Lane.BACKFILL)
    add(coalescer, CARL, 3, Lane.LIVE)
    add(coalescer, BERT, 4, Lane.LIVE)
    assert [lease(coalescer).key for _ in range(3)] == [ANNA, BERT, CARL]


def test_a_clock_that_was_set_back_does_not_change_the_order_of_what_waits(coalescer: Coalescer) -> None:
    """New profiles leave by arrival; one more event of the same lane moves nobody."""
    coalescer.add(event(ANNA), 0, Lane.LIVE, 5.0)
    coalescer.add(event(BERT), 1, Lane.LIVE, 3.0)
    coalescer.add(event(BERT), 2, Lane.LIVE, 3.5)
    assert [lease(coalescer).key for _ in range(2)] == [ANNA, BERT]


def test_what_waits_behind_a_lease_changes_its_lane_without_being_counted_ready(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0, Lane.BACKFILL)
    lease(coalescer, Lane.BACKFILL)
    add(coalescer, ANNA, 1, Lane.BACKFILL)
    add(coalescer, ANNA, 2, Lane.LIVE)
    assert [coalescer.ready_in(lane) for lane in Lane] == [0, 0, 0]
    coalescer.settle(ANNA)
    assert [coalescer.ready_in(lane) for lane in Lane] == [1, 0, 0]


# -- what is known of an event ----------------------------------------------------------------------------------------


def test_a_new_slot_knows_all_of_its_event(coalescer: Coalescer) -> None:
    audiences = {"aam/1": Membership(True, 1.0)}
    coalescer.add(Event(ANNA, b'{"a":1}', 1, audiences), 4, Lane.REPLAY, 9.0, certain=False, still_seconds=7.0)
    coalescer.add(Event(BERT, b'{"a":1}', 1, timestamp=3.0), 5, Lane.LIVE, 9.5)
    timed = Profile(BERT, b'{"a":1}', 1, Lane.LIVE, 5, 5, 5, 1, 9.5, stamps={"a": 3.0})
    plain = Profile(ANNA, b'{"a":1}', 1, Lane.REPLAY, 4, 4, 4, 1, 9.0, audiences, certain=False, still_seconds=7.0)
    assert coalescer.find(ANNA)[0] == plain
    assert coalescer.find(BERT)[0] == timed


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_one_event_that_recovery_read_is_enough_for_a_profile_to_be_sent(
    coalescer: Coalescer, first: bool, second: bool
) -> None:
    """Only a profile of which everything is certain may be suppressed."""
    coalescer.add(event(ANNA), 0, Lane.LIVE, 0.0, certain=first)
    coalescer.add(event(ANNA), 1, Lane.LIVE, 1.0, certain=second)
    assert lease(coalescer).certain is (first and second)
