"""Rules between journal and state, one by one. That an audit asks them all: tests/assembly/test_audit.py."""

from __future__ import annotations

from typing import Any

from engine.core.consistency import (
    HeldCheck,
    of_destination,
    problems_of_counts,
    problems_of_memory,
    problems_of_offsets,
    problems_of_pauses,
)
from engine.model import Held, HeldKind, Lane, Profile
from engine.ports import ConsumerState, Inspection

KEY = b"k" * 32


def state(**changes: Any) -> ConsumerState:
    base: dict[str, Any] = {"start": 10, "watermark": 50, "read_to": 80, "clean": False, "counts": {"delivered": 40}}
    return ConsumerState("demo", "here", **base | changes)


def held(last: int, through: int, events: int = 1) -> Held:
    profile = Profile(KEY, b"{}", 0, Lane.LIVE, through, through, last, events, 0.0)
    return Held(HeldKind.WAITING, profile)


def check(one: Held, accounted: dict[bytes, int], **changes: Any) -> list[str]:
    found = HeldCheck(state(**{"held_profiles": 1, "held_events": 1} | changes), accounted, 70)
    found.add([one])
    return list(found.problems())


def test_a_state_in_order_has_no_problem() -> None:
    assert list(problems_of_offsets(state(), Inspection(69, 60), 70)) == []
    assert list(problems_of_counts(state())) == []
    assert check(held(60, 60), {KEY: 60}) == []
    assert list(problems_of_pauses({"a": 1_000.0}, 900.0)) == []
    assert list(problems_of_memory(state(), {"delivered": 40, "expired": 0}, 50)) == []


def test_what_is_known_lies_below_the_end_of_the_journal_and_of_what_was_read() -> None:
    assert "acknowledged events were lost" in next(iter(problems_of_offsets(state(), Inspection(70), 70)))
    assert "was ever read" in next(iter(problems_of_offsets(state(read_to=60), Inspection(65), 70)))
    assert "acknowledged" in next(iter(problems_of_offsets(state(), Inspection(5, confirmed_through=90), 70)))


def test_a_watermark_lies_between_start_and_read_to() -> None:
    assert "below its start" in next(iter(problems_of_offsets(state(start=51), Inspection(), 70)))
    assert "beyond read_to" in next(iter(problems_of_offsets(state(read_to=49), Inspection(), 70)))


def test_a_held_profile_is_accounted_for_so_that_no_restart_reads_it_again() -> None:
    assert "read again" in check(held(60, 60), {})[0]
    assert "read again" in check(held(60, 60), {KEY: 59})[0]
    assert check(held(40, 40), {}) == [], "what lies below the watermark is never read again"


def test_a_held_profile_holds_what_was_read_and_no_more_than_it_says() -> None:
    assert "from beyond" in check(held(70, 70), {KEY: 70})[0]
    assert "from beyond" in check(held(60, 60), {KEY: 60}, read_to=60)[0]
    assert "more than they account for" in check(held(60, 61), {KEY: 60})[0]


def test_as_many_are_held_as_are_counted() -> None:
    assert "2 with 1 events" not in check(held(60, 60), {KEY: 60})
    assert "1 with 2 are there" in check(held(60, 60, events=2), {KEY: 60})[0]


def test_a_running_engine_and_its_file_say_the_same() -> None:
    assert "differ" in next(iter(problems_of_memory(state(), {"delivered": 41}, 50)))
    assert "51" in next(iter(problems_of_memory(state(), {"delivered": 40}, 51)))


def test_a_problem_names_its_destination() -> None:
    assert of_destination("demo", ["it is broken"]) == ["destination 'demo': it is broken"]
