"""How many requests of an account may be in flight: AIMD on throttling, time-outs and latency. Pure.

The window grows by one per window of answers that came as quickly as usual, and shrinks when the destination says so
(429, 503: to a half), when it does not answer in time (to a half), or when answers take much longer than they did
(to nine tenths). It shrinks at most once per round trip: answers to what was sent before say nothing new.
"""

from __future__ import annotations

import math

ALPHA = 0.2
"""Weight of the newest round trip in the moving averages."""

SLOW_DEVIATIONS = 4.0
"""Round trips beyond mean + this many mean deviations (and twice the mean) count as congestion."""


class Window:
    """`limit` requests may be in flight, always within 1 … max_concurrency."""

    def __init__(self, max_concurrency: int, *, adaptive: bool = True) -> None:
        if max_concurrency < 1:
            raise ValueError("max_concurrency has to be at least 1")
        self._max, self._adaptive = max_concurrency, adaptive
        self._width = float(max_concurrency)
        self._mean = math.inf  # of round trips, in seconds; before the first none is slow
        self._deviation = 0.0  # their mean deviation
        self._shrunk_at = -math.inf

    def __repr__(self) -> str:
        return f"<Window {self.limit} of {self._max}>"

    @property
    def limit(self) -> int:
        return int(self._width)

    def observe(self, *, throttled: bool, timed_out: bool, seconds: float, now: float) -> None:
        """One request has ended: `seconds` after it left, at `now` (monotonic)."""
        if not self._adaptive:
            return
        if throttled or timed_out:
            self._shrink(0.5, seconds, now)
            return
        if self._is_slow(seconds):
            self._shrink(0.9, seconds, now)
        elif self._width < self._max:
            self._width = min(self._max, self._width + 1.0 / self._width)
        self._learn(seconds)

    def _shrink(self, factor: float, seconds: float, now: float) -> None:
        if now - seconds <= self._shrunk_at:
            return  # it left before the window shrank last
        self._width = max(1.0, self._width * factor)
        self._shrunk_at = now

    def _is_slow(self, seconds: float) -> bool:
        mean, deviation = self._mean, self._deviation
        return seconds > 2 * mean + 0.010 and seconds > mean + SLOW_DEVIATIONS * deviation + 0.010

    def _learn(self, seconds: float) -> None:
        mean = self._mean
        if mean == math.inf:
            self._mean, self._deviation = seconds, seconds / 2
            return
        off = seconds - mean
        self._mean = mean + ALPHA * off
        self._deviation += ALPHA * (abs(off) - self._deviation)
