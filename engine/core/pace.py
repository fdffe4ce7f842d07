"""The rate limit at the socket: may one more request leave now? GCRA, the leaky bucket by its next free moment. Pure.

The bucket spaces permits as they are granted. Up to 20 ms pass until one is used, more for one than for another, so
that requests could meet at the socket which were granted one by one. This is asked at the socket itself.
"""

from __future__ import annotations

TOLERANCE_SECONDS = 1e-9
"""What adding up fractions of a second may be off by."""


class Pace:
    """In any window at most requests_per_second * window + burst requests are noted. Begins empty at `now`: nothing has
    been earned yet. Times are monotonic seconds."""

    def __init__(self, requests_per_second: float, burst: int, now: float) -> None:
        self._interval_seconds = 1 / requests_per_second
        self._ahead_seconds = (burst - 1) / requests_per_second
        self._free_at = now + burst / requests_per_second

    def wait_seconds(self, now: float) -> float:
        """How long until one more may leave; 0 when it may now."""
        wait = self._free_at - self._ahead_seconds - now
        return wait if wait > TOLERANCE_SECONDS else 0.0

    def note(self, now: float) -> None:
        """One leaves now."""
        self._free_at = max(self._free_at, now) + self._interval_seconds
