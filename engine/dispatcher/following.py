"""Who follows the events of one destination, and is to be told what became of them once that is durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from engine.core.receipts import listed
from engine.model import Outcome, Profile

_DELIVERED, _SUPERSEDED = str(Outcome.DELIVERED), str(Outcome.SUPERSEDED)


class Tracker(Protocol):
    """Somebody who asks what became of the events of one append."""

    def count(self, destination: str, outcome: str, events: int, /) -> None: ...

    def skip(self, destination: str, events: int, /) -> None:
        """So many of its events do not concern this destination."""

    def lose(self) -> None:
        """An event of it can no longer be followed: its content is held on disk."""


Notices = dict[tuple[Tracker, str], int]
"""Who is to be told of how many of its events, once that is durable."""


class Following:
    """What is to be told with the open transition."""

    def __init__(self) -> None:
        self._notices: Notices = {}

    def take(self) -> Notices:
        """It is on its way to the state file."""
        notices, self._notices = self._notices, {}
        return notices

    def delivered(self, profiles: Sequence[Profile]) -> None:
        """That they were delivered. Nearly all of them are of one event each, and many in a row of one append."""
        followed: Any = None
        times = 0
        for profile in profiles:
            receipts = profile.receipts
            if type(receipts) is list or profile.under:
                self.settled(profile, _DELIVERED)
            elif receipts is followed:
                times += 1
            else:
                self._note(followed, _DELIVERED, times)
                followed, times = receipts, 1
        self._note(followed, _DELIVERED, times)

    def settled(self, profile: Profile, outcome: str) -> None:
        parts = [profile, *(profile.under or ())]
        for tracker, offset, events in [one for part in parts for one in listed(part.receipts, part.last)]:
            newest = int(offset == profile.last)
            self._note(tracker, outcome, newest)
            self._note(tracker, _SUPERSEDED, events - newest)

    def _note(self, tracker: Any, outcome: str, times: int) -> None:
        if tracker is not None and times:
            told = (tracker, outcome)
            self._notices[told] = self._notices.get(told, 0) + times
