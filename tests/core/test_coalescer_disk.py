"""Profiles and their copies on disk: nothing is stepped over before its copy is durable, nothing is counted twice."""

from __future__ import annotations

import pytest
from slots import ANNA, BERT, CARL, KEYS, add, content, event, lease, lease_any, merge, stored

from engine.core.coalescer import PROFILE_OVERHEAD_BYTES, Coalescer
from engine.model import NOTHING, Held, HeldKind, Lane, Profile


@pytest.fixture
def coalescer() -> Coalescer:
    return Coalescer(merge)


# -- a copy on its way ------------------------------------------------------------------------------------------------


def test_the_watermark_passes_a_profile_when_its_copy_is_durable_and_not_before(coalescer: Coalescer) -> None:
    profile = add(coalescer, ANNA, 0)
    coalescer.holding(profile)
    assert (profile.held_through, coalescer.watermark(9)) == (0, 0)
    coalescer.held(ANNA, 0)
    assert (profile.lowest, coalescer.watermark(9)) == (NOTHING, 9)


def test_an_event_that_came_after_the_copy_still_holds_the_watermark(coalescer: Coalescer) -> None:
    profile = add(coalescer, ANNA, 0)
    coalescer.holding(profile)
    add(coalescer, ANNA, 3)
    add(coalescer, ANNA, 5)
    coalescer.held(ANNA, 0)
    assert (profile.lowest, coalescer.watermark(9)) == (3, 3)


def test_a_copy_of_something_else_releases_nothing(coalescer: Coalescer) -> None:
    coalescer.holding(add(coalescer, ANNA, 3))
    coalescer.held(ANNA, 2)
    coalescer.held(BERT, 3)
    assert coalescer.watermark(9) == 3


def test_a_profile_may_leave_while_its_copy_is_written(coalescer: Coalescer) -> None:
    """The copy stands for the leased one then: the watermark passes it, and the lease ends as any other."""
    coalescer.holding(add(coalescer, ANNA, 0))
    leased = lease(coalescer)
    coalescer.held(ANNA, 0)
    assert (leased.lowest, coalescer.watermark(9)) == (NOTHING, 9)
    assert coalescer.settle(ANNA) is leased
    assert coalescer.events == 0


def test_what_came_behind_a_lease_is_not_in_the_copy_that_was_taken_before(coalescer: Coalescer) -> None:
    """The lease comes back and is folded under what came meanwhile, and only then the copy becomes durable."""
    coalescer.holding(add(coalescer, ANNA, 0))
    lease(coalescer)
    add(coalescer, ANNA, 4)
    coalescer.give_back(ANNA)
    assert coalescer.watermark(9) == 0
    coalescer.held(ANNA, 0)
    assert coalescer.watermark(9) == 4
    assert lease(coalescer).lowest == 4


def test_the_first_event_after_the_copy_is_remembered_across_a_lease_that_comes_back(coalescer: Coalescer) -> None:
    coalescer.holding(add(coalescer, ANNA, 0))
    add(coalescer, ANNA, 2)
    lease(coalescer)
    add(coalescer, ANNA, 4)
    coalescer.give_back(ANNA)
    coalescer.held(ANNA, 0)
    assert coalescer.watermark(9) == 2


def test_a_lease_that_is_all_on_disk_comes_back_under_what_is_not(coalescer: Coalescer) -> None:
    coalescer.holding(add(coalescer, ANNA, 0, city="Lille"))
    coalescer.held(ANNA, 0)
    lease(coalescer)
    add(coalescer, ANNA, 4, zip=1)
    joined = coalescer.give_back(ANNA)
    assert content(joined) == {"city": "Lille", "zip": 1}
    assert (joined.lowest, coalescer.watermark(9)) == (4, 4)


def test_once_a_lease_is_settled_its_copy_is_nobody_s_business(coalescer: Coalescer) -> None:
    coalescer.holding(add(coalescer, ANNA, 0))
    lease(coalescer)
    coalescer.settle(ANNA)
    later = add(coalescer, ANNA, 1)
    assert coalescer.may_be_held(later)
    coalescer.held(ANNA, 0)
    assert coalescer.watermark(9) == 1


def test_only_what_waits_with_nothing_under_way_may_be_copied(coalescer: Coalescer) -> None:
    profile = add(coalescer, ANNA, 0)
    assert coalescer.may_be_held(profile)
    assert not coalescer.may_be_held(stored(ANNA, 0)), "another one of the same key"
    coalescer.holding(profile)
    assert not coalescer.may_be_held(profile), "a copy is on its way"
    coalescer.held(ANNA, 0)
    lease(coalescer)
    assert not coalescer.may_be_held(profile), "it is leased"
    assert not coalescer.may_be_held(add(coalescer, ANNA, 1)), "it waits behind a lease"


