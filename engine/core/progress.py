"""Is something stuck? Work that could be done, and for too long none of it was. Pure.

A stage is looked at now and then. While there is work and nothing known holds it up, the time without anything done
adds up; whatever gets done, or a reason to wait, begins it anew. Waiting for a reason (a pause, an open breaker, the
rate limit) is not being stuck.
"""

from __future__ import annotations

from collections.abc import Hashable

RATE_MARGIN = 1.5
"""How much longer than the rate limit explains a permit may take."""


class Progress:
    """`patience_seconds`: so long nothing may get done. `longest_step_seconds`: what one look can add at most, so that
    a program that was stopped for an hour is not said to have been stuck for an hour."""

    def __init__(self, patience_seconds: float, longest_step_seconds: float) -> None:
        self.patience_seconds, self._longest_step_seconds = patience_seconds, longest_step_seconds
        self.seconds = 0.0  # without progress
        self._done: Hashable = None
        self._looked_at: float | None = None

    def __repr__(self) -> str:
        return f"<Progress {'stalled' if self.stalled else 'well'} [{self.seconds:.0f} of {self.patience_seconds:g} s]>"

    @property
    def stalled(self) -> bool:
        return self.seconds >= self.patience_seconds

    def look(self, now: float, *, due: bool, done: Hashable) -> bool:
        """Is it stuck? `due`: there is work, and nothing holds it up. `done`: changes whenever something got done.
        `now`: monotonic seconds."""
        step = 0.0 if self._looked_at is None else min(now - self._looked_at, self._longest_step_seconds)
        self.seconds = self.seconds + step if due and done == self._done else 0.0
        self._done, self._looked_at = done, now
        return self.stalled


def patience_of_sending(
    least_seconds: float, *, turns: float, attempt_seconds: float, requests_per_second: float, max_concurrency: int
) -> float:
    """How long one destination may go without a reply, in seconds: at least `least_seconds`, and longer than its
    share of the rate limit and requests that take all of their time explain. `turns`: permits of the account for one
    of this destination; `attempt_seconds`: the longest attempt, its hold included."""
    by_attempts = (turns + 1) * attempt_seconds
    by_rate = RATE_MARGIN * (turns + max_concurrency) / requests_per_second
    return max(least_seconds, by_attempts, by_rate)
