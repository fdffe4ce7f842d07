"""Latencies in bounded memory, and quantiles of what Prometheus counted."""

from __future__ import annotations

import math
from collections.abc import Mapping

SHORTEST_SECONDS = 1e-6
LONGEST_SECONDS = 3600.0
GROWTH = 1.01
"""A bucket is 1 % wider than the one before: no quantile is off by more than that."""

_LOG_GROWTH = math.log(GROWTH)
_BUCKETS = math.ceil(math.log(LONGEST_SECONDS / SHORTEST_SECONDS) / _LOG_GROWTH) + 2


class Histogram:
    """Counts of seconds, from a microsecond to an hour; what is shorter or longer falls into the outermost bucket."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.total_seconds = 0.0
        self.longest_seconds = 0.0

    def __repr__(self) -> str:
        return f"<Histogram [{self.count} | p50 {self.quantile(0.5):.6f} s | p99 {self.quantile(0.99):.6f} s]>"

    def add(self, seconds: float) -> None:
        self._counts[_bucket(seconds)] += 1
        self.count += 1
        self.total_seconds += seconds
        if seconds > self.longest_seconds:
            self.longest_seconds = seconds

    def merge(self, other: Histogram) -> None:
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.total_seconds += other.total_seconds
        self.longest_seconds = max(self.longest_seconds, other.longest_seconds)

    def counts(self) -> dict[int, int]:
        """What is not zero, by bucket: with it `of` makes an equal histogram elsewhere."""
        return {bucket: count for bucket, count in enumerate(self._counts) if count}

    @classmethod
    def of(cls, counts: Mapping[int, int], total_seconds: float, longest_seconds: float) -> Histogram:
        made = cls()
        for bucket, count in counts.items():
            made._counts[bucket] = count
        made.count = sum(counts.values())
        made.total_seconds, made.longest_seconds = total_seconds, longest_seconds
        return made

    def quantile(self, share: float) -> float:
        """Seconds that `share` (0 to 1) of all values do not exceed, at most 1 % too long; 0.0 while empty."""
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_upper_bound(bucket), self.longest_seconds)
        return 0.0

    def mean(self) -> float:
        return self.total_seconds / self.count if self.count else 0.0


def _bucket(seconds: float) -> int:
    if seconds <= SHORTEST_SECONDS:
        return 0
    return min(_BUCKETS - 1, 1 + int(math.log(seconds / SHORTEST_SECONDS) / _LOG_GROWTH))


def _upper_bound(bucket: int) -> float:
    return SHORTEST_SECONDS * GROWTH**bucket


def bucket_quantile(cumulative: Mapping[float, float], share: float) -> float | None:
    """The quantile of a Prometheus histogram: `cumulative` is upper bound (`le`, infinity too) -> count so far.

    Inside a bucket the values are taken as evenly spread, so it is as exact as the buckets are narrow. None while
    nothing was counted; in the last bucket its lower bound.
    """
    bounds = sorted(cumulative)
    if not bounds or cumulative[bounds[-1]] <= 0:
        return None
    rank, lower, below = share * cumulative[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if cumulative[bound] >= rank and cumulative[bound] > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (cumulative[bound] - below)
        lower, below = bound, cumulative[bound]
    return lower
