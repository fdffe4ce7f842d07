"""When requests have taken too long: one timer for all of them, since nearly none ever needs it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol


class Expiring(Protocol):
    deadline: float

    def expire(self) -> None:
        """Its deadline has passed."""


class Deadlines:
    """Of whatever is watched and has not been dropped since. Times are the loop's."""

    def __init__(self) -> None:
        self._watched: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self.drop: Callable[[Expiring], None] = self._watched.discard

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._watched)}>"

    def watch(self, one: Expiring, deadline: float) -> None:
        one.deadline = deadline
        self._watched.add(one)
        if deadline < self._due:
            self._set(deadline)

    def close(self) -> None:
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        """Ahead of the earliest deadline nothing is due: most of what was watched is over long before."""
        now = asyncio.get_running_loop().time()
        self._timer, self._due = None, math.inf
        for one in [one for one in self._watched if one.deadline <= now]:
            self.drop(one)
            one.expire()
        if self._watched:
            self._set(min(one.deadline for one in self._watched))


__all__ = ["Deadlines"]
