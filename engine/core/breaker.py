"""The circuit breaker of a destination or an account, as a transition table. Pure.

Whose fault is a failure? Five in a row over at least three keys (or over all keys that wait, if fewer) are the
destination's: it opens. Open, nothing is sent; after a backoff step one probe may go (half open): its success closes
the breaker, its failure opens it again for a longer step. A refusal that only a person can mend trips it at once.

Rules: everything that changes `state` goes through `NEXT`; an event that has no row there changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from enum import StrEnum

from engine.core.backoff import Backoff

FAILURES_IN_A_ROW = 5
DISTINCT_KEYS = 3


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Step(StrEnum):
    TRIP = "trip"
    PROBE = "probe"
    SUCCEED = "succeed"
    FAIL = "fail"
    LAPSE = "lapse"


NEXT: dict[State, dict[Step, State]] = {
    State.CLOSED: {Step.TRIP: State.OPEN},
    State.OPEN: {Step.TRIP: State.OPEN, Step.PROBE: State.HALF_OPEN, Step.SUCCEED: State.CLOSED},
    State.HALF_OPEN: {
        Step.TRIP: State.OPEN,
        Step.FAIL: State.OPEN,
        Step.LAPSE: State.OPEN,
        Step.SUCCEED: State.CLOSED,
    },
}


class Breaker:
    """`backoff` gives the steps between probes; `random` their jitter. `now` is monotonic seconds everywhere."""

    def __init__(self, backoff: Backoff, random: random.Random) -> None:
        self._backoff, self._random = backoff, random
        self.state: str = State.CLOSED
        self.reason = ""
        self.next_probe_at: float | None = None
        self._openings = 0  # in a row, without a success between
        self._failures = 0
        self._keys: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<Breaker {self.state}{f' ({self.reason})' if self.reason else ''}>"

    def may_send(self, now: float) -> bool:
        """Closed, or a probe is due. Asking changes nothing; `probing` says that the probe is on its way."""
        if self.state == State.CLOSED:
            return True
        return self.next_probe_at is not None and now >= self.next_probe_at

    def probing(self, now: float) -> None:
        """A request leaves now: if the breaker is not closed it is the one probe of this backoff step."""
        if self.state == State.CLOSED:
            return
        self._move(Step.PROBE)
        self.next_probe_at = now + self._backoff.cap_seconds

    def success(self, now: float) -> bool:
        """The destination answered for good. True when that closed the breaker."""
        self._failures, self._openings = 0, 0
        self._keys.clear()
        if self.state == State.CLOSED:
            return False
        self._move(Step.SUCCEED)
        self.reason, self.next_probe_at = "", None
        return True

    def failure(self, keys: Collection[bytes], now: float, *, waiting_keys: int, reason: str = "") -> None:
        """One request failed by the destination's fault. `waiting_keys`: how many keys there are to be sent at all."""
        if self.state == State.HALF_OPEN:
            self._open(Step.FAIL, reason, now)
            return
        self._failures += 1
        if len(self._keys) < DISTINCT_KEYS:
            self._keys.update(list(keys)[:DISTINCT_KEYS])
        enough_keys = len(self._keys) >= min(DISTINCT_KEYS, max(1, waiting_keys))
        if self.state == State.CLOSED and self._failures >= FAILURES_IN_A_ROW and enough_keys:
            self._open(Step.TRIP, reason, now)

    def lapse(self, now: float) -> None:
        """The probe told nothing (it was never sent, or its token was refused): another one may go at once."""
        if self.state == State.HALF_OPEN:
            self._move(Step.LAPSE)
            self.next_probe_at = now

    def trip(self, reason: str, now: float) -> None:
        """No request can pass before a person acts (or so the answer says): open at once."""
        self._open(Step.TRIP, reason, now)

    def _open(self, step: Step, reason: str, now: float) -> None:
        self._move(step)
        self._openings += 1
        self.reason = reason or self.reason or "failing"
        # Half the step is certain: a breaker that jitter closes at once would be none.
        ceiling = self._backoff.ceiling_seconds(self._openings)
        self.next_probe_at = now + ceiling / 2 + self._random.uniform(0.0, ceiling / 2)

    def _move(self, step: Step) -> None:
        self.state = NEXT[State(self.state)].get(step, self.state)
