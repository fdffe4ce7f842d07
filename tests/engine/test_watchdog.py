"""The watchdog: what is stuck is said, counted and shown as not ready; what waits for a reason is left alone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import Any

import anyio
import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.assembly.build import Parts
from engine.dispatcher.account import Account
from engine.model import Append, Batch, Reply, Verdict, VerdictKind
from engine.pipeline.reader import Reader
from engine.ports import Permit, Transition
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, retry
from engine.testing.lasting import LastingState

PATIENCE = 60.0
ADDRESS = "lea.martin@example.com"
TOKEN = "token-that-nobody-may-read"


class Journal(MemoryJournal):
    """A disk that hangs while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = anyio.Event()
        self.hangs.set()

    async def append(self, appends: Sequence[Append], /) -> int:
        await self.hangs.wait()
        return await super().append(appends)


class State(LastingState):
    """As the journal."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = anyio.Event()
        self.hangs.set()

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        await self.hangs.wait()
        await super().settle(transitions, pauses)


class Store(FakeDestination):
    """Never answers while told so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.answers = anyio.Event()
        self.answers.set()

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        await self.answers.wait()
        return await super().send(batch, permit)


class Tokens:
    """One token, or none with a reason."""

    def __init__(self) -> None:
        self.trouble, self.there = "", True

    def current(self) -> str:
        return TOKEN if self.there else ""

    async def valid(self) -> str:
        while not self.there:  # noqa: ASYNC110
            await anyio.sleep(1.0)
        return TOKEN

    def discard(self, token: str, /) -> None:
        """It is as good as another."""

    async def run(self) -> None:
        """Nothing to do ahead of time."""

    async def close(self) -> None:
        """Nothing to close."""


class WithTokens(Engine):
    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.tokens = Tokens()

    async def _serve(self, parts: Parts) -> None:
        for account in parts.accounts:
            account.tokens = self.tokens
        await super()._serve(parts)


