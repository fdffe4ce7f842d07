"""Bugs of cancellation, put in on purpose: the injections have to find each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from cancelled_scenes import SCENES
from injection import Moment, Suspension
from test_cancellation import small_steps

from engine.assembly import Engine, control
from engine.assembly.audit import audit
from engine.assembly.build import Parts
from engine.assembly.intake import EngineIntake
from engine.callbacks import future_of
from engine.core.audit import Addressed
from engine.model import Append
from engine.pipeline import Pipeline
from engine.pipeline.commit import CommitStage
from engine.pipeline.settler import Settler
from engine.testing.clock import run_virtual

pytestmark = pytest.mark.seeded

__all__ = ["small_steps"]

Patch = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, tuple[Patch, str, str]] = {}


def bug(scene: str, task: str) -> Callable[[Patch], Patch]:
    """`task`: in whose name it is looked for."""

    def register(patch: Patch) -> Patch:
        BUGS[patch.__name__] = (patch, scene, task)
        return patch

    return register


@bug("AWorkingDay", "caller:pause")
def whoever_asks_writes_by_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What he had in hand when he was cut off is on disk, and written once more."""
    monkeypatch.setattr(Settler, "flush", lambda settler: settler.settle())


@bug("AWorkingDay", "caller:audit")
def a_lock_that_is_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def audit_running(parts: Parts) -> dict[str, object]:
        await parts.pipeline.settler.flush()
        await parts.pipeline.settler.lock.acquire()
        sources = {one.name: Addressed(one.policy.sources) for one in parts.consumers}
        report = await audit(parts.journal, parts.state, parts.pipeline.commit.next_offset, sources)
        parts.pipeline.settler.lock.release()
        return report

    monkeypatch.setattr(control, "audit_running", audit_running)


@bug("AWorkingDay", "caller:submit")
def a_submitter_who_leaves_ends_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(stage: CommitStage, submissions: Any, first: int) -> None:
        for submission in submissions:
            submission.append.first, first = first, first + len(submission.append.events)
            stage.next_offset = first
            stage._metrics.accepted(len(submission.append.events))
            stage._hand_over([submission.append])
            submission.told(submission.append.first)  # raises for whoever was cancelled

    async def accept(intake: EngineIntake, append: Append, /, *, owner: str = "") -> str:
        id: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        intake.hand_in(append, id.set_result, owner=owner)  # type: ignore[arg-type]
        return await id

    monkeypatch.setattr(CommitStage, "_hand_over_all", answer)
    monkeypatch.setattr(EngineIntake, "accept", accept)


@bug("AWorkingDay", "caller:submit")
def whoever_leaves_takes_his_neighbour_with_him(monkeypatch: pytest.MonkeyPatch) -> None:
    """One future for all who wait, and nothing between it and them."""
    original, shared = EngineIntake.accept, list[asyncio.Future[str]]()

    async def accept(intake: EngineIntake, append: Append, /, *, owner: str = "") -> str:
        shared[:] = [it for it in shared if not it.done()]
        if shared:
            await shared[0]
        else:
            shared.append(future_of(partial(intake.hand_in, append, owner=owner)))
        return await original(intake, append, owner=owner)

    monkeypatch.setattr(EngineIntake, "accept", accept)


@bug("AWorkingDay", "engine.pipeline.settler.Settler.run")
def an_engine_that_loses_a_task_ends_as_if_it_were_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(engine: Engine, parts: Parts) -> None:
        drained = False
        async with anyio.create_task_group() as tasks:
            await parts.pipeline.start(tasks)
            engine._intake = EngineIntake(parts.pipeline, parts.journal_id)
            assert engine._ready is not None
            engine._ready.set_result(None)
            await engine._stop.wait()
            drained = await parts.pipeline.drain(12)
            tasks.cancel_scope.cancel()
        await parts.pipeline.settler.finish(clean=drained)

    monkeypatch.setattr(Engine, "_serve", serve)


@bug("AfterACrash", "engine.pipeline.reader.Reader.run")
def nobody_tells_those_who_wait_for_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(pipeline: Pipeline, reason: Any) -> None:
        pipeline.commit.close(reason)
        pipeline.settler.close(reason)
        pipeline.receipts.release()

    monkeypatch.setattr(Pipeline, "close", close)


@bug("AWorkingDay", "engine.pipeline.commit.CommitStage.run")
def who_waits_for_a_commit_that_was_cut_off_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def commit(stage: CommitStage, submissions: Any) -> None:
        first = await stage._journal.append([one.append for one in submissions])
        stage._hand_over_all(submissions, first)

    monkeypatch.setattr(CommitStage, "_commit", commit)


@bug("Bunched", "caller:enter")
def a_start_that_is_cut_off_leaves_its_task_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(engine: Engine) -> None:
        """As if there were nothing to end."""

    monkeypatch.setattr(Engine, "_cancel", leave)


@pytest.mark.parametrize("name", BUGS)
def test_the_injections_find_this_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, scene, task = BUGS[name]
    patch(monkeypatch)
    targets = _targets(scene, task)
    assert any(_is_caught(scene, moment, target) for target in targets for moment in Moment)


def _targets(scene: str, task: str) -> list[Suspension]:
    """Nothing shows while nobody is cancelled."""
    first = SCENES[scene]()
    run_virtual(first.run)
    return [one for one in first.instrument.suspensions if one.place.task == task]


def _is_caught(scene: str, moment: Moment, target: Suspension) -> bool:
    one = SCENES[scene](target, moment)
    try:
        run_virtual(one.run)
    except (AssertionError, TimeoutError, RuntimeError):
        return True
    return False
