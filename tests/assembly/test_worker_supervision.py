"""Ingress workers are started, replaced, told and ended; the processes are played here, the sockets are real."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.abc import TaskGroup

from engine.adapters.worker_link import CoreEnd, Entrance, Hello, RemoteIntake, Way, listening_sockets
from engine.adapters.worker_link.messages import to_worker
from engine.assembly import workers as module
from engine.assembly.worker_plan import (
    CallersPlan,
    Inner,
    WorkerPlan,
    callers_plan,
    config_for_workers,
    unpack_callers,
    unpack_plan,
    with_secrets_read,
)
from engine.assembly.workers import WorkerFailed, Workers
from engine.cli.app import single
from engine.config import Config
from engine.core.backoff import Backoff
from engine.metrics import Metrics


class Played(RemoteIntake):
    """A worker's end of the link that remembers what it was told first."""

    plan: WorkerPlan | None = None
    greeted: Callable[[], None] = staticmethod(lambda: None)

    def got(self, kind: int, body: memoryview) -> None:
        message = to_worker(kind, body)
        if isinstance(message, Hello):
            self.plan = unpack_plan(message.plan)
            self.greeted()
        super().got(kind, body)


class Child:
    """A process as it is seen from outside. `ends`: whether it ends with its link, as workers do."""

    def __init__(self, *, ends: bool = True) -> None:
        self.code: int | None = None
        self.killed = False
        self.callers: list[CallersPlan] = []
        self._ended, self._ends = asyncio.Event(), ends
        self.intake = Played(
            "journal",
            most_bytes=1 << 20,
            callers=lambda packed: self.callers.append(unpack_callers(packed)),
            counts=lambda: None,
        )

    async def connect(self, link: socket.socket) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self.intake, sock=link)

    def end(self, code: int) -> None:
        self.code = code
        self.intake.close()
        self._ended.set()

    def kill(self) -> None:
        if self.code is not None:
            raise ProcessLookupError
        self.killed = True
        self.end(-9)

    async def wait(self) -> int:
        if self._ends:
            closed = asyncio.ensure_future(self.intake.closed.wait())
            ended = asyncio.ensure_future(self._ended.wait())
            await asyncio.wait({closed, ended}, return_when=asyncio.FIRST_COMPLETED)
            closed.cancel()
            ended.cancel()
            self.code = 0 if self.code is None else self.code
        else:
            await self._ended.wait()
        assert self.code is not None
        return self.code


Script = Callable[[Child], None]


def serve(child: Child) -> None:
    child.intake.ready()


class Stage:
    """`scripts`: what the processes do one after the other, the last one's again and again."""

    def __init__(self, config: Config, entrance: Entrance, scripts: list[Script], *, ends: bool) -> None:
        self.children: list[Child] = []
        self.restarts = self.failures = 0
        self.more, self.broken = asyncio.Event(), asyncio.Event()
        self._scripts, self._ends = scripts, ends
        callers = callers_plan(config, lambda: b"signing key")
        plans = [
            WorkerPlan(number, config_for_workers(config), callers, "journal", Inner(Path("inner"), 4), os.getpid())
            for number in range(1, config.ingress.workers + 1)
        ]
        self.workers = Workers(
            plans,
            entrance,
            self.spawn,
            end_of=self._end_of,
            restarted=self._restarted,
            failed=self._failed,
            drain_seconds=0.2,
        )

    async def spawn(self, link: socket.socket, door: socket.socket) -> Child:
        child, script = Child(ends=self._ends), self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        own = link.dup()
        own.setblocking(False)
        await child.connect(own)
        self.children.append(child)
        child.intake.greeted = self.more.set
        script(child)
        return child

    def _end_of(self, tasks: TaskGroup, way: Way) -> CoreEnd:
        return CoreEnd(
            lambda: None,  # type: ignore[arg-type, return-value]
            take=lambda owner, events: 0.0,
            metrics=Metrics(),
            tasks=tasks,
            most_bytes=1 << 20,
            most_waits=1,
            way=way,
        )

    def _restarted(self) -> None:
        self.restarts += 1

    def _failed(self) -> None:
        self.failures += 1
        self.broken.set()

    async def serving(self, count: int) -> None:
        """Until so many have been started and serve."""
        async with asyncio.timeout(5):
            while len(self.children) < count or any(child.intake.plan is None for child in self.children):
                self.more.clear()
                await self.more.wait()


@asynccontextmanager
async def staged(*scripts: Script, ends: bool = True, **ingress: Any) -> AsyncIterator[Stage]:
    config = with_secrets_read(Config.from_dict({"ingress": {"workers": 2, **ingress}}))
    entrance = Entrance(await listening_sockets("127.0.0.1", 0))
    try:
        yield Stage(config, entrance, [*scripts], ends=ends)
    finally:
        entrance.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART", Backoff(0.001, 0.001))
    monkeypatch.setattr(module, "END_SECONDS", 0.2)


async def test_they_serve_when_it_begins_and_are_gone_when_it_ends() -> None:
    async with staged(serve) as stage:
        async with stage.workers:
            assert len(stage.children) == 2
        assert [child.code for child in stage.children] == [0, 0]
        assert not any(child.killed for child in stage.children)
        assert (stage.restarts, stage.failures) == (0, 0)


