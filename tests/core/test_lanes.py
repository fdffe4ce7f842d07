"""Whose turn it is: between lanes, and between the destinations of an account."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.lanes import LaneChooser, WeightedRoundRobin
from engine.model import Lane

LANES = st.sets(st.sampled_from(list(Lane)), min_size=1)


def turns(chooser: LaneChooser, ready: set[Lane], count: int) -> list[Lane | None]:
    return [chooser.next(lambda lane: lane in ready) for _ in range(count)]


@given(LANES)
def test_every_lane_that_is_not_empty_gets_a_tenth_and_the_best_gets_the_rest(ready: set[Lane]) -> None:
    seen = Counter(turns(LaneChooser(), ready, 1_001))  # the second of two others takes its turn after the first's
    best, *others = sorted(ready)
    assert seen == {best: 1_001 - 100 * len(others), **dict.fromkeys(others, 100)}


@given(LANES)
def test_no_lane_waits_longer_than_a_round(ready: set[Lane]) -> None:
    """A share that comes in lumps is none for whoever waits: any lane is met within 11 choices."""
    chosen = turns(LaneChooser(), ready, 400)
    for start in range(10, 380):
        assert set(chosen[start : start + 11]) == ready


@given(st.lists(LANES, min_size=1, max_size=300))
def test_only_a_lane_that_has_something_is_chosen(steps: list[set[Lane]]) -> None:
    chooser = LaneChooser()
    for ready in steps:
        assert chooser.next(lambda lane, ready=ready: lane in ready) in ready  # type: ignore[misc]


def test_nothing_ready_is_nobody_s_turn() -> None:
    assert LaneChooser().next(lambda lane: 0) is None


def test_an_empty_lane_saves_nothing_up() -> None:
    """Backfill that comes back after a quiet day must not push live traffic aside."""
    chooser = LaneChooser()
    turns(chooser, {Lane.LIVE}, 10_000)
    assert Counter(turns(chooser, {Lane.LIVE, Lane.BACKFILL}, 20))[Lane.BACKFILL] == 2


def round_robin(**weights: int) -> WeightedRoundRobin:
    chooser = WeightedRoundRobin()
    for name, weight in weights.items():
        chooser.add(name, weight)
    return chooser


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 9), min_size=1))
def test_in_every_whole_round_everybody_gets_exactly_the_weight(weights: dict[str, int]) -> None:
    chooser, total = round_robin(**weights), sum(weights.values())
    for _ in range(3):
        assert Counter(chooser.next(weights) for _ in range(total)) == weights


def test_the_turns_are_spread_not_bunched() -> None:
    chooser = round_robin(a=5, b=1, c=1)
    assert "".join(chooser.next("abc") for _ in range(7)) == "aabacaa"


@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), max_size=200))
def test_only_who_is_ready_is_chosen(steps: list[set[str]]) -> None:
    chooser = round_robin(a=5, b=2, c=1)
    for ready in steps:
        assert chooser.next(sorted(ready)) in ready


@pytest.mark.parametrize("idle", [10, 10_000])
def test_who_was_idle_saves_nothing_up(idle: int) -> None:
    chooser = round_robin(a=1, b=1)
    for _ in range(idle):
        chooser.next("a")
    assert Counter(chooser.next("ab") for _ in range(10)) == {"a": 5, "b": 5}


def test_who_is_passed_over_keeps_what_was_earned() -> None:
    chooser = round_robin(a=2, b=1)
    assert [chooser.next(ready) for ready in ("ab", "a", "ab", "ab")] == ["a", "a", "b", "a"]
