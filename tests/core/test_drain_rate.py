"""What a producer is told to wait, from how fast events get their outcomes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.drain_rate import DrainRate


def steady(per_second: float, seconds: int) -> DrainRate:
    rate = DrainRate()
    for tick in range(seconds * 10):
        rate.add(int(per_second / 10), tick / 10)
    return rate


def test_nothing_known_is_a_few_seconds() -> None:
    assert DrainRate().retry_after_seconds(10**6) == 5.0


def test_it_finds_a_steady_rate() -> None:
    assert steady(1_000, 100).per_second == pytest.approx(1_000, rel=0.01)


def test_the_answer_is_how_long_the_excess_takes() -> None:
    assert steady(1_000, 100).retry_after_seconds(20_000) == pytest.approx(20.0, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0.0, 100.0)), max_size=50), st.integers(0, 10**9))
def test_the_answer_is_always_between_a_second_and_a_minute(steps: list[tuple[int, float]], over: int) -> None:
    rate, now = DrainRate(), 0.0
    for events, later in steps:
        now += later
        rate.add(events, now)
    assert 1.0 <= rate.retry_after_seconds(over) <= 60.0


def test_an_old_rate_fades_when_nothing_is_settled_any_more() -> None:
    rate = steady(1_000, 100)
    for tick in range(600):
        rate.add(0, 100 + tick / 10)
    assert rate.per_second < 10


def test_events_settled_within_one_moment_are_not_lost() -> None:
    """Calls closer together than a tenth of a second add up instead of giving absurd rates."""
    fine, coarse = DrainRate(), steady(1_000, 50)
    for tick in range(50_000):
        fine.add(1, tick / 1_000)
    assert fine.per_second == pytest.approx(coarse.per_second, rel=0.05)


def test_the_rate_that_is_shown_fades_while_nothing_is_settled() -> None:
    rate = steady(1_000, 100)
    assert rate.current(100.0) == pytest.approx(1_000, rel=0.02)
    assert rate.current(200.0) < 1.0


def test_one_step_weighs_by_how_long_it_was() -> None:
    """An exponential average over ten seconds, worked out by hand."""
    rate = DrainRate()
    rate.add(0, 5.0)
    rate.add(100, 6.0)
    first = 100 * (1 - math.exp(-0.1))
    assert rate.per_second == pytest.approx(first, rel=1e-12)
    rate.add(30, 8.0)
    assert rate.per_second == pytest.approx(first + (1 - math.exp(-0.2)) * (15 - first), rel=1e-12)


def test_a_tenth_of_a_second_is_long_enough_to_learn_from() -> None:
    rate = DrainRate()
    rate.add(0, 0.0)
    rate.add(10, 0.1)
    assert rate.per_second > 0


def test_the_rate_that_is_shown_begins_to_fade_after_a_second() -> None:
    rate = DrainRate()
    assert rate.current(5.0) == 0.0
    rate.add(0, 0.0)
    rate.add(100, 1.0)
    assert rate.current(2.0) == rate.per_second
    assert rate.current(12.0) == pytest.approx(rate.per_second / math.e, rel=1e-12)


def test_a_slow_rate_is_a_rate_too() -> None:
    assert steady(10, 200).retry_after_seconds(100) == pytest.approx(10.0, rel=0.01)
    slow = DrainRate()
    slow.add(0, 0.0)
    slow.add(5, 10.0)
    assert slow.per_second < 1
    assert slow.retry_after_seconds(10) == pytest.approx(10 / slow.per_second)
