"""What waits in one lane, oldest first, and the order of the offsets that hold the watermark. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

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


class Offsets:
    """The lowest offsets of profiles as they arose, so that they only grow, and the key each belonged to then. Whose
    they are now is looked up in `slots`."""

    __slots__ = ("_slots", "at", "owners")

    def __init__(self, *slots: Mapping[bytes, Profile]) -> None:
        self._slots = slots
        self.at: deque[int] = deque()
        self.owners: deque[bytes] = deque()

    def note(self, offset: int, key: bytes) -> None:
        self.at.append(offset)
        self.owners.append(key)

    def note_all(self, offsets: Iterable[int], keys: Iterable[bytes]) -> None:
        """As `note`, one by one."""
        self.at.extend(offsets)
        self.owners.extend(keys)

    def pairs(self) -> Iterable[tuple[int, bytes]]:
        return zip(self.at, self.owners, strict=True)

    def first(self) -> int | None:
        """The first that is still the lowest of its profile; those before it are let go."""
        at, owners = self.at, self.owners
        while at:
            offset, key = at[0], owners[0]
            for slots in self._slots:  # as `_is_lowest`, which costs as much as all else here when it is called
                profile = slots.get(key)
                if profile is not None and profile.lowest == offset:
                    return offset
            at.popleft()
            owners.popleft()
        return None

    def sweep(self, profiles: int, since: Mapping[bytes, tuple[int, int]]) -> None:
        """Behind an old profile those of all that came and went add up: let go of them once they are many more than
        `profiles`. `since`: key -> (.., an offset that stays, as a copy on its way makes it the lowest)."""
        if len(self.at) > 2 * profiles + FORGOTTEN_ENTRIES:
            kept = [
                (at, key)
                for at, key in self.pairs()
                if self._is_lowest(key, at) or (key in since and since[key][1] == at)
            ]
            self.at, self.owners = deque(at for at, _ in kept), deque(key for _, key in kept)

    def _is_lowest(self, key: bytes, offset: int) -> bool:
        for slots in self._slots:  # noqa: SIM110 - a generator in any() costs three times as much
            if key in slots and slots[key].lowest == offset:
                return True
        return False
