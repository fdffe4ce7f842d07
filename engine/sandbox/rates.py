"""The rate limit that is enforced, and the rate that is measured. No I/O: time is handed in.

The two are independent, so that a caller can be measured against a limit that nobody enforces.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

WINDOWS_SECONDS = (1.0, 10.0)


class TokenBucket:
    """Holds up to `burst` requests and refills with `rate` a second. It starts full. `rate` 0: everything passes."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = float(burst or max(1.0, rate))
        self._level = self.burst
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take one request at `now` (monotonic seconds): 0.0 if it passes, else the seconds until one would."""
        if self.rate <= 0:
            return 0.0
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._level = min(self.burst, self._level + elapsed * self.rate)
        self._at = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self.rate


class Arrivals:
    """When store requests came in: the last `size` arrival times (monotonic seconds)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        self._times = array("d")
        self.total = 0

    def add(self, now: float) -> None:
        if len(self._times) < self._size:
            self._times.append(now)
        else:
            self._times[self.total % self._size] = now
        self.total += 1

    def in_order(self) -> array[float]:
        """A copy, oldest first."""
        start = self.total % self._size if len(self._times) == self._size else 0
        return self._times[start:] + self._times[:start]


def measure(times: Sequence[float], rate: float, burst: float) -> dict[str, Any]:
    """What a limit of `rate` a second and `burst` would have seen in these arrivals (oldest first).

    For each length W in `WINDOWS_SECONDS`, every half-open window [t, t + W) that starts at an arrival is counted:
    `max` arrivals in any, and how many windows held more than rate x W + burst. `used` is the share of rate x span
    that was used, where the span runs from the first arrival to the last. Rate 0: nothing to compare with.
    """
    span = times[-1] - times[0] if times else 0.0
    windows = [_windows(times, seconds, rate * seconds + burst) for seconds in WINDOWS_SECONDS]
    if rate <= 0:
        windows = [{**window, "allowed": None, "over": None} for window in windows]
    return {
        "measured": len(times),
        "span_seconds": span,
        "rate": rate,
        "burst": burst,
        "windows": windows,
        "used": len(times) / (rate * span) if rate > 0 and span > 0 else None,
    }


def _windows(times: Sequence[float], seconds: float, allowed: float) -> dict[str, Any]:
    most = over = end = 0
    for start, begins_at in enumerate(times):
        while end < len(times) and times[end] < begins_at + seconds:
            end += 1
        most = max(most, end - start)
        over += end - start > allowed
    return {"seconds": seconds, "max": most, "allowed": allowed, "over": over}
