"""How full is the journal getting, and how long will it last? Pure."""

from __future__ import annotations

import math

LEVELS = (0.5, 0.8)
BACK_BY = 0.05
"""A level counts as left only this far below it, so that a journal at its edge is not told of again and again."""

TIME_CONSTANT_SECONDS = 60.0
FULL_AT = 0.95


class Fill:
    """Watches one size against one limit. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self.level = 0  # how many of LEVELS are passed
        self._bytes_per_second = 0.0
        self._last: tuple[float, int] | None = None

    def passed(self, size_bytes: int, max_bytes: int, now: float) -> float | None:
        """Note a size; the level that was passed upwards with it, as a share, or None."""
        self._learn(size_bytes, now)
        share, before = size_bytes / max_bytes, self.level
        if not before and share < LEVELS[0]:  # as nearly always
            return None
        reached = sum(share >= level for level in LEVELS)
        kept = sum(share >= level - BACK_BY for level in LEVELS)
        self.level = max(reached, min(before, kept))
        return LEVELS[self.level - 1] if self.level > before else None

    def seconds_left(self, size_bytes: int, max_bytes: int) -> float:
        """Until events are refused, if it goes on as it did; infinite while it does not grow."""
        if self._bytes_per_second <= 0:
            return math.inf
        return max(0.0, (FULL_AT * max_bytes - size_bytes) / self._bytes_per_second)

    def _learn(self, size_bytes: int, now: float) -> None:
        if self._last is None:
            self._last = (now, size_bytes)
            return
        at, known = self._last
        elapsed = now - at
        if elapsed < 1.0:
            return
        weight = 1.0 - math.exp(-elapsed / TIME_CONSTANT_SECONDS)
        self._bytes_per_second += weight * ((size_bytes - known) / elapsed - self._bytes_per_second)
        self._last = (now, size_bytes)