# -- stragglers -------------------------------------------------------------------------------------------------------


def test_stragglers_are_those_below_a_line_in_order(coalescer: Coalescer) -> None:
    first, second, _ = (add(coalescer, key, offset) for offset, key in enumerate([ANNA, BERT, CARL]))
    assert coalescer.stragglers(2, 10) == [first, second]


def test_too_many_stragglers_are_the_backlog_itself(coalescer: Coalescer) -> None:
    for offset, key in enumerate([ANNA, BERT, CARL]):
        add(coalescer, key, offset)
    assert len(coalescer.stragglers(9, 3)) == 3
    assert coalescer.stragglers(9, 2) == []


def test_what_is_under_way_is_no_straggler(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0)
    lease(coalescer)
    add(coalescer, ANNA, 1)
    coalescer.holding(add(coalescer, BERT, 2))
    free = add(coalescer, CARL, 3)
    assert coalescer.stragglers(9, 10) == [free]


def test_a_straggler_counts_where_it_holds_the_watermark_not_where_it_once_did(coalescer: Coalescer) -> None:
    """Its first event is on disk, a later one is not: one entry, at the later one."""
    profile = add(coalescer, ANNA, 0)
    coalescer.holding(profile)
    coalescer.held(ANNA, 0)
    add(coalescer, ANNA, 5)
    assert coalescer.stragglers(5, 10) == []
    assert coalescer.stragglers(6, 10) == [profile]


# -- out to disk ------------------------------------------------------------------------------------------------------


def test_evicted_is_only_backfill_that_waits_freely_and_is_not_on_its_way_already(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0, Lane.BACKFILL)
    add(coalescer, ANNA, 1, Lane.LIVE)  # it sits in a better lane now
    coalescer.holding(add(coalescer, BERT, 2, Lane.BACKFILL))
    free = add(coalescer, CARL, 3, Lane.BACKFILL)
    assert coalescer.evictable(10) == [free]
    assert coalescer.evictable(0) == []


def test_what_is_unloaded_is_no_longer_in_memory_and_not_counted_here(coalescer: Coalescer) -> None:
    profile = add(coalescer, ANNA, 0, Lane.BACKFILL)
    coalescer.holding(profile)
    coalescer.held(ANNA, 0)
    assert coalescer.unload(BERT, 0) is None
    assert coalescer.unload(ANNA, 0) is profile
    assert (len(coalescer), coalescer.events, coalescer.bytes, coalescer.ready) == (0, 0, 0, 0)
    assert lease_any(coalescer, Lane.BACKFILL) is None


def test_what_sits_in_a_better_lane_by_now_is_not_unloaded(coalescer: Coalescer) -> None:
    coalescer.holding(add(coalescer, ANNA, 0, Lane.LIVE))
    coalescer.held(ANNA, 0)
    assert coalescer.unload(ANNA, 0) is None


# -- back from disk ---------------------------------------------------------------------------------------------------


def test_what_is_loaded_waits_in_its_lane_and_does_not_hold_the_watermark(coalescer: Coalescer) -> None:
    other = add(coalescer, BERT, 9)
    from_disk = stored(ANNA, 4, events=3, city="Lille")
    assert coalescer.load(from_disk)
    expected = Profile(ANNA, b'{"city": "Lille"}', 1, Lane.BACKFILL, NOTHING, 4, 4, 3, 4.0, held_through=4)
    assert coalescer.find(ANNA) == (expected, None)
    assert (coalescer.events, coalescer.ready_in(Lane.BACKFILL), coalescer.watermark(10)) == (4, 1, 9)
    assert coalescer.bytes == len(from_disk.content) + len(other.content) + 2 * PROFILE_OVERHEAD_BYTES
    assert lease(coalescer, Lane.BACKFILL) is from_disk


def test_what_is_loaded_goes_by_its_age(coalescer: Coalescer) -> None:
    add(coalescer, BERT, 7, Lane.BACKFILL)
    coalescer.load(stored(CARL, 5))
    coalescer.load(stored(ANNA, 4))
    assert [lease(coalescer, Lane.BACKFILL).key for _ in range(3)] == [ANNA, CARL, BERT]