async def test_every_one_gets_its_number_and_the_plan() -> None:
    key = {"name": "aep", "sha256": "ab" * 32, "max_events_per_second": 5}
    async with staged(serve, keys=[key]) as stage, stage.workers:
        await stage.serving(2)
        plans = [child.intake.plan for child in stage.children]
        assert sorted(plan.number for plan in plans if plan is not None) == [1, 2]
        for plan in plans:
            assert plan is not None
            (mine,) = plan.callers.keys
            assert (mine.name, mine.sha256, mine.max_events_per_second) == ("aep", "ab" * 32, 0)
            assert plan.callers.signing_key == b"", "nobody has tokens"
            assert plan.config.accounts == ()
            assert plan.config.ingress.keys == ()


async def test_one_that_cannot_start_is_a_failure_of_the_start() -> None:
    async with staged(serve, lambda child: child.end(1)) as stage:
        with pytest.raises((WorkerFailed, ExceptionGroup)) as failed:
            async with stage.workers:
                pytest.fail("it does not begin")
        error = single(failed.value)
        assert isinstance(error, WorkerFailed)
        assert "exit code 1" in str(error)
        assert all(child.code is not None for child in stage.children)


async def test_one_that_never_serves_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.01)
    async with staged(lambda child: None, ends=False) as stage:
        with pytest.raises((WorkerFailed, ExceptionGroup)):
            async with stage.workers:
                pytest.fail("it does not begin")
        assert all(child.killed for child in stage.children)


async def test_one_that_ends_is_replaced_as_often_as_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    async with staged(serve) as stage, stage.workers:
        for round in range(1, 6):
            stage.children[-1].end(-9)
            await stage.serving(2 + round)
            assert stage.restarts == round
    assert caplog.text.count("an ingress worker has ended (-9), another takes its place") == 5


async def test_one_that_does_not_end_is_killed() -> None:
    async with staged(serve, ends=False) as stage:
        async with stage.workers:
            pass
        assert all(child.killed for child in stage.children)


async def test_draining_ends_when_all_have_said_so() -> None:
    done = asyncio.Event()
    async with staged(serve) as stage, stage.workers:
        stage.workers.drain(done.set)
        stage.workers.drain(lambda: pytest.fail("once"))
        for child in stage.children:
            await asyncio.wait_for(child.intake.draining.wait(), 5)
        assert not done.is_set()
        for child in stage.children:
            child.intake.shut()
        await asyncio.wait_for(done.wait(), 5)


async def test_draining_waits_for_nobody_for_ever() -> None:
    done = asyncio.Event()
    async with staged(serve) as stage, stage.workers:
        stage.workers.drain(done.set)
        await asyncio.wait_for(done.wait(), 5)


async def test_one_that_comes_while_it_drains_lets_nobody_in() -> None:
    done = asyncio.Event()
    async with staged(serve) as stage, stage.workers:
        stage.workers.drain(done.set)
        stage.children[0].end(-9)
        await stage.serving(3)
        await asyncio.wait_for(stage.children[2].intake.draining.wait(), 5)


async def test_after_the_end_draining_is_over_at_once() -> None:
    done = asyncio.Event()
    async with staged(serve) as stage:
        async with stage.workers:
            pass
        stage.workers.drain(done.set)
        assert done.is_set()


async def test_other_callers_reach_those_that_serve_and_those_that_come() -> None:
    async with staged(serve) as stage, stage.workers:
        client = {"name": "new", "sha256": "cd" * 32, "max_events_per_second": 7}
        changed = with_secrets_read(Config.from_dict({"ingress": {"clients": [client]}, "log": {"level": "debug"}}))
        stage.workers.reload(callers_plan(changed, lambda: b"signing key"))
        await stage.workers.counted()
        for child in stage.children:
            (callers,) = child.callers
            assert [(it.name, it.max_events_per_second) for it in callers.clients] == [("new", 0)]
            assert (callers.signing_key, callers.log_level) == (b"signing key", "debug")
        stage.children[0].end(-9)
        await stage.serving(3)
        plan = stage.children[2].intake.plan
        assert plan is not None
        assert [it.name for it in plan.callers.clients] == ["new"]


async def test_a_defect_in_here_stops_the_engine_and_is_raised() -> None:
    async def broken(*_: object) -> Child:
        raise ValueError("a defect")

    async with staged(serve) as stage:
        await stage.workers.__aenter__()
        stage.workers._spawn = broken
        stage.children[0].end(-9)
        await asyncio.wait_for(stage.broken.wait(), 5)
        with pytest.raises((ValueError, ExceptionGroup)):
            await stage.workers.__aexit__()
        assert stage.failures == 1


async def test_it_may_be_entered_and_left_by_different_tasks() -> None:
    async with staged(serve) as stage:
        await asyncio.create_task(stage.workers.__aenter__())
        await asyncio.create_task(stage.workers.__aexit__())
        assert [child.code for child in stage.children] == [0, 0]


async def test_cancelled_while_it_starts_it_leaves_nobody_behind() -> None:
    async with staged(lambda child: None, ends=False) as stage:
        entering = asyncio.create_task(stage.workers.__aenter__())
        await stage.serving(2)
        entering.cancel()
        await asyncio.wait({entering})
        assert all(child.killed for child in stage.children)


def test_secrets_are_read_once_and_only_their_sums_go_on(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret of twenty characters")
    caller = {"name": "aep", "secret_file": "secret"}
    config = Config.from_dict({"ingress": {"clients": [caller]}}, base=tmp_path)
    read = with_secrets_read(config)
    (tmp_path / "secret").write_text("another secret of twenty")
    (client,) = read.ingress.clients
    assert client.secret_sha256() == bytes.fromhex(client.sha256) != config.ingress.clients[0].secret_sha256()
    assert (client.secret_file, client.secret_env) == ("", "")
