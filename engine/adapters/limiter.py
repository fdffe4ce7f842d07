"""The token bucket of one account, on aiolimiter."""

from __future__ import annotations

import asyncio

from aiolimiter import AsyncLimiter

SHORTEST_SLEEP_SECONDS = 0.001


class AiolimiterBucket:
    """See `ports.Bucket`. In any window at most requests_per_second * window + burst takes; needs a burst of at least
    max(2, rate / 100) to keep its rate.

    It never waits inside aiolimiter, whose waiters spin on uvloop and are served smallest first (DESIGN §4,
    Dispatcher): its one caller asks, and sleeps. Counting begins with the first take, in the loop that takes.
    """

    def __init__(self, requests_per_second: float, burst: int) -> None:
        self.requests_per_second, self.burst = requests_per_second, burst
        self._pause_seconds = max(SHORTEST_SLEEP_SECONDS, 1 / requests_per_second)
        self._limiter: AsyncLimiter | None = None
        self._certain = 0  # takes that there is room for, whatever the time is

    def __repr__(self) -> str:
        return f"<AiolimiterBucket [{self.requests_per_second:g}/s | burst {self.burst}]>"

    async def take(self) -> None:
        limiter = self._limiter or await self._emptied()
        if not self._certain:
            self._certain = await self._room(limiter)
        self._certain -= 1
        await limiter.acquire()

    async def _room(self, limiter: AsyncLimiter) -> int:
        """Wait for room; for how many takes there is some. Asking costs as much as taking, so that it is not asked for
        each while the rate does not bind."""
        while not limiter.has_capacity():  # noqa: ASYNC110 - it says yes by time alone, there is nothing to wait for
            await asyncio.sleep(self._pause_seconds)
        half = self.burst // 2
        return half if half > 1 and limiter.has_capacity(half) else 1

    async def _emptied(self) -> AsyncLimiter:
        limiter = self._limiter = AsyncLimiter(self.burst, self.burst / self.requests_per_second)
        await limiter.acquire(self.burst)
        return limiter


__all__ = ["AiolimiterBucket"]
