"""A forget in the coalescer: nothing of the key leaves before it is erased, and every event gets its outcome once."""

from __future__ import annotations

import pytest
from slots import ANNA, BERT, CARL, add, lease, letter, merge

from engine.core.coalescer import Coalescer
from engine.model import NOTHING, Event, Lane, Profile

ASKER, OTHER = object(), object()


@pytest.fixture
def coalescer() -> Coalescer:
    return Coalescer(merge)


def marker(key: bytes, offset: int, *, lowest: int, through: int, events: int, **more: object) -> Profile:
    """A forget that was accepted at as many seconds as its offset says."""
    return Profile(key, b"{}", 0, Lane.LIVE, lowest, through, offset, events, float(offset), **more)  # type: ignore[arg-type]


def test_what_waits_ends_with_the_forget_without_its_content(coalescer: Coalescer) -> None:
    coalescer.add(Event(ANNA, b'{"city":"Lille"}', 1), 4, Lane.LIVE, 4.0, tracker=ASKER)
    coalescer.forget(ANNA, 5, 5.0)
    found = coalescer.next_marker()
    assert found == marker(ANNA, 5, lowest=4, through=4, events=1, receipts=[(ASKER, 4, 1)])
    assert coalescer.find(ANNA) == (None, found)
    assert (coalescer.watermark(9), coalescer.events, coalescer.ready) == (4, 1, 0)
    coalescer.settle(ANNA)
    assert (coalescer.watermark(9), coalescer.events, coalescer.leased) == (9, 0, 0)


def test_a_forget_of_somebody_unknown_holds_the_watermark_until_it_is_erased(coalescer: Coalescer) -> None:
    coalescer.forget(ANNA, 5, 5.0)
    assert coalescer.next_marker() == marker(ANNA, 5, lowest=5, through=NOTHING, events=0)
    assert coalescer.watermark(9) == 5
    coalescer.settle(ANNA)
    assert coalescer.watermark(9) == 9


def test_an_attempt_under_way_ends_first(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0)
    add(coalescer, BERT, 1)
    lease(coalescer)
    coalescer.forget(ANNA, 2, 2.0)
    assert coalescer.is_forgotten(ANNA)
    assert not coalescer.is_forgotten(BERT)
    assert coalescer.next_marker() is None
    with pytest.raises(AssertionError, match=r"^a forgotten profile is settled, not given back"):
        coalescer.give_back(ANNA)
    lease(coalescer)
    assert coalescer.settle(BERT).last == 1, "the forget of another key is none of its business"
    assert coalescer.settle(ANNA).last == 0
    assert coalescer.next_marker() == marker(ANNA, 2, lowest=2, through=NOTHING, events=0)


def test_two_forgets_behind_one_attempt_become_one_with_the_events_of_both(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0)
    lease(coalescer)
    coalescer.add(Event(ANNA, b"{}", 1), 1, Lane.LIVE, 1.0, tracker=ASKER)
    coalescer.forget(ANNA, 2, 2.0)
    coalescer.add(Event(ANNA, b"{}", 1), 3, Lane.LIVE, 3.0, tracker=OTHER)
    coalescer.forget(ANNA, 4, 4.0)
    assert coalescer.events == 3
    coalescer.settle(ANNA)
    expected = marker(ANNA, 4, lowest=1, through=3, events=2, receipts=[(ASKER, 1, 1), (OTHER, 3, 1)])
    assert coalescer.next_marker() == expected
    assert (coalescer.next_marker(), coalescer.watermark(9)) == (None, 1)
    coalescer.settle(ANNA)
    assert (coalescer.events, coalescer.watermark(9)) == (0, 9)


def test_a_second_forget_with_nothing_between_keeps_what_the_first_one_took(coalescer: Coalescer) -> None:
    add(coalescer, ANNA, 0)
    lease(coalescer)
    add(coalescer, ANNA, 1)
    coalescer.forget(ANNA, 2, 2.0)
    coalescer.forget(ANNA, 3, 3.0)
    coalescer.settle(ANNA)
    assert coalescer.next_marker() == marker(ANNA, 3, lowest=1, through=1, events=1)


def test_what_came_after_the_forget_waits_behind_it_and_may_go_when_it_is_done(coalescer: Coalescer) -> None:
    coalescer.forget(ANNA, 0, 0.0)
    after = add(coalescer, ANNA, 1)
    assert coalescer.ready == 0
    coalescer.settle(ANNA)
    assert lease(coalescer) is after


def test_replays_that_were_waiting_end_with_it_too(coalescer: Coalescer) -> None:
    """And whoever asked for one of them is told, after whoever asked for the events."""
    coalescer.add(Event(ANNA, b"{}", 1), 8, Lane.LIVE, 8.0, tracker=OTHER)
    coalescer.add_replay(letter(ANNA, 1, through=2), 9, 9.0, tracker=ASKER)
    coalescer.add_replay(letter(ANNA, 2, through=3), 10, 10.0)
    coalescer.forget(ANNA, 11, 11.0)
    expected = marker(ANNA, 11, lowest=8, through=10, events=3, receipts=[(OTHER, 8, 1), (ASKER, 9, 1)])
    assert coalescer.next_marker() == expected


def test_what_is_on_disk_of_the_key_is_known_to_the_marker(coalescer: Coalescer) -> None:
    """It must not be folded in or counted a second time when the marker is settled."""
    waiting = add(coalescer, ANNA, 0)
    coalescer.holding(waiting)
    coalescer.forget(ANNA, 1, 1.0)
    assert coalescer.next_marker() == marker(ANNA, 1, lowest=0, through=0, events=1, held_through=0)


def test_what_is_on_disk_of_an_attempt_under_way_is_known_to_the_marker(coalescer: Coalescer) -> None:
    coalescer.holding(add(coalescer, ANNA, 0))
    lease(coalescer)
    coalescer.held(ANNA, 0)
    add(coalescer, ANNA, 1)
    coalescer.forget(ANNA, 2, 2.0)
    assert coalescer.watermark(9) == 1, "what was leased is on disk; what the forget took is not"
    coalescer.settle(ANNA)
    assert coalescer.next_marker() == marker(ANNA, 2, lowest=1, through=1, events=1, held_through=0)


def test_only_markers_whose_key_the_journal_no_longer_holds_are_due(coalescer: Coalescer) -> None:
    for offset, key in enumerate([ANNA, BERT, CARL]):
        coalescer.forget(key, offset, float(offset))
    found = coalescer.next_marker(lambda key, offset: (key, offset) == (BERT, 1))
    assert found is not None
    assert found.key == BERT
    assert [coalescer.next_marker().key for _ in range(2)] == [ANNA, CARL]  # type: ignore[union-attr]
    assert coalescer.next_marker() is None
