"""A test that cannot fail is a defect: each of these bugs is put in on purpose, and the simulation has to find it.

`within`: how many seeds that may take; `rejects`: how often a store rejects a record, where that matters. What counts
is a promise that is broken, or an engine that does not get to its end; an error in the test itself does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from test_simulation import check, one_life_after_the_other, small_steps

from engine.adapters.limiter import AiolimiterBucket
from engine.core.coalescer import Coalescer
from engine.core.pace import Pace
from engine.dispatcher import attempts
from engine.dispatcher.account import Account
from engine.dispatcher.books import Books
from engine.dispatcher.consumer import Consumer
from engine.model import Append, Batch, Profile, Reply, Verdict, VerdictKind
from engine.pipeline.commit import CommitStage
from engine.pipeline.reader import Reader
from engine.ports import KeyState, Transition
from engine.testing.clock import run_virtual

__all__ = ["small_steps"]

Patch = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, tuple[Patch, int, float | None]] = {}


def bug(within: int, rejects: float | None = None) -> Callable[[Patch], Patch]:
    def register(patch: Patch) -> Patch:
        BUGS[patch.__name__] = (patch, within, rejects)
        return patch

    return register


def wrap(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """`wrapper(original, *arguments)` in place of a function or method."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: wrapper(original, *given, **named))


# -- durability -------------------------------------------------------------------------------------------------------


@bug(within=10)
def acknowledge_before_the_append(monkeypatch: pytest.MonkeyPatch) -> None:
    async def submit(original: Callable[..., Any], stage: CommitStage, append: Append) -> int:
        waiting = original(stage, append)
        waiting.send(None)  # it is in the queue, and nobody waits for it any more
        return stage.next_offset

    wrap(monkeypatch, CommitStage, "submit", submit)


@bug(within=10)
def the_watermark_is_one_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    def watermark(original: Callable[..., int], coalescer: Coalescer, position: int) -> int:
        return min(original(coalescer, position) + 1, position)

    wrap(monkeypatch, Coalescer, "watermark", watermark)


# -- order ------------------------------------------------------------------------------------------------------------


@bug(within=10)
def a_slow_request_is_tried_again_while_it_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two in flight of one key: the lease ends with our patience, not with the connection."""

    async def send(original: Callable[..., Any], consumer: Consumer, batch: Batch, permit: Any) -> Reply:
        request = asyncio.ensure_future(original(consumer, batch, permit))
        request.add_done_callback(lambda it: it.cancelled() or it.exception())
        await asyncio.wait({request}, timeout=0.03)
        if request.done():
            return await request
        return Reply([Verdict(VerdictKind.RETRY, "timeout")] * len(batch.profiles))

    wrap(monkeypatch, attempts, "_send", send)


@bug(within=10)
def give_back_without_folding(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(original: Callable[..., None], coalescer: Coalescer, newer: Profile, older: Profile) -> None:
        older.content, older.audiences = b"{}", None
        original(coalescer, newer, older)

    wrap(monkeypatch, Coalescer, "_join", join)


@bug(within=10)
def what_comes_back_wins_over_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(original: Callable[..., None], coalescer: Coalescer, newer: Profile, older: Profile) -> None:
        newer.content, older.content = older.content, newer.content
        original(coalescer, newer, older)

    wrap(monkeypatch, Coalescer, "_join", join)


@bug(within=30)
def no_hold_after_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(consumer: Consumer, unknown: Any) -> None:
        for profile, verdict in unknown:
            attempts._retry(consumer, profile, verdict)

    monkeypatch.setattr(attempts, "_outlive", at_once)


@bug(within=30)
def no_hold_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    async def recover(original: Callable[..., Any], reader: Reader, *given: Any) -> None:
        reader.consumer.was_clean = True
        await original(reader, *given)

    wrap(monkeypatch, Reader, "recover", recover)


@bug(within=60)
def recovery_begins_to_send_before_it_has_read_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def recover(original: Callable[..., Any], reader: Reader, *given: Any) -> None:
        reader.consumer.recovery_end = reader.consumer.watermark
        await original(reader, *given)

    wrap(monkeypatch, Reader, "recover", recover)


# -- books ------------------------------------------------------------------------------------------------------------


@bug(within=10)
def counts_are_written_after_the_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a transaction of their own, a moment later."""

    def take(original: Callable[..., Any], books: Books) -> tuple[Transition, Any]:
        transition, notices = original(books)
        if transition.verdicts:
            books.open.counts, transition.counts = transition.counts, {}
        return transition, notices

    wrap(monkeypatch, Books, "take", take)


@bug(within=10)
def recovery_ignores_what_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(original: Callable[..., None], consumer: Consumer, append: Append, tracker: Any, *_: Any) -> None:
        original(consumer, append, tracker)

    wrap(monkeypatch, Consumer, "take", take)


@bug(within=60)
def an_unknown_attempt_is_suppressed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(original: Callable[..., Any], consumer: Consumer, profile: Profile, stored: KeyState | None) -> Any:
        profile.certain = True
        return original(consumer, profile, stored)

    wrap(monkeypatch, attempts, "_record", record)


@bug(within=120)
def a_replay_is_never_found_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.core.handover.overtaken", lambda part, confirmed_through: False)


@bug(within=200, rejects=0.3)
def a_newer_state_that_may_have_arrived_does_not_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(original: Callable[..., None], books: Books, profile: Profile, *given: Any, **named: Any) -> None:
        profile.certain = True
        original(books, profile, *given, **named)

    wrap(monkeypatch, Books, "settle", settle)


# -- the wire ---------------------------------------------------------------------------------------------------------


@bug(within=10)
def a_pause_is_kept_by_new_permits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has been granted one sends, however long ago that was."""
    monkeypatch.setattr(Account, "may_send", lambda account, token: True)


@bug(within=10)
def the_bucket_begins_full_and_nobody_looks_at_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take(bucket: AiolimiterBucket) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(AiolimiterBucket, "take", take)
    monkeypatch.setattr(Pace, "wait_seconds", lambda pace, now: 0.0)


# -- are they found? --------------------------------------------------------------------------------------------------


def found_by(seed: int, rejects: float | None = None) -> str:
    """What is broken; "" when nothing is."""
    try:
        check(run_virtual(one_life_after_the_other, seed, rejects))
    except (AssertionError, TimeoutError) as error:
        return f"{type(error).__name__} {error}"
    return ""


@pytest.mark.parametrize("name", BUGS)
def test_the_simulation_finds_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, within, rejects = BUGS[name]
    patch(monkeypatch)
    assert any(found_by(seed, rejects) for seed in range(within)), f"{name} was not found in {within} seeds"


def test_without_a_bug_it_finds_nothing() -> None:
    assert [found_by(seed, rejects) for seed in range(5) for rejects in (None, 0.3)] == [""] * 10
