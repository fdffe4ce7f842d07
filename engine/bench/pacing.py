"""When requests are due. Latencies are counted from these moments, whether or not a request could leave in time.

A generator that waits for an answer before it sends the next request asks a slow server fewer questions while it is
slow, and so leaves out the worst of it ("coordinated omission"). Here the schedule does not depend on answers.
"""

from __future__ import annotations

import math

import msgspec

SHORTEST_TICK_SECONDS = 0.00025
"""Requests that are due within one tick leave together: the generator's own share of a latency."""


class Schedule(msgspec.Struct, frozen=True):
    """`per_second` requests a second, evenly spread over `seconds`; the first one at once."""

    per_second: float
    seconds: float

    @property
    def total(self) -> int:
        return max(1, math.floor(self.per_second * self.seconds))

    def due_at(self, index: int) -> float:
        """Seconds after the start."""
        return index / self.per_second

    def due_by(self, elapsed: float) -> int:
        """How many requests are due when `elapsed` seconds are over."""
        if elapsed < 0:
            return 0
        # The nudge keeps a tick that comes at i / per_second, rounded, from missing request i.
        return min(self.total, math.floor(elapsed * self.per_second + 1e-6) + 1)

    def tick_seconds(self) -> float:
        """How often it is worth looking."""
        return max(SHORTEST_TICK_SECONDS, 1 / self.per_second)
