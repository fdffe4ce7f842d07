"""A test that cannot fail is a defect: each of these bugs is put in on purpose, and the simulation has to find it.

`within`: how many runs that may take; the knobs that are fixed bring about what the bug needs. What counts is a promise
that the judge finds broken; an error in the test itself does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest
from knobs import Knobs
from world import run

from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.oauth import OAuthTokenSource
from engine.core.coalescer import Coalescer
from engine.core.pace import Pace
from engine.core.verdicts import judge
from engine.dispatcher import attempts
from engine.dispatcher.account import Account
from engine.dispatcher.books import Books
from engine.dispatcher.changes import Changes
from engine.dispatcher.consumer import Consumer
from engine.model import Append, Batch, Profile, Reply, Verdict, VerdictKind
from engine.pipeline.commit import CommitStage, Told
from engine.pipeline.pipeline import Pipeline
from engine.pipeline.reader import Reader
from engine.pipeline.settler import Settler
from engine.ports import KeyState, Transition

pytestmark = pytest.mark.seeded

Patch = Callable[[pytest.MonkeyPatch], None]


class Bug(NamedTuple):
    patch: Patch
    within: int
    knobs: dict[str, Any]


BUGS: dict[str, Bug] = {}


def bug(within: int, **knobs: Any) -> Callable[[Patch], Patch]:
    def register(patch: Patch) -> Patch:
        BUGS[patch.__name__] = Bug(patch, within, knobs)
        return patch

    return register


def wrap(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """`wrapper(original, *arguments)` in place of a function or method."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: wrapper(original, *given, **named))


# -- 1 durability -----------------------------------------------------------------------------------------------------


@bug(within=40)
def acknowledge_before_the_append(monkeypatch: pytest.MonkeyPatch) -> None:
    def hand_in(original: Callable[..., None], stage: CommitStage, append: Append, told: Told) -> None:
        original(stage, append, lambda result: None)  # it is in the queue, and nobody waits for it any more
        asyncio.get_running_loop().call_soon(told, stage.next_offset)

    wrap(monkeypatch, CommitStage, "hand_in", hand_in)


@bug(within=40)
def the_watermark_is_one_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    def watermark(original: Callable[..., int], coalescer: Coalescer, position: int) -> int:
        return min(original(coalescer, position) + 1, position)

    wrap(monkeypatch, Coalescer, "watermark", watermark)


@bug(within=200)
def the_journal_is_released_before_the_state_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def write(original: Callable[..., Any], settler: Settler, *given: Any) -> None:
        settler._journal.release(
            min(consumer.coalescer.watermark(consumer.position) for consumer in settler._consumers)
        )
        await original(settler, *given)

    wrap(monkeypatch, Settler, "_write", write)


@bug(within=40, stops=1.0, late=0.9, silence=0.1, lives=3)
def a_drain_writes_nothing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that all was settled, and has not waited for what was under way."""

    async def drain(original: Callable[..., Any], pipeline: Pipeline, timeout_seconds: float) -> bool:
        pipeline.refuse()
        return True

    wrap(monkeypatch, Pipeline, "drain", drain)


# -- 2 order ----------------------------------------------------------------------------------------------------------


@bug(within=40)
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


@bug(within=100, reset_before=0.2, people=3, batch_profiles=3, events=1, requests=14)
def give_back_without_folding(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(original: Callable[..., None], coalescer: Coalescer, newer: Profile, older: Profile) -> None:
        older.content, older.audiences = b"{}", None
        original(coalescer, newer, older)

    wrap(monkeypatch, Coalescer, "_join", join)


@bug(within=40)
def what_comes_back_wins_over_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(original: Callable[..., None], coalescer: Coalescer, newer: Profile, older: Profile) -> None:
        newer.content, older.content = older.content, newer.content
        original(coalescer, newer, older)

    wrap(monkeypatch, Coalescer, "_join", join)


@bug(within=200, late=0.9, silence=0.1)
def no_hold_after_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(consumer: Consumer, unknown: Any) -> None:
        for profile, verdict in unknown:
            attempts._retry(consumer, profile, verdict)

    monkeypatch.setattr(attempts, "_outlive", at_once)


@bug(within=200, late=0.9, lives=3, moment="store")
def no_hold_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    async def recover(original: Callable[..., Any], reader: Reader, *given: Any) -> None:
        reader.consumer.was_clean = True
        await original(reader, *given)

    wrap(monkeypatch, Reader, "recover", recover)


@bug(within=400, lives=3, moment="store")
def recovery_begins_to_send_before_it_has_read_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def recover(original: Callable[..., Any], reader: Reader, *given: Any) -> None:
        reader.consumer.recovery_end = reader.consumer.watermark
        await original(reader, *given)

    wrap(monkeypatch, Reader, "recover", recover)


@bug(within=100, repeats=0.5, people=1, reset_after=0.3, suppress=True, ledger=True, events=1, requests=14)
def an_unknown_attempt_is_suppressed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(original: Callable[..., Any], consumer: Consumer, profile: Profile, stored: KeyState | None) -> Any:
        profile.certain = True
        return original(consumer, profile, stored)

    wrap(monkeypatch, attempts, "_record", record)


EDITING = {"edits": 0.5, "repeats": 0.7, "suppress": True, "ledger": True, "events": 1, "requests": 14}


@bug(within=100, **EDITING)
def a_digest_survives_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Books, "changed", lambda books, key, attendee_id, at: None)


@bug(within=100, **EDITING)
def a_digest_survives_a_change_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory knows of the change until the next settling transaction, and nobody does after it."""

    def take(original: Callable[..., Any], books: Books) -> tuple[Transition, Any]:
        transition, notices = original(books)
        transition.verdicts = [entry for entry in transition.verdicts if entry.outcome]
        books.recent = {key: entry for key, entry in books.recent.items() if entry.outcome}
        return transition, notices

    wrap(monkeypatch, Books, "take", take)


