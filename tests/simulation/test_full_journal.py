"""What happens at the journal's limit (DESIGN §4, Limits)."""

from __future__ import annotations

import random

import anyio
import pytest

from engine import Config, Engine, Overloaded
from engine.adapters.memory_journal import MemoryJournal
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination

CAPACITY_EVENTS = 200
"""About what the journal of `engine_of` holds."""


async def fill(engine: Engine, rounds: int) -> tuple[int, int]:
    """Submit ten events a round, for long; (accepted, refused)."""
    accepted = refused = 0
    for number in range(rounds):
        events = [{"email": f"p{number}-{i}@example.com", "city": "Lille"} for i in range(10)]
        try:
            accepted += (await engine.submit(events)).accepted
        except Overloaded as error:
            refused += 10 * (error.type == "journal-full" and error.retry_after_seconds > 0)
        await anyio.sleep(0.5)
    return accepted, refused


def engine_of(on_full: str, fake: FakeDestination) -> Engine:
    config = Config.from_dict({"journal": {"kind": "memory", "on_full": on_full}})
    journal = MemoryJournal(max_bytes=50_000)
    name = config.destinations[0].name
    return Engine(config, destinations={name: fake}, journal=journal, clock=VirtualClock(), random=random.Random(1))


@pytest.mark.parametrize("on_full", ["refuse", "expire"])
def test_a_full_journal_refuses_or_expires_and_the_sums_stay_even(on_full: str) -> None:
    async def main() -> None:
        async with engine_of(on_full, FakeDestination()) as engine:
            await engine.pause("demo")
            accepted, refused = await fill(engine, 100)
            report = await engine.control.audit()
            assert report["ok"], report
            sums = report["destinations"]["demo"]  # type: ignore[index]
            assert sums["accepted"] == accepted
            if on_full == "refuse":
                assert sums["expired"] == 0
                assert refused > accepted
            else:
                assert sums["expired"] > 0
                assert accepted > 2 * CAPACITY_EVENTS, "what was given up made room"
                letters = await engine.dead_letters.letters(_all(), 1)
                assert letters["total"] == sums["expired"]

    run_virtual(main)


def test_a_journal_that_fills_names_the_laggard_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with engine_of("refuse", FakeDestination()) as engine:
            await engine.pause("demo")
            await fill(engine, 60)

    run_virtual(main)
    said = [record.getMessage() for record in caplog.records if "furthest behind" in record.getMessage()]
    assert [line.partition(":")[0] for line in said] == ["the journal is 50 % full", "the journal is 80 % full"]
    assert all("destination demo is furthest behind" in line for line in said)


def test_a_full_journal_accepts_again_by_itself_once_there_is_room() -> None:
    async def main() -> None:
        fake = FakeDestination()
        async with engine_of("refuse", fake) as engine:
            await engine.pause("demo")
            _, refused = await fill(engine, 60)
            assert refused
            await engine.resume("demo")
            await anyio.sleep(60)
            receipt = await engine.submit([{"email": "late@example.com"}])
            await receipt.settled(timeout=60)
            assert "late@example.com" in fake.stored

    run_virtual(main)


def _all() -> object:
    from engine.ports import LetterFilter

    return LetterFilter()
