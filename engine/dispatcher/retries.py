"""What failed before may fail slowly: its share of an account's requests in flight is bounded."""

from __future__ import annotations

from engine.dispatcher.account import Account
from engine.model import Batch
from engine.ports import Clock


class Retries:
    """Requests of one destination that carry a profile which failed before. They get half of the window, and half of
    the time where the window is one: attendees that never get an answer do not take all places from the others."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account, self._clock = account, clock
        self._in_flight = 0
        self._rest_until = float("-inf")

    def have_their_share(self) -> bool:
        """Should others go first now, if there are any?"""
        if not self._in_flight:
            return self._rest_until > 0.0 and self._clock.monotonic() < self._rest_until
        most = max(1, self._account.window.limit // 2)
        return self._in_flight >= most or self._clock.monotonic() < self._rest_until

    def begin(self, batch: Batch) -> float | None:
        """A request is under way: what `end` wants to be told, None where it carries nothing of the kind."""
        for profile in batch.profiles:
            if profile.tries:
                self._in_flight += 1
                return self._clock.monotonic()
        return None

    def end(self, begun_at: float | None) -> None:
        """It is over, whatever came of it."""
        if begun_at is None:
            return
        self._in_flight -= 1
        now = self._clock.monotonic()
        if self._account.window.limit == 1:
            self._rest_until = now + (now - begun_at)
