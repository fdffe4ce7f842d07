"""The conservation sums, recomputed from what is stored."""

from __future__ import annotations

from engine.core.audit import Addressed, Backlog, Sums, outcomes_of, report
from engine.model import Append, Event, Kind, Outcome

KEYS = [bytes([n]) * 32 for n in range(4)]


def append(first: int, keys: list[int], *, source: str = "crm", kind: int = Kind.PROFILE, to: str = "") -> Append:
    events = [Event(KEYS[n], b"{}", 1, kind=kind, destination=to) for n in keys]
    return Append(events, source, first=first)


def backlog(watermark: int = 0, sources: set[str] | None = None, accounted: dict[int, int] | None = None) -> Backlog:
    known = {KEYS[n]: offset for n, offset in (accounted or {}).items()}
    return Backlog("demo", watermark, Addressed(None if sources is None else frozenset(sources)), known)


def counted(backlog: Backlog, *appends: Append) -> tuple[int, int]:
    for one in appends:
        backlog.add(one)
    return backlog.pending, backlog.not_addressed


def test_what_lies_below_the_watermark_is_settled() -> None:
    assert counted(backlog(watermark=2), append(0, [0, 1, 2])) == (1, 0)


def test_what_is_settled_or_held_above_the_watermark_is_not_pending() -> None:
    assert counted(backlog(accounted={0: 1, 1: 2}), append(0, [0, 0, 1, 0])) == (1, 0)


def test_events_of_other_sources_do_not_concern_it() -> None:
    assert counted(backlog(sources={"crm"}), append(0, [0]), append(1, [1, 2], source="web")) == (1, 2)


def test_a_forget_counts_for_nobody() -> None:
    assert counted(backlog(), append(0, [0], source="", kind=Kind.FORGET)) == (0, 1)


def test_a_replay_counts_for_the_destination_it_was_made_for() -> None:
    mine, other = (append(n, [0], source="", kind=Kind.REPLAY, to=to) for n, to in enumerate(["demo", "other"]))
    assert counted(backlog(sources={"web"}), mine) == (1, 0)
    assert counted(backlog(sources={"web"}), other) == (0, 1)


def test_a_change_counts_for_those_that_deliver_changes_and_nothing_else_does() -> None:
    change, profile = append(0, [0, 1], source="", kind=Kind.CHANGE), append(2, [0])
    assert counted(backlog(), change, profile) == (1, 2)
    forward = Backlog("hook", 0, Addressed(frozenset(), Kind.CHANGE), {})
    assert counted(forward, change, profile) == (2, 1)


def test_reasons_add_up_under_their_outcome_and_every_outcome_is_there() -> None:
    sums = outcomes_of({"delivered": 5, "excluded:no_email": 2, "excluded:audience": 3})
    assert sums == {**dict.fromkeys(map(str, Outcome), 0), "delivered": 5, "excluded": 5}


def test_sums_that_come_out_even_are_fine() -> None:
    even = report({"demo": Sums(10, outcomes_of({"delivered": 7}), 3)})
    assert (even["ok"], even["problems"]) == (True, [])
    assert even["destinations"]["demo"]["residual"] == 0  # type: ignore[index]


def test_a_lost_and_a_doubled_event_are_told_apart() -> None:
    sums = {"lost": Sums(10, {"delivered": 7}, 2), "doubled": Sums(10, {"delivered": 9}, 2)}
    problems = report(sums)["problems"]
    assert problems == [
        "destination 'lost': 1 events have no outcome and are not pending",
        "destination 'doubled': 1 events are counted more than once",
    ]
    assert report(sums)["ok"] is False


def test_what_the_reader_found_missing_makes_it_not_ok() -> None:
    assert report({}, ["offsets 3 to 5 are not all in the journal"])["ok"] is False


def test_offsets_are_those_of_the_journal_not_of_the_append() -> None:
    assert counted(backlog(watermark=10), append(8, [0, 1, 2, 3])) == (2, 0)
    assert counted(backlog(accounted={0: 8}), append(8, [0])) == (0, 0)


def test_only_profiles_and_replays_are_somebody_s_events() -> None:
    """A forget concerns every destination and is counted by none, whatever stands in its other fields."""
    assert counted(backlog(), append(0, [0, 1], source="", kind=Kind.FORGET, to="other")) == (0, 2)
    assert counted(backlog(), append(0, [0, 1], source="", kind=Kind.FORGET, to="demo")) == (0, 2)


def test_several_appends_add_up() -> None:
    assert counted(backlog(), append(0, [0]), append(1, [1, 2]), append(3, [3])) == (4, 0)


def test_what_is_reported_are_the_sums_under_their_names() -> None:
    assert Sums(10, {"delivered": 7}, 2).report() == {"accepted": 10, "delivered": 7, "pending": 2, "residual": 1}
