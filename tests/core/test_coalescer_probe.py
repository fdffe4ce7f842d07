"""Who goes first where something keeps failing: those that were never tried, and the one that failed least."""

from __future__ import annotations

import pytest
from slots import ANNA, BERT, CARL, KEYS, add, lease, merge

from engine.core.coalescer import LOOKED_AT, Coalescer
from engine.model import Lane, Profile


@pytest.fixture
def coalescer() -> Coalescer:
    return Coalescer(merge)


def came_back(coalescer: Coalescer, key: bytes, offset: int, *, tries: int = 1, lane: Lane = Lane.LIVE) -> Profile:
    profile = add(coalescer, key, offset, lane)
    coalescer.lease(profile)
    profile.tries = tries
    return coalescer.give_back(key)


def test_the_never_tried_go_before_what_came_back_where_that_is_wanted(coalescer: Coalescer) -> None:
    back = came_back(coalescer, ANNA, 0)
    fresh = [add(coalescer, key, offset) for offset, key in enumerate([BERT, CARL], 1)]
    assert coalescer.head(Lane.LIVE) is back
    assert coalescer.head(Lane.LIVE, fresh_first=True) is fresh[0]
    assert coalescer.lease_oldest(Lane.LIVE, 10, 1_000, fresh_first=True) == fresh, "and are not mixed with it"
    assert coalescer.lease_oldest(Lane.LIVE, 10, 1_000, fresh_first=True) == [back]
    assert (coalescer.ready, coalescer.bytes) == (0, 0)


def test_where_all_of_them_came_back_they_go_one_by_one(coalescer: Coalescer) -> None:
    profiles = [came_back(coalescer, key, offset) for offset, key in enumerate([ANNA, BERT])]
    assert coalescer.head(Lane.LIVE, fresh_first=True) is profiles[0]
    assert coalescer.lease_oldest(Lane.LIVE, 10, 1_000, fresh_first=True) == profiles[:1]


def test_a_probe_is_the_newest_of_those_that_were_never_tried(coalescer: Coalescer) -> None:
    came_back(coalescer, ANNA, 0)
    add(coalescer, KEYS[3], 1, Lane.BACKFILL)
    middle, newest = (add(coalescer, key, offset) for offset, key in enumerate([BERT, CARL], 2))
    assert coalescer.lease_least_tried() == [newest]
    assert coalescer.find(CARL) == (None, newest)
    assert coalescer.ready == 3
    coalescer.forget(BERT, 5, 5.0)
    assert coalescer.lease_least_tried() != [middle], "it is gone"


def test_else_it_is_the_one_that_failed_least_of_all_lanes(coalescer: Coalescer) -> None:
    assert coalescer.lease_least_tried() == []
    for offset, (key, tries, lane) in enumerate(
        [(ANNA, 3, Lane.LIVE), (BERT, 1, Lane.BACKFILL), (CARL, 2, Lane.LIVE), (KEYS[3], 1, Lane.BACKFILL)]
    ):
        came_back(coalescer, key, offset, tries=tries, lane=lane)
    assert [coalescer.lease_least_tried()[0].key for _ in range(4)] == [BERT, KEYS[3], CARL, ANNA]
    assert coalescer.lease_least_tried() == []
    assert (coalescer.ready, coalescer.waiting, coalescer.leased) == (0, 0, 4)


def test_who_may_not_go_is_no_probe(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0)
    lease(coalescer)
    coalescer.give_back(ANNA, not_before=50.0)
    add(coalescer, BERT, 1)
    lease(coalescer)
    add(coalescer, BERT, 2)
    assert coalescer.lease_least_tried() == []


def test_only_the_oldest_that_came_back_are_compared(coalescer: Coalescer) -> None:
    """And the others are still there afterwards."""
    keys = [n.to_bytes(32, "big") for n in range(LOOKED_AT + 1)]
    for offset, key in enumerate(keys):
        came_back(coalescer, key, offset, tries=5 if offset < LOOKED_AT else 1)
    assert coalescer.lease_least_tried()[0].key == keys[0]
    assert [coalescer.lease_least_tried()[0].key for _ in range(2)] == [keys[1], keys[LOOKED_AT]]
    assert coalescer.ready == LOOKED_AT - 2
