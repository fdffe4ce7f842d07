"""What an audit finds when journal and state do not agree: each rule up to its edge, and one step beyond it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from slots import ANNA, BERT, stored

from engine.core.consistency import (
    HeldCheck,
    of_destination,
    problems_of_counts,
    problems_of_memory,
    problems_of_offsets,
    problems_of_pauses,
)
from engine.model import Held, HeldKind, Outcome, Profile
from engine.ports import ConsumerState, Inspection

FOLLOWING = 500
"""Where the journal ends."""


def consumer(**more: Any) -> ConsumerState:
    """One that has read and settled everything, of which five offsets were not for it."""
    fields = {"start": 100, "watermark": 400, "read_to": 500, "not_addressed": 300} | more
    return ConsumerState("demo", "here", clean=True, **fields)


def ledger(**more: Any) -> Inspection:
    return Inspection(**{"settled_through": 499, "confirmed_through": 499, "problems": []} | more)


# -- offsets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"start": 0}, {"start": 400}, {"watermark": 500}])
def test_offsets_in_their_order_are_no_problem(more: dict[str, int]) -> None:
    assert list(problems_of_offsets(consumer(**more), ledger(), FOLLOWING)) == []


@pytest.mark.parametrize(
    ("more", "known", "problem"),
    [
        ({"start": 401}, {}, "its watermark 400 is below its start 401"),
        ({"start": -1}, {}, "its watermark 400 is below its start -1"),
        (
            {"read_to": 399},
            {"settled_through": 398, "confirmed_through": 398},
            "its watermark 400 is beyond read_to 399: more is settled than was ever read",
        ),
        (
            {},
            {"settled_through": 500},
            "its ledger knows offset 500, and the journal ends before 500: acknowledged events were lost",
        ),
        (
            {},
            {"confirmed_through": 600},
            "its ledger knows offset 600, and the journal ends before 500: acknowledged events were lost",
        ),
        (
            {"read_to": 450},
            {"settled_through": 450, "confirmed_through": 0},
            "its ledger knows offset 450, and only what is below 450 was ever read",
        ),
        ({}, {"problems": ["a row is damaged"]}, "a row is damaged"),
    ],
)
def test_offsets_out_of_their_order_are(more: dict[str, int], known: dict[str, Any], problem: str) -> None:
    assert list(problems_of_offsets(consumer(**more), ledger(**known), FOLLOWING)) == [problem]


# -- counts -----------------------------------------------------------------------------------------------------------


def test_counts_of_outcomes_that_there_are_are_no_problem() -> None:
    counts = {**{str(outcome): 0 for outcome in Outcome}, "excluded:no_email": 3}
    assert list(problems_of_counts(consumer(counts=counts))) == []
    assert list(problems_of_counts(consumer(not_addressed=0))) == []


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"not_addressed": -1}, "-1 of the 300 events below its watermark are said not to be for it"),
        ({"not_addressed": 301}, "301 of the 300 events below its watermark are said not to be for it"),
        ({"start": 402, "not_addressed": 1}, "1 of the -2 events below its watermark are said not to be for it"),
        ({"counts": {"delivered": -1}}, "its count of delivered is negative: -1"),
        ({"counts": {"vanished:somehow": 2}}, "its count 'vanished:somehow' is of no outcome that there is"),
    ],
)
def test_counts_that_cannot_be_are(more: dict[str, Any], problem: str) -> None:
    assert list(problems_of_counts(consumer(**more))) == [problem]


# -- held profiles ----------------------------------------------------------------------------------------------------


def held(key: bytes, last: int, *, events: int = 1, through: int | None = None) -> Held:
    profile: Profile = stored(key, last, events=events)
    profile.through = last if through is None else through
    return Held(HeldKind.WAITING, profile)


def checked(*found: Held, accounted: dict[bytes, int] | None = None, **more: Any) -> list[str]:
    fields = {"held_profiles": len(found), "held_events": sum(one.profile.events for one in found)} | more
    check = HeldCheck(consumer(**fields), accounted or {}, FOLLOWING)
    check.add(found[:1])
    check.add(found[1:])
    return list(check.problems())


def test_what_is_held_and_counted_and_accounted_for_is_no_problem() -> None:
    assert checked() == []
    assert checked(held(ANNA, 399, events=3, through=390), held(BERT, 300)) == []
    assert checked(held(ANNA, 399), held(BERT, 499), accounted={BERT: 499}) == []
    assert checked(held(BERT, 400), accounted={BERT: 450}) == []


@pytest.mark.parametrize("more", [{"held_profiles": 1}, {"held_events": 5}])
def test_held_profiles_that_are_miscounted_are(more: dict[str, int]) -> None:
    (problem,) = checked(held(ANNA, 399, events=3), held(BERT, 300), **more)
    counted = {"held_profiles": 2, "held_events": 4} | more
    assert problem == (
        f"{counted['held_profiles']} held profiles with {counted['held_events']} events are counted, 2 with 4 are there"
    )


def test_held_profiles_of_events_that_are_not_there_are() -> None:
    beyond = "2 held profiles hold events from beyond what is in the journal, or was read of it"
    everything = {ANNA: 1_000, BERT: 1_000}
    assert checked(held(ANNA, 500), held(BERT, 501), accounted=everything) == [beyond]
    assert checked(held(ANNA, 450), held(BERT, 499), accounted=everything, read_to=450) == [beyond]


def test_held_profiles_that_hold_more_than_they_account_for_are() -> None:
    found = checked(held(ANNA, 300, through=301), held(BERT, 300, through=302))
    assert found == ["2 held profiles hold more than they account for"]


def test_held_profiles_that_would_be_read_again_are() -> None:
    found = checked(held(ANNA, 400), held(BERT, 401), accounted={BERT: 400})
    assert found == ["2 held profiles would be read again from the journal after a restart"]


# -- pauses, and a running engine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [0.0, 1.0, 9_000.0, 10_000.0 + 3_660.0])
def test_a_pause_of_an_hour_at_most_is_no_problem(until: float) -> None:
    assert list(problems_of_pauses({"a": until}, 10_000.0)) == []


@pytest.mark.parametrize(("until", "said"), [(-1.0, "-1"), (13_661.0, "13661"), (math.inf, "inf"), (math.nan, "nan")])
def test_a_pause_that_no_retry_after_makes_is(until: float, said: str) -> None:
    assert list(problems_of_pauses({"fine": 1.0, "a": until}, 10_000.0)) == [
        f"account 'a' is paused until {said}: no Retry-After lasts so long, or the clock is back"
    ]


def test_an_engine_that_knows_what_is_stored_is_no_problem() -> None:
    one = consumer(counts={"delivered": 3, "expired": 0})
    assert list(problems_of_memory(one, {"delivered": 3, "superseded": 0}, 400)) == []


def test_an_engine_that_takes_something_else_for_durable_is() -> None:
    one = consumer(counts={"delivered": 3})
    assert list(problems_of_memory(one, {"delivered": 4}, 401)) == [
        "what the engine has counted and what it has stored differ",
        "the engine takes 401 for its durable watermark, and 400 is stored",
    ]


def test_a_problem_names_its_destination() -> None:
    assert of_destination("demo", ["it is damaged"]) == ["destination 'demo': it is damaged"]
