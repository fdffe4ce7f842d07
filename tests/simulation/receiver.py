"""Whoever is told of the changes that RainFocus reports: loses requests, answers, and its patience, as real ones do."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
import msgspec
from facts import Facts
from knobs import Knobs

from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Permit


class Receiver:
    """See `ports.Destination`. `is_alive`: does the process that sends still live?"""

    fingerprint = b"hook"
    profiles_per_request = 1

    def __init__(self, knobs: Knobs, facts: Facts, is_alive: Callable[[], bool], is_faulty: Callable[[], bool]) -> None:
        self._knobs, self._facts, self._is_alive, self._is_faulty = knobs, facts, is_alive, is_faulty
        self._random = random.Random(f"receiver {knobs.seed} {facts.life}")

    def encode(self, profile: Profile, /) -> bytes:
        return profile.content

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        await permit.use()
        trouble = self._random.choice(["busy", "lost", "taken and lost"]) if self._is_troubled() else ""
        await anyio.sleep(self._random.uniform(0.0, self._knobs.way_seconds))
        if trouble in ("", "taken and lost") and self._is_alive():
            self._take(batch)
        if not trouble:
            return Reply([Verdict(VerdictKind.OK)], status=200)
        self._facts.seen[f"a change was {trouble}"] += 1
        kind = VerdictKind.RETRY if trouble == "busy" else VerdictKind.UNKNOWN
        return Reply([Verdict(kind, trouble)], destination_fault=True)

    def _is_troubled(self) -> bool:
        return self._is_faulty() and self._random.random() < self._knobs.unheard

    def _take(self, batch: Batch) -> None:
        events = msgspec.json.decode(batch.records[0], type=list[dict[str, object]])
        self._facts.forwarded(batch.profiles[0].key, [str(event["id"]) for event in events])
