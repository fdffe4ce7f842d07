"""The rate limit at the socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.pace import Pace

RATE, BURST = 10.0, 3


def leave_when_allowed(pace: Pace, asked_at: list[float]) -> list[float]:
    """Requests ask one after the other, each not before the one ahead of it has left."""
    left, now = [], 0.0
    for asked in asked_at:
        now = max(now, asked)
        now += pace.wait_seconds(now)
        pace.note(now)
        left.append(now)
    return left


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=40).map(sorted), st.integers(1, 5))
def test_no_window_holds_more_than_the_rate_and_a_burst(asked_at: list[float], burst: int) -> None:
    left = leave_when_allowed(Pace(RATE, burst, 0.0), asked_at)
    for i, start in enumerate(left):
        for j, end in enumerate(left[i:], i):
            assert j - i + 1 <= RATE * (end - start) + burst + 1e-6


def test_it_begins_empty() -> None:
    assert Pace(RATE, BURST, 5.0).wait_seconds(5.0) == pytest.approx(0.1)


def test_a_quiet_time_earns_a_burst_and_no_more() -> None:
    left = leave_when_allowed(Pace(RATE, BURST, 0.0), [100.0] * 5)
    assert left == pytest.approx([100.0, 100.0, 100.0, 100.1, 100.2])


def test_under_load_the_whole_rate_is_used() -> None:
    left = leave_when_allowed(Pace(RATE, BURST, 0.0), [0.0] * 100)
    assert left[-1] == pytest.approx(10.0)


def test_asking_changes_nothing() -> None:
    pace = Pace(RATE, BURST, 0.0)
    assert [pace.wait_seconds(0.0) for _ in range(10)] == pytest.approx([0.1] * 10)


def test_what_adding_up_fractions_may_be_off_by_is_no_wait() -> None:
    """One request in a nanosecond, asked a nanosecond early: as little is rounding, not haste."""
    assert Pace(1e9, 1, 0.0).wait_seconds(0.0) == 0.0
    assert Pace(0.5e9, 1, 0.0).wait_seconds(0.0) > 0.0
