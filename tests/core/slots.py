"""What tests of the coalescer share: a few people, and what happens to them."""

from __future__ import annotations

import json

from engine.core.coalescer import Coalescer
from engine.model import NOTHING, Event, Kind, Lane, Profile

KEYS = [bytes([n]) * 32 for n in range(6)]
ANNA, BERT, CARL = KEYS[:3]


def merge(older: bytes, newer: bytes) -> tuple[bytes, int]:
    return json.dumps(json.loads(older) | json.loads(newer)).encode(), 1


def event(key: bytes, **fields: object) -> Event:
    return Event(key, json.dumps(fields).encode(), 1)


def letter(key: bytes, number: int, *, through: int, **fields: object) -> Event:
    """A dead letter handed in again."""
    content = json.dumps(fields).encode()
    return Event(key, content, 1, kind=Kind.REPLAY, destination="demo", through=through, letter=number)


def add(coalescer: Coalescer, key: bytes, offset: int, lane: Lane = Lane.LIVE, **fields: object) -> Profile:
    """Take in one event, accepted at as many seconds as its offset says; the slot it went into."""
    coalescer.add(event(key, **fields or {"n": offset}), offset, lane, float(offset))
    waiting, _ = coalescer.find(key)
    assert waiting is not None
    return waiting


def stored(key: bytes, last: int, *, events: int = 1, lane: Lane = Lane.BACKFILL, **fields: object) -> Profile:
    """A profile as it comes back from disk."""
    content = json.dumps(fields).encode()
    return Profile(key, content, 1, lane, NOTHING, last, last, events, float(last))


def lease_any(coalescer: Coalescer, lane: Lane = Lane.LIVE) -> Profile | None:
    head = coalescer.head(lane)
    if head is not None:
        coalescer.lease(head)
    return head


def lease(coalescer: Coalescer, lane: Lane = Lane.LIVE) -> Profile:
    """The oldest profile of the lane, of which there is one."""
    profile = lease_any(coalescer, lane)
    assert profile is not None
    return profile


def content(profile: Profile) -> dict[str, object]:
    return json.loads(profile.content)
