"""Memory is bound by what waits, not by what came and went; and sweeping changes nothing that anybody can see."""

from __future__ import annotations

import random

import pytest
from slots import KEYS, add, merge, stored

from engine.core import queues
from engine.core.coalescer import Coalescer
from engine.model import NOTHING, Held, HeldKind, Lane

STEPS = ["add", "add", "add", "lease", "settle", "back", "copy", "durable", "load", "forget", "wake"]


def trace(seed: int) -> list[object]:
    """What can be seen of a coalescer that lives through everything that moves a key, in random order."""
    source, coalescer, seen = random.Random(seed), Coalescer(merge), list[object]()
    on_their_way: list[tuple[bytes, int]] = []
    out: list[bytes] = []
    offset = 0
    for _ in range(150):
        match source.choice(STEPS):
            case "add":
                add(coalescer, source.choice(KEYS), offset, source.choice([Lane.LIVE, Lane.BACKFILL, Lane.BACKFILL]))
                offset += 1
            case "lease":
                lane = source.choice(list(Lane))
                out += [profile.key for profile in coalescer.lease_oldest(lane, source.randint(1, 3), 1 << 20)]
            case "settle" | "back" as end if out:
                key = out.pop(0)
                if end == "settle" or coalescer.is_forgotten(key):
                    coalescer.settle(key)
                else:
                    coalescer.give_back(key, source.choice([None, 5.0]))
            case "copy":
                chosen = coalescer.evictable(2) if source.random() < 0.5 else coalescer.stragglers(offset, 2)
                for profile in chosen:
                    if coalescer.may_be_held(profile):
                        coalescer.holding(profile)
                        on_their_way.append((profile.key, profile.last))
            case "durable" if on_their_way:
                key, last = on_their_way.pop(0)
                coalescer.held(key, last)
                seen.append(coalescer.unload(key, last) is not None)
            case "load":
                held = Held(HeldKind.WAITING, stored(source.choice(KEYS), offset - 1), 0.0)
                if offset and coalescer.find(held.profile.key) == (None, None):
                    coalescer.load(held.profile)
            case "forget":
                coalescer.forget(source.choice(KEYS), offset, float(offset))
                offset += 1
                if (marker := coalescer.next_marker()) is not None:
                    coalescer.settle(marker.key)
            case "wake":
                coalescer.wake(source.choice([1.0, 9.0]))
        seen += [
            list(out),
            coalescer.watermark(offset),
            coalescer.ready,
            coalescer.waiting,
            coalescer.leased,
            coalescer.bytes,
        ]
        seen.append([profile.key for profile in coalescer.evictable(9)])
    return seen


@pytest.mark.parametrize("seed", range(100))
def test_sweeping_is_invisible(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "FORGOTTEN_ENTRIES", 1 << 40)
    never = trace(seed)
    monkeypatch.setattr(queues, "FORGOTTEN_ENTRIES", -1_000)  # at every look
    assert trace(seed) == never


def test_what_was_unloaded_leaves_memory_while_an_old_profile_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill of 20,000 beside room for one: its contents are on disk, and not in a queue as well."""
    monkeypatch.setattr(queues, "FORGOTTEN_ENTRIES", 100)
    coalescer = Coalescer(merge)
    add(coalescer, KEYS[0], 0)
    for offset in range(1, 20_001):
        key = offset.to_bytes(32, "big")
        add(coalescer, key, offset, Lane.BACKFILL)
        for profile in coalescer.evictable(10):
            coalescer.holding(profile)
            coalescer.held(profile.key, profile.last)
            assert coalescer.unload(profile.key, profile.last) is profile
            assert profile.lowest == NOTHING
        assert coalescer.watermark(offset + 1) == 0
    assert len(coalescer) == 1
    assert len(coalescer._queues[Lane.BACKFILL].fresh) <= 110
    assert len(coalescer._lowest.at) <= 110
