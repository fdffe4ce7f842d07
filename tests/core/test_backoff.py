"""How long to wait before the next attempt."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.backoff import Backoff


def test_each_step_doubles_until_the_cap() -> None:
    backoff = Backoff(0.5, 5.0)
    assert [backoff.ceiling_seconds(n) for n in range(1, 7)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize("attempt", [1_000, 10**9])
def test_no_number_of_attempts_overflows(attempt: int) -> None:
    assert Backoff(0.001, 60.0).ceiling_seconds(attempt) == 60.0
    assert Backoff(1.0, 1e30).ceiling_seconds(attempt) == 2.0**60, "and where no cap stops it, sixty doublings do"


@pytest.mark.parametrize("attempt", [0, -3])
def test_an_attempt_given_back_counts_as_the_first(attempt: int) -> None:
    assert Backoff(0.5, 5.0).ceiling_seconds(attempt) == 0.5


@given(st.integers(1, 100), st.integers())
def test_full_jitter_stays_between_nothing_and_the_step(attempt: int, seed: int) -> None:
    backoff = Backoff(0.5, 60.0)
    assert 0.0 <= backoff.seconds(attempt, random.Random(seed)) <= backoff.ceiling_seconds(attempt)


def test_full_jitter_uses_the_whole_step() -> None:
    """Not only its end: a thousand profiles that failed together must not come back together."""
    source = random.Random(1)
    waits = [Backoff(1.0, 1.0).seconds(1, source) for _ in range(1_000)]
    assert [sum(n / 10 <= wait < (n + 1) / 10 for wait in waits) > 50 for n in range(10)] == [True] * 10


def test_the_same_seed_waits_the_same() -> None:
    assert Backoff(1.0, 9.0).seconds(3, random.Random(7)) == Backoff(1.0, 9.0).seconds(3, random.Random(7))


@pytest.mark.parametrize(("base", "cap"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_a_backoff_that_makes_no_sense_is_refused(base: float, cap: float) -> None:
    with pytest.raises(ValueError, match=r"^a backoff needs 0 < base <= cap$"):
        Backoff(base, cap)
