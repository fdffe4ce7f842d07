"""What latencies are kept as, and what is read back."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bench.histogram import GROWTH, LONGEST_SECONDS, SHORTEST_SECONDS, Histogram, bucket_quantile

seconds = st.floats(min_value=SHORTEST_SECONDS, max_value=LONGEST_SECONDS)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(seconds, min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_never_too_short_and_at_most_one_percent_too_long(values: list[float], share: float) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    found = filled(values).quantile(share)
    assert exact * (1 - 1e-9) <= found <= exact * GROWTH * (1 + 1e-9)


@given(st.lists(seconds, max_size=50), st.lists(seconds, max_size=50))
def test_merging_is_the_same_as_having_counted_together(one: list[float], other: list[float]) -> None:
    merged = filled(one)
    merged.merge(filled(other))
    together = filled(one + other)
    shares = (0.1, 0.5, 0.99)
    assert [merged.quantile(it) for it in shares] == [together.quantile(it) for it in shares]
    assert (merged.count, merged.longest_seconds) == (together.count, together.longest_seconds)
    assert merged.mean() == pytest.approx(together.mean())


def test_an_empty_histogram_has_no_latency() -> None:
    assert (Histogram().quantile(0.99), Histogram().mean()) == (0.0, 0.0)


def test_what_lies_beyond_the_buckets_is_still_counted() -> None:
    histogram = filled([0.0, 1e-9, 10 * LONGEST_SECONDS])
    assert histogram.count == 3
    assert histogram.quantile(0.5) <= SHORTEST_SECONDS
    assert histogram.longest_seconds == 10 * LONGEST_SECONDS


def cumulative(values: list[float], bounds: list[float]) -> dict[float, float]:
    return {bound: float(sum(value <= bound for value in values)) for bound in [*bounds, math.inf]}


def test_a_quantile_of_buckets_lies_in_the_bucket_that_holds_it() -> None:
    bounds = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05]
    rng = random.Random(1)
    values = [rng.uniform(0.0, 0.04) for _ in range(1000)]
    exact = sorted(values)[499]
    found = bucket_quantile(cumulative(values, bounds), 0.5)
    assert found is not None
    assert max(it for it in bounds if it < exact) <= found <= min(it for it in bounds if it >= exact)


def test_evenly_spread_values_are_found_exactly() -> None:
    assert bucket_quantile({1.0: 0.0, 2.0: 100.0, math.inf: 100.0}, 0.25) == 1.25


def test_beyond_the_last_bucket_only_its_lower_bound_is_known() -> None:
    assert bucket_quantile({1.0: 1.0, math.inf: 100.0}, 0.99) == 1.0


@pytest.mark.parametrize("counts", [{}, {1.0: 0.0, math.inf: 0.0}])
def test_buckets_without_a_value_have_no_quantile(counts: dict[float, float]) -> None:
    assert bucket_quantile(counts, 0.5) is None
