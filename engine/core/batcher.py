"""When is a batch due, and why: by count, by bytes, by linger, or because the engine drains. Pure."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum


class Cut(StrEnum):
    """Why a batch leaves now."""

    COUNT = "count"
    BYTES = "bytes"
    LINGER = "linger"


class Batcher:
    """`linger_seconds`: the longest wait of a profile for company, or for more events of its key."""

    def __init__(self, *, max_profiles: int, max_bytes: int, linger_seconds: float) -> None:
        self.max_profiles, self.max_bytes, self.linger_seconds = max_profiles, max_bytes, linger_seconds
        self.cuts: Counter[str] = Counter()

    def is_full(self, waiting: int, bytes_waiting: int) -> bool:
        """Is a batch due however young it is? A single profile is company enough where a request carries one, but it
        lingers too: more events of its key may come."""
        return self.max_profiles > 1 and (waiting >= self.max_profiles or bytes_waiting >= self.max_bytes)

    def due(self, now: float, *, waiting: int, bytes_waiting: int, oldest_waiting_since: float | None) -> Cut | None:
        """The reason why a batch is due now; None while it may still wait."""
        if not waiting:
            return None
        if self.is_full(waiting, bytes_waiting):
            return Cut.COUNT if waiting >= self.max_profiles else Cut.BYTES
        if oldest_waiting_since is not None and now >= oldest_waiting_since + self.linger_seconds:
            return Cut.LINGER
        return None

    def due_at(self, oldest_waiting_since: float) -> float:
        """When linger will be the reason."""
        return oldest_waiting_since + self.linger_seconds

    def cut(self, profiles: int, full: bool) -> None:
        """A batch was taken: count why."""
        reason = Cut.COUNT if profiles >= self.max_profiles > 1 else Cut.BYTES if full else Cut.LINGER
        self.cuts[reason] += 1

    def holds(self, profiles: int, size_bytes: int) -> bool:
        """Do so many records of this size in all fit into one batch?"""
        return profiles == 1 or (profiles <= self.max_profiles and size_bytes <= self.max_bytes)

    def fits(self, profiles: int, size_bytes: int, next_bytes: int) -> bool:
        """May one more record of `next_bytes` join? A record over the limit still goes, alone."""
        return profiles == 0 or (profiles < self.max_profiles and size_bytes + next_bytes <= self.max_bytes)
