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
