"""How many requests may be in flight."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.window import Window


def good(window: Window, times: int, *, now: float, seconds: float = 0.1) -> None:
    for _ in range(times):
        window.observe(throttled=False, timed_out=False, seconds=seconds, now=now)


def throttled(window: Window, now: float, seconds: float = 0.1) -> None:
    window.observe(throttled=True, timed_out=False, seconds=seconds, now=now)


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.0, 120.0), st.floats(0.0, 10.0)), max_size=80),
)
def test_whatever_happens_it_stays_between_one_and_the_maximum(
    most: int, replies: list[tuple[bool, bool, float, float]]
) -> None:
    window, now = Window(most), 0.0
    for was_throttled, timed_out, seconds, later in replies:
        now += later
        window.observe(throttled=was_throttled, timed_out=timed_out, seconds=seconds, now=now)
        assert 1 <= window.limit <= most


def test_it_begins_open() -> None:
    assert Window(16).limit == 16


@pytest.mark.parametrize("sign", [{"throttled": True, "timed_out": False}, {"throttled": False, "timed_out": True}])
def test_throttling_and_time_outs_halve_it(sign: dict[str, bool]) -> None:
    window = Window(16)
    window.observe(seconds=0.1, now=1.0, **sign)
    assert window.limit == 8


def test_it_shrinks_once_a_round_trip() -> None:
    """Sixteen requests in flight come back throttled together: that is one piece of news."""
    window = Window(16)
    for n in range(16):
        throttled(window, now=1.0 + n / 1000)
    assert window.limit == 8


def test_what_left_after_it_shrank_may_shrink_it_again() -> None:
    window = Window(16)
    throttled(window, now=1.0)
    throttled(window, now=1.2, seconds=0.1)
    assert window.limit == 4


def test_it_never_falls_below_one() -> None:
    window = Window(16)
    for n in range(20):
        throttled(window, now=float(n))
    assert window.limit == 1


def test_it_recovers_to_the_maximum_by_about_one_a_round_trip() -> None:
    window = Window(8)
    for n in range(10):
        throttled(window, now=float(n))
    limits = []
    for trip in range(12):
        good(window, window.limit, now=100.0 + trip)
        limits.append(window.limit)
    assert limits[-1] == 8
    assert all(0 <= after - before <= 1 for before, after in pairwise(limits))


def test_answers_much_slower_than_usual_shrink_it_a_little() -> None:
    window = Window(20)
    good(window, 100, now=1.0, seconds=0.1)
    window.observe(throttled=False, timed_out=False, seconds=2.0, now=10.0)
    assert window.limit == 18


def test_answers_that_stay_slow_become_the_usual() -> None:
    """A destination that is slow for good is not punished for ever."""
    window = Window(20)
    good(window, 50, now=1.0, seconds=0.1)
    for n in range(200):
        good(window, 1, now=100.0 + 5 * n, seconds=2.0)
    assert window.limit == 20


def test_a_few_milliseconds_more_are_no_congestion() -> None:
    window = Window(20)
    good(window, 100, now=1.0, seconds=0.001)
    window.observe(throttled=False, timed_out=False, seconds=0.010, now=2.0)
    assert window.limit == 20


def test_a_fixed_window_is_fixed() -> None:
    window = Window(16, adaptive=False)
    for n in range(10):
        throttled(window, now=float(n))
    assert window.limit == 16


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Window(0)


# -- exactly when an answer is slow -----------------------------------------------------------------------------------


def limit_after(window: Window, seconds: float, *, now: float = 1_000.0) -> int:
    window.observe(throttled=False, timed_out=False, seconds=seconds, now=now)
    return window.limit


def test_the_first_answer_is_never_slow_whatever_it_takes() -> None:
    assert limit_after(Window(20), 60.0) == 20


@pytest.mark.parametrize(("seconds", "limit"), [(2.9, 20), (3.01, 20), (3.02, 18)])
def test_after_one_answer_the_next_may_take_about_three_times_as_long(seconds: float, limit: int) -> None:
    """A mean of 1 s, and a mean deviation of half of that: 1 + 4 × 0.5 s, and ten milliseconds."""
    window = Window(20)
    good(window, 1, now=1.0, seconds=1.0)
    assert limit_after(window, seconds) == limit


@pytest.mark.parametrize(("seconds", "limit"), [(3.6, 20), (3.62, 18)])
def test_mean_and_deviation_follow_the_newest_answers_by_a_fifth(seconds: float, limit: int) -> None:
    """1 s, then 2 s: the mean is 1.2 s, the mean deviation 0.6 s."""
    window = Window(20)
    good(window, 1, now=1.0, seconds=1.0)
    good(window, 1, now=2.0, seconds=2.0)
    assert limit_after(window, seconds) == limit


@pytest.mark.parametrize(("seconds", "limit"), [(1.99, 20), (2.1, 18)])
def test_where_answers_hardly_differ_twice_as_long_is_slow(seconds: float, limit: int) -> None:
    window = Window(20)
    good(window, 60, now=1.0, seconds=1.0)
    assert limit_after(window, seconds) == limit


def test_quick_answers_that_become_fifty_times_slower_are_congestion() -> None:
    window = Window(20)
    good(window, 60, now=1.0, seconds=0.01)
    assert limit_after(window, 0.5) == 18


def test_what_left_when_it_shrank_says_nothing_new() -> None:
    window = Window(16)
    throttled(window, now=10.0)
    throttled(window, now=15.0, seconds=5.0)
    assert window.limit == 8
    throttled(window, now=15.0, seconds=4.9)
    assert window.limit == 4


def test_nothing_in_flight_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_concurrency has to be at least 1$"):
        Window(0)