@bug(within=400, **EDITING, way_seconds=0.1, pause_seconds=0.05, rate=500.0, burst=10, moment="time", life_seconds=5.0)
def an_attempt_that_was_under_way_is_certain_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Changes, "came", lambda changes, key: False)


@bug(within=100, **EDITING, unheard=0.3)
def a_newer_change_replaces_an_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As profiles do: the newest state is forwarded, and what led to it is lost."""
    monkeypatch.setattr("engine.assembly.forwards.join_changes", lambda older, newer: (newer, 0))


@bug(within=100, **EDITING, unheard=0.3)
def what_comes_back_is_forwarded_after_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "engine.assembly.forwards.join_changes", lambda older, newer: (newer[:-1] + b"," + older[1:], 0)
    )


@bug(within=200, poison=0.2, replays=0.3, lives=3)
def a_replay_is_never_found_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.core.handover.overtaken", lambda part, confirmed_through: False)


@bug(
    within=400,
    poison=0.4,
    replays=0.5,
    half_reply=0.4,
    people=1,
    requests=30,
    events=3,
    lives=1,
    life_seconds=5.0,
    pause_seconds=0.05,
    hold_seconds=0.5,
    max_letters=1_000,
    moment="time",
    transport="raw",
)
def a_newer_state_that_may_have_arrived_does_not_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(original: Callable[..., None], books: Books, profile: Profile, *given: Any, **named: Any) -> None:
        profile.certain = True
        original(books, profile, *given, **named)

    wrap(monkeypatch, Books, "settle", settle)


@bug(within=400, poison=0.3, replays=0.3, lives=3, ledger=False)
def without_a_ledger_nobody_knows_what_has_overtaken_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.adapters.sqlite.state.SqliteState._only_letters_of", lambda state: [])


# -- 3, 6 nobody blocks, everything is bounded ------------------------------------------------------------------------


@bug(within=40, buffer_profiles=12, people=60)
def nobody_wakes_a_reader_when_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "wake", lambda reader: None)


@bug(within=200, buffer_profiles=12)
def a_reader_takes_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def room(original: Callable[..., int], consumer: Consumer) -> int:
        return 2_000 * (original(consumer) > 0)

    wrap(monkeypatch, Consumer, "room", room)


# -- 4 books ----------------------------------------------------------------------------------------------------------


@bug(within=40)
def counts_are_written_after_the_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a transaction of their own, a moment later."""

    def take(original: Callable[..., Any], books: Books) -> tuple[Transition, Any]:
        transition, notices = original(books)
        if transition.verdicts:
            books.open.counts, transition.counts = transition.counts, {}
        return transition, notices

    wrap(monkeypatch, Books, "take", take)


@bug(within=40)
def recovery_ignores_what_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(original: Callable[..., None], consumer: Consumer, append: Append, tracker: Any, *_: Any) -> None:
        original(consumer, append, tracker)

    wrap(monkeypatch, Consumer, "take", take)


@bug(within=40, poison=0.2)
def a_refusal_in_a_200_counts_as_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    def swallowed(status: int, body: bytes, profiles: int, *given: Any, **named: Any) -> list[Verdict]:
        ok = [Verdict(VerdictKind.OK)] * profiles
        return ok if 200 <= status < 300 else judge(status, body, profiles, *given, **named)

    monkeypatch.setattr("engine.core.verdicts.judge", swallowed)


@bug(within=40, busy=0.3)
def an_outage_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    def retry(original: Callable[..., None], consumer: Consumer, profile: Profile, verdict: Verdict) -> None:
        attempts._bury(consumer, profile, verdict)

    wrap(monkeypatch, attempts, "_retry", retry)


# -- 5 the wire -------------------------------------------------------------------------------------------------------


@bug(within=100, throttled=0.1, retry_after="seconds", concurrency=16, rate=500.0, burst=10, connect_seconds=0.05)
def a_pause_is_kept_by_new_permits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has been granted one sends, however long ago that was."""
    monkeypatch.setattr(Account, "may_send", lambda account, token: True)


@bug(within=200, throttled=0.1, retry_after="seconds", lives=3, life_seconds=2.0, moment="time", settle_seconds=0.0)
def a_pause_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settler, "pause", lambda settler, name, until: None)


@bug(within=40)
def the_bucket_begins_full_and_nobody_looks_at_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take(bucket: AiolimiterBucket) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(AiolimiterBucket, "take", take)
    monkeypatch.setattr(Pace, "wait_seconds", lambda pace, now: 0.0)


@bug(within=100, token_way_seconds=0.1, revoked=0.1, concurrency=16)
def every_refused_request_fetches_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    fetching: set[asyncio.Task[str]] = set()

    def discard(original: Callable[..., None], source: OAuthTokenSource, token: str) -> None:
        original(source, token)
        fetching.add(asyncio.ensure_future(source.refresh()))

    wrap(monkeypatch, OAuthTokenSource, "discard", discard)


# -- are they found? --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUGS)
def test_the_simulation_finds_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, within, knobs = BUGS[name]
    patch(monkeypatch)
    assert any(run(Knobs.draw(seed, **knobs)).violations for seed in range(within)), f"not found in {within} runs"


@pytest.mark.parametrize("name", BUGS)
def test_without_it_there_is_nothing_to_find(name: str) -> None:
    """The knobs alone break no promise."""
    for seed in range(2):
        assert run(Knobs.draw(seed, **BUGS[name].knobs)).violations == []
