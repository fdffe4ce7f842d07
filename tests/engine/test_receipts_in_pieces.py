"""A receipt is followed to its end also where its append is read from the journal piece by piece."""

from __future__ import annotations

import random

import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.dispatcher import consumer
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination

PEOPLE = [{"email": f"p{n}@example.com"} for n in range(50)]


def settled_with(buffer: int) -> dict[str, int]:
    """What became of 50 events of one append, where so many profiles fit."""

    async def main() -> dict[str, int]:
        tables = {
            "buffer": {"max_profiles": buffer},
            "account": [{"rate": {"requests_per_second": 1_000.0, "burst": 10}}],
            "destination": [{"name": "demo", "batch": {"max_profiles": 10}}],
        }
        engine = Engine(
            Config.from_dict(tables),
            destinations={"demo": FakeDestination()},
            journal=MemoryJournal(),
            clock=VirtualClock(),
            random=random.Random(1),
        )
        async with engine:
            await engine.recovered()
            receipt = await engine.submit(PEOPLE)
            counts = await receipt.settled(timeout=60)
            assert counts is not None
            return counts["demo"]

    return run_virtual(main)


@pytest.mark.parametrize("buffer", [20, 49, 50, 1_000])
def test_a_receipt_settles_however_little_of_its_append_fits_at_once(buffer: int) -> None:
    assert settled_with(buffer)["delivered"] == len(PEOPLE)


def test_a_receipt_settles_when_its_append_crosses_what_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "READ_AHEAD_EVENTS", 30)
    assert settled_with(1_000)["delivered"] == len(PEOPLE)
