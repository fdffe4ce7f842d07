"""Dead letters handed in again: apart from the newer state until hand-over, and counted from the beginning."""

from __future__ import annotations

import pytest
from slots import ANNA, add, lease, letter, merge

from engine.core.coalescer import PROFILE_OVERHEAD_BYTES, Coalescer
from engine.model import NOTHING, Event, Kind, Lane, Membership, Profile

ASKER = object()


@pytest.fixture
def coalescer() -> Coalescer:
    return Coalescer(merge)


def test_a_replay_alone_gets_a_place_of_its_own_in_its_lane(coalescer: Coalescer) -> None:
    coalescer.add_replay(letter(ANNA, 7, through=5, zip=1), 20, 2.0)
    part = Profile(ANNA, b'{"zip": 1}', 1, Lane.REPLAY, NOTHING, 5, 20, 1, 2.0, letter=7)
    slot = Profile(ANNA, b"{}", 0, Lane.REPLAY, 20, NOTHING, 20, 0, 2.0, under=[part])
    assert coalescer.find(ANNA) == (slot, None)
    assert (coalescer.events, coalescer.watermark(30), coalescer.ready_in(Lane.REPLAY)) == (1, 20, 1)
    assert coalescer.bytes == PROFILE_OVERHEAD_BYTES + len(b"{}")


def test_a_replay_brings_what_the_letter_knew(coalescer: Coalescer) -> None:
    audiences = {"aam/1": Membership(True, 1.0)}
    replayed = Event(ANNA, b"{}", 1, audiences, kind=Kind.REPLAY, through=5, letter=7)
    coalescer.add_replay(replayed, 20, 2.0, certain=False, tracker=ASKER)
    part = Profile(ANNA, b"{}", 1, Lane.REPLAY, NOTHING, 5, 20, 1, 2.0, audiences, letter=7, certain=False)
    part.receipts = ASKER
    slot = coalescer.find(ANNA)[0]
    assert slot is not None
    assert slot.under == [part]


def test_replays_join_a_profile_that_waits_and_keep_their_order(coalescer: Coalescer) -> None:
    """The place in the better lane stays, the content is not touched, every event counts once."""
    slot = add(coalescer, ANNA, 10, city="Paris")
    for offset, number in enumerate([7, 8], 20):
        coalescer.add_replay(letter(ANNA, number, through=number, zip=number), offset, 2.0)
    assert coalescer.find(ANNA) == (slot, None)
    assert (slot.content, slot.lane, slot.last, slot.through) == (b'{"city": "Paris"}', Lane.LIVE, 21, 10)
    assert [part.letter for part in slot.under or ()] == [7, 8]
    assert (coalescer.events, coalescer.ready, coalescer.watermark(30)) == (3, 1, 10)


def test_a_replay_lifts_backfill_into_its_own_lane(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 10, Lane.BACKFILL)
    coalescer.add_replay(letter(ANNA, 7, through=5), 20, 2.0)
    assert [coalescer.ready_in(lane) for lane in Lane] == [0, 1, 0]


def test_a_replay_of_a_profile_that_is_all_on_disk_holds_the_watermark_again(coalescer: Coalescer) -> None:
    slot = add(coalescer, ANNA, 10)
    coalescer.holding(slot)
    coalescer.held(ANNA, 10)
    assert coalescer.watermark(30) == 30
    coalescer.add_replay(letter(ANNA, 7, through=5), 30, 2.0)
    assert (slot.lowest, coalescer.watermark(31)) == (30, 30)


def test_a_replay_behind_an_attempt_waits_for_it(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 10, city="Paris")
    leased = lease(coalescer)
    coalescer.add_replay(letter(ANNA, 7, through=5), 20, 20.0)
    assert coalescer.ready == 0
    assert coalescer.give_back(ANNA) is coalescer.find(ANNA)[0]
    joined = lease(coalescer)
    assert (joined.content, joined.lowest, joined.last, joined.oldest_at) == (leased.content, 10, 20, 10.0)
    assert [part.letter for part in joined.under or ()] == [7]
    assert coalescer.settle(ANNA) is joined
    assert (coalescer.events, coalescer.watermark(30)) == (0, 30)
