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


def test_a_level_is_left_only_below_its_margin() -> None:
    """Five points below it; exactly there it still counts as passed."""
    edge, below = Fill(), Fill()
    assert [edge.passed(size, 100, float(at)) for at, size in enumerate([50, 45, 50])] == [0.5, None, None]
    assert [below.passed(size, 100, float(at)) for at, size in enumerate([50, 44, 50])] == [0.5, None, 0.5]


def test_nothing_is_known_of_the_time_left_at_first() -> None:
    assert Fill().seconds_left(5_000, 10_000) == math.inf


def test_no_time_is_left_where_events_are_refused_already() -> None:
    fill = Fill()
    for second in range(10):
        fill.passed(9_000 + 100 * second, 10_000, float(second))
    assert fill.seconds_left(9_900, 10_000) == 0.0


def test_growth_is_learned_over_a_minute() -> None:
    """An exponential average, worked out by hand: 100 bytes in a second, then 30 in two."""
    fill = Fill()
    for at, size in [(0.0, 0), (0.5, 999), (1.0, 100), (3.0, 130)]:
        fill.passed(size, 10_000, at)
    first = 100 * (1 - math.exp(-1 / 60))
    grows = first + (1 - math.exp(-2 / 60)) * (15 - first)
    assert fill.seconds_left(130, 10_000) == pytest.approx((9_500 - 130) / grows, rel=1e-12)


def test_a_journal_that_grows_very_slowly_does_not_last_for_ever() -> None:
    fill = Fill()
    for at, size in [(0.0, 0), (1_000.0, 300)]:
        fill.passed(size, 10_000, at)
    assert fill.seconds_left(300, 10_000) == pytest.approx(9_200 / 0.3, rel=0.001)
