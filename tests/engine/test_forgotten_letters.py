"""Forgetting somebody leaves no dead letter behind, and those that are gone are not counted any more."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.model import Verdict, VerdictKind
from engine.pipeline.pipeline import PRUNE_SECONDS
from engine.ports import LetterFilter
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, reject
from engine.testing.lasting import LastingState

LEA = {"email": "lea@example.com", "city": "Lille"}
EVERY = LetterFilter(state=None)
DAY_SECONDS = 86_400.0


def with_engine(scene: Callable[[Engine, FakeDestination], Awaitable[None]], **tables: Any) -> None:
    async def main() -> None:
        store = FakeDestination(answer=lambda batch: Step(reject(), seconds=0.5))
        engine = Engine(
            Config.from_dict({"account": [{"rate": {"requests_per_second": 500.0, "burst": 5}}], **tables}),
            destinations={"demo": store},
            journal=MemoryJournal(),
            clock=VirtualClock(),
            random=random.Random(1),
        )
        async with engine:
            await scene(engine, store)
            report = await engine.control.audit()
            assert report["ok"], report

    run_virtual(main)


async def letters(engine: Engine) -> tuple[int, int]:
    """(stored, whatever became of them; counted as kept)."""
    stored = await engine.dead_letters.letters(EVERY, 10)
    counted = engine.control.destinations()[0]["dead_letters"]
    return int(str(stored["total"])), int(str(counted))


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3, 0.45, 0.52, 0.53, 0.55, 0.6, 2.0])
def test_a_forget_at_any_moment_of_a_rejected_attempt_leaves_no_letter(moment: float) -> None:
    async def scene(engine: Engine, store: FakeDestination) -> None:
        await engine.submit([LEA])
        await anyio.sleep(moment)
        await engine.forget(LEA["email"])
        await anyio.sleep(10.0)
        assert await letters(engine) == (0, 0)

    with_engine(scene)


def test_a_forget_while_the_last_attempt_that_is_allowed_fails_leaves_no_letter() -> None:
    async def scene(engine: Engine, store: FakeDestination) -> None:
        store.answer = lambda batch: Step(Verdict(VerdictKind.RETRY, "response_code_5"), seconds=0.5)
        await engine.submit([LEA])
        await anyio.sleep(0.3)
        await engine.forget(LEA["email"])
        await anyio.sleep(10.0)
        assert await letters(engine) == (0, 0)

    with_engine(scene, destination=[{"name": "demo", "retry": {"max_attempts": 1}}])


def test_a_letter_that_waits_for_its_transaction_does_not_survive_the_forget_in_it() -> None:
    """Both in one transaction of the settler, the letter first."""

    async def scene(engine: Engine, store: FakeDestination) -> None:
        store.answer = lambda batch: Step(reject())
        lock = engine._running().pipeline.settler.lock
        async with lock:
            await engine.submit([LEA])
            await anyio.sleep(1.0)
            await engine.forget(LEA["email"])
            await anyio.sleep(1.0)
        await anyio.sleep(10.0)
        assert await letters(engine) == (0, 0)

    with_engine(scene)


def test_letters_that_retention_has_deleted_are_not_counted_any_more() -> None:
    async def scene(engine: Engine, store: FakeDestination) -> None:
        await engine.submit([{"email": f"p{n}@example.com"} for n in range(3)])
        await anyio.sleep(10.0)
        assert await letters(engine) == (3, 3)
        await anyio.sleep(DAY_SECONDS - 60.0)
        assert await letters(engine) == (3, 3)
        await anyio.sleep(2 * PRUNE_SECONDS)
        assert await letters(engine) == (0, 0)

    with_engine(scene, dead_letters={"retention_days": 1})


def test_letters_that_were_purged_or_replayed_are_not_counted() -> None:
    async def scene(engine: Engine, store: FakeDestination) -> None:
        await engine.submit([{"email": f"p{n}@example.com"} for n in range(3)])
        await anyio.sleep(10.0)
        await engine.dead_letters.purge(LetterFilter(ids=(1,)))
        assert await letters(engine) == (3, 2)
        store.answer = None
        await engine.dead_letters.replay(LetterFilter())
        await anyio.sleep(10.0)
        assert await letters(engine) == (3, 0)

    with_engine(scene)


def test_a_replay_of_what_is_being_forgotten_takes_nothing_newer_with_it() -> None:
    """Whoever was forgotten and came back is delivered, though a dead letter from before was replayed meanwhile and the
    process was killed then."""

    async def main() -> None:
        journal, state = MemoryJournal(), LastingState()
        store = FakeDestination([Step(reject()), Step(seconds=5.0)])
        config = Config.from_dict({"account": [{"rate": {"requests_per_second": 500.0, "burst": 5}}]})

        def engine() -> Engine:
            made = {"destinations": {"demo": store}, "journal": journal, "state": state, "clock": VirtualClock()}
            return Engine(config, random=random.Random(1), **made)  # type: ignore[arg-type]

        first = engine()
        await first.__aenter__()
        await first.submit([LEA])
        await anyio.sleep(1.0)
        await first.submit([{**LEA, "city": "Lyon"}])
        await anyio.sleep(1.0)  # under way, so that the forget has to wait
        await first.forget(LEA["email"])
        await first.submit([{**LEA, "city": "Lens"}])
        await first.dead_letters.replay(LetterFilter())
        await first.submit([{"email": LEA["email"], "jobtitle": "Baker"}])
        await anyio.sleep(1.0)
        await first.kill()
        async with engine():
            await anyio.sleep(10.0)
        assert store.stored[LEA["email"]] == {**LEA, "city": "Lens", "jobtitle": "Baker"}

    run_virtual(main)
