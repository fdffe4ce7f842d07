"""Events a second of one caller."""

from __future__ import annotations


class Quota:
    """A token bucket in events that holds one second's worth. A request larger than that passes when the bucket is
    full and leaves it in debt, so that the rate holds on average and no request is too large for ever."""

    def __init__(self, events_per_second: int, now: float) -> None:
        self._rate = float(events_per_second)
        self.level = self._rate
        self._at = now

    def level_at(self, now: float) -> float:
        self.level = min(self._rate, self.level + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self.level

    def take(self, events: int, now: float) -> float:
        level = self.level_at(now)
        missing = min(float(events), self._rate) - level
        if events >= 0 and missing > 0:
            return missing / self._rate
        self.level = min(self._rate, level - events)
        return 0.0
