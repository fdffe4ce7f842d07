"""Receipts: ids that tell nothing, and counts that come out even."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.receipts import TIDY_EVERY, ReceiptId, Receipts, Tracker, follow, listed, read_id
from engine.model import Outcome

NAMES = ("plain", "listing")


@given(st.text(max_size=20), st.text(max_size=40), st.integers(0, 2**62), st.integers(0, 10**6))
def test_an_id_comes_back_as_it_was_and_is_its_owner_s_alone(journal: str, owner: str, first: int, count: int) -> None:
    id = ReceiptId.make(journal, owner, first, count)
    known = read_id(id.text())
    assert known == id
    assert known.belongs_to(journal, owner)
    assert not known.belongs_to(journal, owner + "x")
    assert not known.belongs_to(journal + "x", owner)


def test_an_id_fits_into_a_url_and_does_not_name_its_owner() -> None:
    text = ReceiptId.make("journal", "adobe-experience-platform", 7, 3).text()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert b"adobe" not in base64.urlsafe_b64decode(text + "==")


@given(st.text(max_size=100) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_garbage_is_no_id(text: str) -> None:
    """Whatever stands in the URL: None or something that belongs to nobody, never an error."""
    known = read_id(text)
    assert known is None or not known.belongs_to("journal", "owner")


@pytest.mark.parametrize("packed", [[1, 2, 3, 4], ["j", "o", 1], ["j", "o", "1", 2], {"a": 1}, 7])
def test_an_id_of_another_shape_is_no_id(packed: object) -> None:
    assert read_id(base64.urlsafe_b64encode(msgspec.msgpack.encode(packed)).decode()) is None


@pytest.mark.parametrize("text", ["", "é", "a", "%00", "A" * 10_000])
def test_odd_texts_are_no_ids(text: str) -> None:
    assert read_id(text) is None


def test_a_receipt_is_settled_once_every_event_has_its_outcome_everywhere() -> None:
    tracker = Tracker(0, 2, NAMES)
    for name, outcome in [("plain", Outcome.DELIVERED), ("plain", Outcome.SUPERSEDED), ("listing", Outcome.EXCLUDED)]:
        tracker.count(name, outcome)
        assert not tracker.settled
    tracker.count("listing", Outcome.DEAD_LETTERED)
    assert tracker.settled
    assert {name: {k: v for k, v in row.items() if v} for name, row in tracker.report().items()} == {
        "plain": {"delivered": 1, "superseded": 1},
        "listing": {"excluded": 1, "dead_lettered": 1},
    }


def test_the_report_always_adds_up() -> None:
    tracker = Tracker(0, 3, NAMES)
    tracker.count("plain", Outcome.DELIVERED)
    assert [sum(row.values()) for row in tracker.report().values()] == [3, 3]
    assert set(tracker.report()["plain"]) == {"pending", *Outcome}


def test_events_that_do_not_concern_a_destination_are_not_waited_for() -> None:
    tracker = Tracker(0, 2, NAMES)
    tracker.skip("listing", 2)
    assert tracker.report()["listing"]["pending"] == 0
    tracker.count("plain", Outcome.DELIVERED)
    tracker.count("plain", Outcome.DELIVERED)
    assert tracker.settled


@pytest.mark.parametrize("destinations", [(), NAMES])
def test_nothing_to_wait_for_is_settled(destinations: tuple[str, ...]) -> None:
    assert Tracker(0, 2 if not destinations else 0, destinations).settled


def test_who_waits_is_told_once_at_the_end_or_at_once_if_it_is_over() -> None:
    tracker, told = Tracker(0, 1, ["plain"]), []
    tracker.when_settled(lambda: told.append("early"))
    assert told == []
    tracker.count("plain", Outcome.DELIVERED)
    tracker.count("plain", Outcome.DELIVERED)
    tracker.when_settled(lambda: told.append("late"))
    assert told == ["early", "late"]


def test_only_the_newest_are_followed_and_who_waits_for_an_older_one_is_released() -> None:
    receipts, told = Receipts(limit=3), []
    for first in range(5):
        tracker = Tracker(first * 10, 10, NAMES)
        tracker.when_settled(lambda first=first: told.append(first))  # type: ignore[misc]
        receipts.add(tracker)
    assert told == [0, 1]
    assert [receipts.get(first * 10) is not None for first in range(5)] == [False, False, True, True, True]


def test_a_lost_event_is_remembered() -> None:
    tracker = Tracker(0, 1, NAMES)
    told: list[str] = []
    tracker.when_settled(lambda: told.append("before"))
    tracker.lose()
    tracker.when_settled(lambda: told.append("after"))
    assert told == ["before", "after"], "nobody waits for what nobody follows"
    assert tracker.lost
    assert not tracker.settled


@given(st.text(max_size=20), st.integers(0, 2**40))
def test_no_id_needs_to_be_escaped_whatever_its_length(journal: str, first: int) -> None:
    assert "=" not in ReceiptId.make(journal, "crm", first, 1).text()


@pytest.mark.parametrize("journal", ["", "j", "jo"])
def test_an_id_comes_back_whatever_letter_it_ends_with(journal: str) -> None:
    for count in range(300):
        id = ReceiptId.make(journal, "crm", 7, count)
        assert read_id(id.text()) == id


def test_an_id_that_an_earlier_process_gave_out_is_still_read() -> None:
    """Producers keep them, across upgrades too."""
    given_out = "lKdqb3VybmFsrDkyNjFjZWVmMGI5NgcD"
    assert ReceiptId.make("journal", "crm", 7, 3).text() == given_out
    assert read_id(given_out) == ReceiptId.make("journal", "crm", 7, 3)


def test_outcomes_of_one_kind_add_up() -> None:
    tracker = Tracker(0, 5, ["plain"])
    assert tracker.lost is False
    tracker.count("plain", Outcome.DELIVERED, 2)
    tracker.count("plain", Outcome.DELIVERED)
    assert tracker.report()["plain"]["delivered"] == 3
    assert tracker.report()["plain"]["pending"] == 2


def test_a_hundred_thousand_are_followed_and_no_more() -> None:
    receipts = Receipts()
    for first in range(100_001):
        receipts.add(Tracker(first, 1, ()))
    assert receipts.get(0) is None
    assert receipts.get(1) is not None


def test_events_of_one_append_in_one_profile_are_one_entry() -> None:
    one, other = Tracker(0, 9, ["a"]), Tracker(9, 9, ["a"])
    following = follow(None, one, 0)
    for tracker, offset in ((one, 4), (one, 8), (other, 9), (one, 20)):
        following = follow(following, tracker, offset)
    assert following == [(one, 8, 3), (other, 9, 1), (one, 20, 1)]


def test_a_profile_forgets_appends_that_nobody_can_ask_for_any_more() -> None:
    """However often an attendee changes before it is delivered."""
    receipts, following = Receipts(limit=100), None
    for offset in range(10 * TIDY_EVERY):
        tracker = Tracker(offset, 1, ["a"])
        receipts.add(tracker)
        following = follow(following, tracker, offset)
        assert len(following) <= TIDY_EVERY + 100
    assert following is not None
    assert [offset for _, offset, _ in following[-100:]] == list(range(10 * TIDY_EVERY - 100, 10 * TIDY_EVERY))


def test_who_is_not_a_tracker_of_these_receipts_is_never_dropped() -> None:
    askers, following = [object() for _ in range(2 * TIDY_EVERY)], None
    for offset, asker in enumerate(askers):
        following = follow(following, asker, offset)
    assert [one for one, _, _ in following or ()] == askers


def test_tidying_happens_only_now_and_then() -> None:
    """It looks at every entry, so that each time must pay for many events."""
    receipts, following, lengths = Receipts(limit=1), None, []
    for offset in range(TIDY_EVERY):
        tracker = Tracker(offset, 1, ["a"])
        receipts.add(tracker)
        following = follow(following, tracker, offset)
        lengths.append(len(following))
    assert lengths == [*range(1, TIDY_EVERY), 1]
    assert following is not None
    assert following[0][0].followed is True  # type: ignore[attr-defined]


def test_a_tracker_that_fell_out_says_so() -> None:
    receipts, oldest = Receipts(limit=1), Tracker(0, 1, ["a"])
    receipts.add(oldest)
    receipts.add(Tracker(1, 1, ["a"]))
    assert oldest.followed is False


def test_one_tracker_alone_stands_for_one_event() -> None:
    several = [("a", 3, 2), ("b", 4, 1)]
    assert listed(None, 7) == []
    assert listed("a", 7) == [("a", 7, 1)]
    assert listed(several, 7) is several


def test_what_nobody_counted_yet_is_pending_in_full() -> None:
    tracker = Tracker(0, 3, NAMES)
    assert {name: row["pending"] for name, row in tracker.report().items()} == {"plain": 3, "listing": 3}
    assert not tracker.settled
