"""How long to wait before attempt n + 1: exponential, capped, with full jitter. Pure."""

from __future__ import annotations

import random


class Backoff:
    """Full jitter: uniform between 0 and min(cap, base × 2^(n-1)) seconds, so that no two wait alike."""

    def __init__(self, base_seconds: float, cap_seconds: float) -> None:
        if not 0 < base_seconds <= cap_seconds:
            raise ValueError("a backoff needs 0 < base <= cap")
        self.base_seconds, self.cap_seconds = base_seconds, cap_seconds

    def ceiling_seconds(self, attempt: int) -> float:
        """The longest wait after attempt n (the first is 1)."""
        doublings = min(max(attempt, 1) - 1, 60)
        return min(self.cap_seconds, self.base_seconds * 2.0**doublings)

    def seconds(self, attempt: int, random: random.Random) -> float:
        return random.uniform(0.0, self.ceiling_seconds(attempt))
