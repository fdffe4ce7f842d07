"""What waits in one lane, oldest first. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.model import Profile

FORGOTTEN_ENTRIES = 10_000
"""So many entries of what has left may stand in a line beside as many as are of use; then it is swept."""


class LaneQueue:
    """Profiles of one lane that may be leased, oldest first: new ones by arrival, returning ones by their age.

    Entries are never searched for: one that left by another door is skipped when it comes up, or swept with others.
    """

    __slots__ = ("fresh", "ready", "returned")

    def __init__(self) -> None:
        self.fresh: deque[Profile] = deque()
        self.returned: list[tuple[float, int, Profile]] = []
        self.ready = 0

    def sweep(self, may_go: Callable[[Profile], bool]) -> None:
        """Let go of those that left by another door, once they are many: their contents would stay in memory."""
        if len(self.fresh) > 2 * self.ready + FORGOTTEN_ENTRIES:
            self.fresh = deque(profile for profile in self.fresh if may_go(profile))
