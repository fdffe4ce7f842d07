"""How full the journal is, and how long it lasts."""

from __future__ import annotations

import math

import pytest

from engine.core.fill import Fill


def test_each_level_is_told_once_on_the_way_up() -> None:
    fill = Fill()
    told = [fill.passed(size, 100, float(size)) for size in range(0, 95, 5)]
    assert [level for level in told if level is not None] == [0.5, 0.8]


def test_a_journal_at_the_edge_of_a_level_is_not_told_of_again_and_again() -> None:
    fill = Fill()
    told = [fill.passed(size, 100, float(at)) for at, size in enumerate([49, 50, 49, 50, 46, 51, 44, 50])]
    assert [level for level in told if level is not None] == [0.5, 0.5], "again only after it was well below"


def test_time_left_follows_how_fast_it_grows() -> None:
    fill = Fill()
    for second in range(600):
        fill.passed(second * 10, 1_000_000, float(second))
    assert fill.seconds_left(6_000, 1_000_000) == pytest.approx((950_000 - 6_000) / 10, rel=0.01)


def test_a_journal_that_does_not_grow_lasts_for_ever() -> None:
    fill = Fill()
    for second in range(10):
        fill.passed(5_000 - second, 10_000, float(second))
    assert fill.seconds_left(5_000, 10_000) == math.inf
