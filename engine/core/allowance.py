"""How often something may happen before it is too often. Pure."""

from __future__ import annotations


class Allowance:
    """So many at once, and one more for every so many seconds that pass."""

    __slots__ = ("_at", "_at_once", "_every_seconds", "_left")

    def __init__(self, at_once: int, every_seconds: float, now: float) -> None:
        self._at_once, self._every_seconds = at_once, every_seconds
        self._left, self._at = float(at_once), now

    def take(self, now: float) -> float:
        """Take one: 0.0, or the seconds after which there is one, with nothing taken."""
        earned = max(0.0, now - self._at) / self._every_seconds
        self._left, self._at = min(float(self._at_once), self._left + earned), now
        if self._left < 1.0:
            return (1.0 - self._left) * self._every_seconds
        self._left -= 1.0
        return 0.0
