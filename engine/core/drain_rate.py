"""How fast events get their outcomes, and what follows for a producer that has to wait. Pure."""

from __future__ import annotations

import math

TIME_CONSTANT_SECONDS = 10.0
UNKNOWN_SECONDS = 5.0
MIN_SECONDS, MAX_SECONDS = 1.0, 60.0


class DrainRate:
    """Settled events per second, exponentially averaged over about ten seconds."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self._at: float | None = None
        self._pending = 0

    def add(self, events: int, now: float) -> None:
        """So many events were settled since the last call. `now`: monotonic seconds."""
        self._pending += events
        if self._at is None:
            self._at = now
            return
        elapsed = now - self._at
        if elapsed < 0.1:
            return
        weight = 1.0 - math.exp(-elapsed / TIME_CONSTANT_SECONDS)
        self.per_second += weight * (self._pending / elapsed - self.per_second)
        self._pending, self._at = 0, now

    def current(self, now: float) -> float:
        """Events per second as of `now`: it fades while nothing is settled."""
        if self._at is None:
            return 0.0
        idle = max(0.0, now - self._at - 1.0)
        return self.per_second * math.exp(-idle / TIME_CONSTANT_SECONDS)

    def retry_after_seconds(self, events_over: int) -> float:
        """When there may be room for what is over the limit now."""
        if self.per_second <= 0:
            return UNKNOWN_SECONDS
        return min(MAX_SECONDS, max(MIN_SECONDS, events_over / self.per_second))