class Scene:
    def __init__(self, store: Store | None = None, **rate: Any) -> None:
        self.journal, self.state, self.store = Journal(), State(), store or Store()
        limits = {"requests_per_second": 100.0, "burst": 4, "max_concurrency": 4} | rate
        self.engine = WithTokens(
            Config.from_dict({"account": [{"rate": limits}], "engine": {"watchdog_seconds": PATIENCE}}),
            destinations={"demo": self.store},
            journal=self.journal,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(1),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """Killed at the end: what is stuck does not drain."""
        await self.engine.__aenter__()
        await self.engine.submit([{"email": "first@example.com"}])
        await anyio.sleep(5.0)
        assert len(self.store.stored) == 1
        yield self.engine
        await self.engine.kill()

    def stalls(self) -> dict[tuple[str, str], int]:
        return dict(self.engine.metrics.stalls)

    def gauge(self, stage: str, destination: str = "demo") -> float:
        name = f'engine_progress_stalled{{destination="{destination}",stage="{stage}"}}'
        lines = self.engine.metrics.render().decode().splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


@contextmanager
def lost(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> Iterator[None]:
    """From here to the end of the block, calling this does nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *given: None)
        yield


def on_virtual_time(test: Callable[..., Any]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(lambda: test(**fixtures))

    return run


async def submit(engine: Engine, people: int = 5) -> None:
    await engine.submit([{"email": f"p{n}@example.com"} for n in range(people)])


# -- what is stuck ----------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_permit_that_is_never_given_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(max_concurrency=1)
    async with scene.running() as engine:
        with lost(monkeypatch, Account, "done"):
            await submit(engine)
            await anyio.sleep(PATIENCE * 1.5)
            assert engine.readiness() == ["no-progress"]
        assert scene.stalls() == {("send", "demo"): 1}
        assert scene.gauge("send") == 1.0
        assert engine.control.destinations()[0]["reason"] == "no-progress"


@on_virtual_time
async def test_a_wake_up_that_the_arbiter_never_hears_is_seen_and_it_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    async with scene.running() as engine:
        with lost(monkeypatch, Account, "wake"):
            await submit(engine)
            await anyio.sleep(PATIENCE * 1.5)
            assert engine.readiness() == ["no-progress"]
        engine._running().accounts[0].wake()
        await anyio.sleep(PATIENCE / 5)
        assert engine.readiness() == []
        assert scene.gauge("send") == 0.0
        assert scene.stalls() == {("send", "demo"): 1}


@on_virtual_time
async def test_a_wake_up_that_the_reader_never_hears_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    async with scene.running() as engine:
        with lost(monkeypatch, Reader, "offer"):
            await submit(engine)
            await anyio.sleep(PATIENCE * 1.5)
        assert engine.readiness() == ["no-progress"]
        assert scene.stalls() == {("read", "demo"): 1}


@on_virtual_time
async def test_a_wake_up_that_the_settler_never_hears_is_seen() -> None:
    scene = Scene()
    async with scene.running() as engine:
        engine._running().pipeline.settler._dirty = asyncio.Event()  # it goes on waiting for the other one
        await submit(engine)
        await anyio.sleep(PATIENCE * 1.5)
        assert scene.stalls() == {("settle", ""): 1}


@on_virtual_time
async def test_a_send_that_never_returns_is_seen() -> None:
    scene = Scene()
    async with scene.running() as engine:
        scene.store.answers = anyio.Event()
        await submit(engine)
        await anyio.sleep(PATIENCE * 1.5)
        assert engine.readiness() == ["no-progress"]
        assert scene.stalls() == {("send", "demo"): 1}
        scene.store.answers.set()
        await anyio.sleep(PATIENCE / 5)
        assert engine.readiness() == []


@on_virtual_time
async def test_a_journal_that_hangs_is_seen() -> None:
    scene = Scene()
    async with scene.running() as engine, anyio.create_task_group() as producers:
        scene.journal.hangs = anyio.Event()
        producers.start_soon(submit, engine)
        await anyio.sleep(PATIENCE * 1.5)
        assert scene.stalls() == {("commit", ""): 1}
        assert scene.gauge("commit", "") == 1.0
        scene.journal.hangs.set()
        await anyio.sleep(PATIENCE / 5)
        assert engine.readiness() == []


@on_virtual_time
async def test_a_state_file_that_hangs_is_seen() -> None:
    scene = Scene()
    async with scene.running() as engine:
        scene.state.hangs = anyio.Event()
        await submit(engine)
        await anyio.sleep(PATIENCE * 1.5)
        assert scene.stalls() == {("settle", ""): 1}
        scene.state.hangs.set()


@on_virtual_time
async def test_a_lock_that_is_never_let_go_is_seen() -> None:
    scene = Scene()
    async with scene.running() as engine:
        await engine._running().pipeline.settler.lock.acquire()
        await submit(engine)
        await anyio.sleep(PATIENCE * 1.5)
        assert scene.stalls() == {("settle", ""): 1}


@on_virtual_time
async def test_a_stall_is_logged_with_where_the_tasks_wait_and_with_nobodys_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    async with scene.running() as engine, anyio.create_task_group() as hosts:
        scene.store.answers = anyio.Event()
        await engine.submit([{"email": ADDRESS}])
        hosts.start_soon(engine.lookup, ADDRESS, name=f"look up {ADDRESS}")
        with caplog.at_level(logging.WARNING, "engine.pipeline"):
            await anyio.sleep(PATIENCE * 1.5)
            told = [it.getMessage() for it in caplog.records if "no progress" in it.getMessage()]
            assert len(told) == 1
            assert "send of destination demo for 60 s" in told[0]
            assert "engine/dispatcher/attempts.py" in told[0]
            assert "engine/pipeline/settler.py" in told[0]
            for secret in ("@", "lea", "martin", TOKEN):
                assert secret not in told[0]
            await anyio.sleep(500.0)
            assert sum("no progress" in it.getMessage() for it in caplog.records) == 1, "not told at every look"
            await anyio.sleep(3 * 600.0)
            assert sum("no progress" in it.getMessage() for it in caplog.records) == 4, "and again every ten minutes"
            scene.store.answers.set()
            await anyio.sleep(PATIENCE)
        assert caplog.records[-1].getMessage() == "progress again: send of destination demo"


# -- what is not ------------------------------------------------------------------------------------------------------


async def calm(scene: Scene, engine: Engine, seconds: float = 20 * PATIENCE) -> None:
    with anyio.move_on_after(seconds):
        while True:
            await anyio.sleep(7.0)
            assert "no-progress" not in engine.readiness()
    assert scene.stalls() == {}


@on_virtual_time
async def test_nothing_to_do_is_not_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        await calm(scene, engine)


@on_virtual_time
async def test_a_paused_destination_is_not_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        await engine.pause("demo")
        await submit(engine)
        await calm(scene, engine)


@on_virtual_time
async def test_a_destination_that_is_down_is_not_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        scene.store.answer = lambda batch: Step(retry())
        await submit(engine)
        await calm(scene, engine)
        assert engine.control.destinations()[0]["state"] == "open"


@on_virtual_time
async def test_a_destination_that_never_answers_in_time_is_not_a_stall() -> None:
    """Attempts of which nobody knows the end, one after the other: the breaker opens, probes go on."""
    scene = Scene()
    async with scene.running() as engine:
        scene.store.answer = lambda batch: Step(Verdict(VerdictKind.UNKNOWN, "timeout"), seconds=10.0)
        await submit(engine)
        await calm(scene, engine)


@on_virtual_time
async def test_a_retry_after_pause_is_not_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        scene.store.script.append(Step(retry("http_429"), retry_after_seconds=1_000.0))
        await submit(engine)
        await calm(scene, engine, 900.0)
        assert len(scene.store.stored) < 6


@on_virtual_time
async def test_a_token_outage_is_not_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        scene.engine.tokens.there, scene.engine.tokens.trouble = False, "http_500"
        await submit(engine)
        await calm(scene, engine)
        assert len(scene.store.stored) == 1


@on_virtual_time
async def test_a_token_that_never_comes_and_nobody_says_why_is_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        scene.engine.tokens.there = False
        await submit(engine)
        await anyio.sleep(PATIENCE * 1.5)
        assert scene.stalls() == {("send", "demo"): 1}


@on_virtual_time
async def test_one_request_a_minute_is_not_a_stall() -> None:
    scene = Scene(requests_per_second=1 / 60, burst=2)
    await scene.engine.__aenter__()
    await submit(scene.engine, 40)
    await calm(scene, scene.engine, 45 * 60.0)
    assert len(scene.store.stored) > 35
    await scene.engine.kill()


@on_virtual_time
async def test_profiles_that_back_off_are_not_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        turns = 0

        def now_and_then(batch: Batch) -> Step:
            nonlocal turns
            turns += 1
            return Step(retry()) if b"p0@" in batch.records[0] and turns < 40 else Step()

        scene.store.answer = now_and_then
        await submit(engine)
        await calm(scene, engine)


@on_virtual_time
async def test_whoever_reads_the_books_for_an_hour_is_not_a_stall() -> None:
    scene = Scene()
    async with scene.running() as engine:
        async with engine._running().pipeline.settler.at_rest():
            await submit(engine)
            await calm(scene, engine, 3_600.0)
        await anyio.sleep(5.0)
        assert (await engine.control.audit())["ok"]


@on_virtual_time
async def test_it_can_be_turned_off() -> None:
    scene = Scene()
    scene.engine = WithTokens(
        Config.from_dict({"engine": {"watchdog_seconds": 0}}),
        destinations={"demo": scene.store},
        journal=scene.journal,
        state=scene.state,
        clock=VirtualClock(),
    )
    async with scene.running() as engine:
        scene.store.answers = anyio.Event()
        await submit(engine)
        await anyio.sleep(100 * PATIENCE)
        assert engine.readiness() == []