def test_a_profile_is_not_loaded_over_one_of_its_key(coalescer: Coalescer) -> None:
    """Hand-over folds the two, whether the one here waits or is leased."""
    waiting = add(coalescer, ANNA, 9)
    assert not coalescer.load(stored(ANNA, 4))
    lease(coalescer)
    assert not coalescer.load(stored(ANNA, 4))
    assert coalescer.find(ANNA) == (None, waiting)
    assert coalescer.events == 1


def test_what_is_on_disk_folds_under_what_waits_and_lends_it_its_place(coalescer: Coalescer) -> None:
    add(coalescer, BERT, 5)
    profile = add(coalescer, ANNA, 9, city="Paris")
    gained = coalescer.absorb(profile, Held(HeldKind.WAITING, stored(ANNA, 4, events=3, city="Lille", zip=1)))
    assert (gained, coalescer.events, profile.events) == (3, 5, 4)
    assert content(profile) == {"city": "Paris", "zip": 1}
    assert coalescer.content_bytes == len(profile.content) + len(b'{"n": 5}')
    assert coalescer.ready == 2
    assert [lease(coalescer).key for _ in range(2)] == [ANNA, BERT], "it is as old as what was on disk"


def test_what_is_on_disk_may_lift_what_waits_into_its_lane(coalescer: Coalescer) -> None:
    profile = add(coalescer, ANNA, 4, Lane.BACKFILL)
    held = stored(ANNA, 4, lane=Lane.LIVE)
    held.last = 3  # older, of the same time
    coalescer.absorb(profile, Held(HeldKind.WAITING, held))
    assert [coalescer.ready_in(lane) for lane in Lane] == [1, 0, 0]
    coalescer.absorb(profile, Held(HeldKind.WAITING, held))
    assert (coalescer.ready, coalescer.events) == (1, 2), "a second time there is nothing to gain"


def test_a_parked_profile_stays_parked_when_what_is_on_disk_is_folded_in(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 9)
    lease(coalescer)
    profile = coalescer.give_back(ANNA, not_before=50.0)
    assert coalescer.absorb(profile, Held(HeldKind.WAITING, stored(ANNA, 4))) == 1
    assert (coalescer.ready, coalescer.wakes_at()) == (0, 50.0)
    coalescer.wake(50.0)
    assert (coalescer.ready, lease(coalescer)) == (1, profile)


def test_a_parked_profile_is_not_counted_ready_in_the_lane_it_is_lifted_into(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 9, Lane.BACKFILL)
    lease(coalescer, Lane.BACKFILL)
    profile = coalescer.give_back(ANNA, not_before=50.0)
    coalescer.absorb(profile, Held(HeldKind.WAITING, stored(ANNA, 4, lane=Lane.LIVE)))
    assert [coalescer.ready_in(lane) for lane in Lane] == [0, 0, 0]
    coalescer.wake(50.0)
    assert [coalescer.ready_in(lane) for lane in Lane] == [1, 0, 0]


def test_what_is_on_disk_and_no_older_moves_nobody(coalescer: Coalescer) -> None:
    coalescer.add(event(ANNA), 8, Lane.LIVE, 5.0)
    coalescer.add(event(BERT), 9, Lane.LIVE, 3.0)  # the clock was set back
    waiting, _ = coalescer.find(BERT)
    assert waiting is not None
    coalescer.absorb(waiting, Held(HeldKind.WAITING, stored(BERT, 7)))
    assert [lease(coalescer).key for _ in range(2)] == [ANNA, BERT]


def test_a_lease_may_gain_events_from_disk_and_lose_a_replay(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 9)
    leased = lease(coalescer)
    leased.events += 3
    coalescer.gained(3)
    assert coalescer.events == 4
    leased.events -= 1
    coalescer.gained(-1)
    coalescer.settle(ANNA)
    assert coalescer.events == 0


def test_what_gets_its_outcome_where_it_waits_is_gone(coalescer: Coalescer) -> None:
    """Expired at its place, for one: counted no more, and never leased."""
    for offset, key in enumerate(KEYS[:4]):
        add(coalescer, key, offset)
    waiting, _ = coalescer.find(ANNA)
    assert waiting is not None
    coalescer.take_out(waiting)
    assert (len(coalescer), coalescer.events, coalescer.ready, coalescer.watermark(9)) == (3, 3, 3, 1)
    assert lease(coalescer).key == BERT
    behind = add(coalescer, BERT, 2)
    with pytest.raises(AssertionError, match=r"^an outcome of newer events must not come before that of older ones"):
        coalescer.take_out(behind)
