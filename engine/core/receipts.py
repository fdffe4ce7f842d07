"""Receipts: what became of the events of one append, for the newest appends of this process. Pure.

A receipt's id is opaque to its reader: journal, owner, first offset and count, so that an id can be judged after the
counts are gone, and another owner's or another journal's is recognised.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from engine.model import Outcome

_encode = msgspec.msgpack.Encoder().encode


class ReceiptId(msgspec.Struct, array_like=True, frozen=True):
    journal: str
    owner: str  # a hash of the name: the id tells nobody which key sent it
    first: int
    count: int

    def text(self) -> str:
        return base64.urlsafe_b64encode(_encode(self)).rstrip(b"=").decode()

    @staticmethod
    def make(journal: str, owner: str, first: int, count: int) -> ReceiptId:
        return ReceiptId(journal, _owner(owner), first, count)

    def belongs_to(self, journal: str, owner: str) -> bool:
        return self.journal == journal and self.owner == _owner(owner)


def receipt_id(journal: str, owner: str, first: int, count: int) -> str:
    return ReceiptId(journal, _owner(owner), first, count).text()


def read_id(text: str) -> ReceiptId | None:
    """None when it is not an id that this engine ever gave out."""
    try:
        packed = base64.urlsafe_b64decode(text + "===")  # more padding than needed is ignored
        return msgspec.msgpack.decode(packed, type=ReceiptId)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None


@lru_cache(1_024)
def _owner(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


class Tracker:
    """The events of one append, destination by destination. What is not counted yet takes no memory: there is one for
    every request."""

    __slots__ = ("_counts", "_left", "_names", "_waiters", "events", "first", "followed", "lost")

    def __init__(self, first: int, events: int, destinations: Collection[str]) -> None:
        self.first, self.events, self._names = first, events, destinations
        self._counts: Mapping[tuple[str, str], int] = NO_COUNTS
        self._left: dict[str, int] | None = None if events and destinations else NONE_LEFT  # None: all of them
        self.lost = False
        self.followed = True  # False once it is too old to be asked for
        self._waiters: list[Callable[[], None]] | None = None

    @property
    def settled(self) -> bool:
        return self._left is not None and not self._left

    def count(self, destination: str, outcome: str, events: int = 1) -> None:
        if self._left is None and events == self.events and [destination] == self._names:
            self._counts, self._left = _one_count(destination, str(outcome), events), NONE_LEFT
            self.release()
            return
        counted = (destination, str(outcome))
        self._counts = {**self._counts, counted: self._counts.get(counted, 0) + events}
        self._less(destination, events)

    def skip(self, destination: str, events: int) -> None:
        self._less(destination, events)

    def lose(self) -> None:
        """An event of it is held on disk and cannot be followed any more: the state follows the watermark now."""
        self.lost = True
        self.release()

    def _less(self, destination: str, events: int) -> None:
        if self._left is None:
            self._left = dict.fromkeys(self._names, self.events)
        left = self._left.get(destination)
        if left is None:
            return
        if left > events:
            self._left[destination] = left - events
            return
        del self._left[destination]
        if not self._left:
            self._left = NONE_LEFT
            self.release()

    def release(self) -> None:
        """Tell whoever waits."""
        waiters, self._waiters = self._waiters, None
        for tell in waiters or ():
            tell()

    def when_settled(self, tell: Callable[[], None]) -> None:
        if self.settled or self.lost:
            tell()
        else:
            self._waiters = [*(self._waiters or ()), tell]

    def report(self) -> dict[str, dict[str, int]]:
        left = dict.fromkeys(self._names, self.events) if self._left is None else self._left
        counts = self._counts
        return {
            name: {"pending": left.get(name, 0)} | {one: counts.get((name, one), 0) for one in OUTCOMES}
            for name in self._names
        }


@lru_cache(1_024)
def _one_count(destination: str, outcome: str, events: int) -> Mapping[tuple[str, str], int]:
    """What nearly every tracker ends with, shared by all of them."""
    return {(destination, outcome): events}


NO_COUNTS: Mapping[tuple[str, str], int] = {}
NONE_LEFT: dict[str, int] = {}
OUTCOMES = tuple(str(outcome) for outcome in Outcome)  # an enum's member takes ten times as long to be found in a dict


Following = list[tuple[object, int, int]]
"""Of one profile: (tracker, its last offset merged in, how many of its events were)."""

TIDY_EVERY = 4_096


def follow(following: Following | None, tracker: object, offset: int) -> Following:
    """One more event to be followed; offsets only grow. Changes the list in place, and drops what nobody can ask for
    any more: an attendee may change a million times before it is delivered."""
    if following is None:
        return [(tracker, offset, 1)]
    if following[-1][0] is tracker:
        following[-1] = (tracker, offset, following[-1][2] + 1)
        return following
    following.append((tracker, offset, 1))
    if len(following) % TIDY_EVERY == 0:
        following[:] = [one for one in following if getattr(one[0], "followed", True)]
    return following


def listed(receipts: Any, last: int) -> Following:
    """Who follows a profile, as a list. `receipts`: None, such a list, or one tracker alone, of one event with the
    offset `last`: that is what nearly every profile has, and a list for it would weigh as much as its content."""
    if type(receipts) is list:
        return receipts
    return [] if receipts is None else [(receipts, last, 1)]


class Receipts:
    """The newest trackers by first offset; an older one falls out, its events go on unfollowed."""

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._trackers: OrderedDict[int, Tracker] = OrderedDict()

    def add(self, tracker: Tracker) -> None:
        self._trackers[tracker.first] = tracker
        if len(self._trackers) > self._limit:
            oldest = self._trackers.popitem(last=False)[1]
            oldest.followed = False
            oldest.release()

    def get(self, first: int) -> Tracker | None:
        return self._trackers.get(first)

    def release(self) -> None:
        """Nothing gets an outcome any more: tell everybody who waits."""
        for tracker in self._trackers.values():
            tracker.release()
