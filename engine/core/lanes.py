"""Whose turn is it: between lanes of one destination, and between destinations of one account. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection

from engine.model import Lane

SHARE_OF_OTHERS = 0.10
"""Each non-empty lane gets at least this part of the permits."""


class LaneChooser:
    """The best lane goes first; every other non-empty lane earns a tenth of a turn with each choice, and takes its turn
    when it has earned a whole one."""

    def __init__(self) -> None:
        self._earned = dict.fromkeys(Lane, 0.0)

    def next(self, is_ready: Callable[[Lane], object]) -> Lane | None:
        """The lane whose profile is taken next, among those that have one ready; None when none has."""
        ready = [lane for lane in Lane if is_ready(lane)]
        if len(ready) <= 1:
            return ready[0] if ready else None
        best, *others = ready
        for lane in others:
            self._earned[lane] += SHARE_OF_OTHERS
        richest = max(others, key=lambda lane: self._earned[lane])
        # Sums of tenths are not exact, and a lane must not wait an eleventh turn for it.
        if self._earned[richest] >= 1.0 - 1e-9:
            self._earned[richest] -= 1.0
            return richest
        return best


class WeightedRoundRobin:
    """Smooth weighted round robin. Who is not ready is passed over and earns nothing meanwhile."""

    def __init__(self) -> None:
        self._weights: dict[str, int] = {}
        self._credit: dict[str, float] = {}

    def add(self, name: str, weight: int) -> None:
        self._weights[name], self._credit[name] = weight, 0.0

    def next(self, ready: Collection[str]) -> str:
        """Whose turn it is among `ready` (not empty)."""
        if len(ready) == 1:
            return next(iter(ready))
        total = 0
        for name in ready:
            self._credit[name] += self._weights[name]
            total += self._weights[name]
        chosen = max(ready, key=lambda name: self._credit[name])
        self._credit[chosen] -= total
        return chosen
