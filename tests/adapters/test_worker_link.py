"""Both ends of the link over real sockets: nothing is acknowledged that the front did not make durable."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from engine.adapters.worker_link import CoreEnd, Drain, RemoteIntake, Way, take_counts
from engine.adapters.worker_link import remote_intake as remote
from engine.adapters.worker_link.frames import HEAD, FrameKind, head
from engine.adapters.worker_link.messages import AppendHead, Callers, framed_append
from engine.callbacks import future_of
from engine.core.codec import pack_events
from engine.core.receipts import ReceiptId
from engine.errors import EngineError, Overloaded, Stopped
from engine.metrics import Metrics
from engine.model import Append, Event, Lane

MOST_BYTES = 1 << 20
JOURNAL = "journal"


def events(count: int, size: int = 2) -> list[Event]:
    return [Event(bytes([number % 256]) * 32, b"x" * size, traits=1) for number in range(count)]


class FakeFront:
    """A commit stage that commits when it is told to."""

    def __init__(self) -> None:
        self.begun: list[Append] = []
        self.commits: list[asyncio.Future[int]] = []
        self.error: EngineError | None = None
        self.settles = asyncio.Event()
        self.given_up = 0
        self.asked: list[tuple[str, str, float]] = []
        self.arrived = asyncio.Event()

    def begin(self, append: Append, told: Callable[[int | Exception], None], /) -> None:
        self.arrived.set()
        if self.error is not None:
            raise self.error
        assert append.packed == pack_events(append.events), "the journal stores the bytes as they came"
        self.begun.append(append)
        commit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        commit.add_done_callback(lambda commit: told(commit.exception() or commit.result()))
        self.commits.append(commit)

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None:
        return {"id": id, "state": "settled", "destinations": {"demo": {"pending": 0}}} if owner == "aep" else None

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool:
        self.asked.append((id, owner, timeout_seconds))
        self.arrived.set()
        try:
            await self.settles.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            self.arrived.set()
            raise
        return owner == "aep"

    async def arrives(self, count: int) -> None:
        await self.until(lambda: len(self.begun) >= count)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 5)


class Pair:
    """`taken`: what quotas were asked for."""

    def __init__(self, core: CoreEnd, worker: RemoteIntake, front: FakeFront) -> None:
        self.core, self.worker, self.front = core, worker, front
        self.taken: list[tuple[str, int]] = []
        self.quota_wait = 0.0
        self.metrics, self.counted = Metrics(), Metrics()
        self.callers: list[bytes] = []

    def take(self, owner: str, count: int) -> float:
        self.taken.append((owner, count))
        return self.quota_wait if count >= 0 else 0.0

    def tell_counts(self) -> None:
        counts = take_counts(self.counted)
        if counts is not None:
            self.worker.tell(counts)


@asynccontextmanager
async def linked(clock: Callable[[], float] = lambda: 0.0, most_waits: int = 10) -> AsyncIterator[Pair]:
    front, loop = FakeFront(), asyncio.get_running_loop()
    made: Pair
    async with anyio.create_task_group() as tasks:
        worker = RemoteIntake(
            JOURNAL,
            most_bytes=MOST_BYTES,
            callers=lambda plan: made.callers.append(plan),
            counts=lambda: made.tell_counts(),
            clock=clock,
        )
        metrics = Metrics()
        door, its_door = socket.socketpair()
        core = CoreEnd(
            lambda: front,
            take=lambda owner, count: made.take(owner, count),
            metrics=metrics,
            tasks=tasks,
            most_bytes=MOST_BYTES,
            most_waits=most_waits,
            way=Way(door),
        )
        made = Pair(core, worker, front)
        made.metrics = metrics
        mine, its = socket.socketpair()
        for one in (mine, its):
            one.setblocking(False)
        await loop.create_unix_connection(lambda: core, sock=mine)
        await loop.create_unix_connection(lambda: worker, sock=its)
        with door, its_door:
            yield made
        core.close()
        worker.close()
        await asyncio.wait_for(core.closed.wait(), 5)
        await asyncio.wait_for(worker.closed.wait(), 5)
        tasks.cancel_scope.cancel()


def handed(pair: Pair, count: int, **more: Any) -> asyncio.Future[str]:
    return future_of(partial(pair.worker.hand_in, Append(events(count), **more), owner="aep"))


async def test_an_append_is_answered_when_it_is_durable_and_not_before() -> None:
    async with linked() as pair:
        one, two = handed(pair, 3, source="crm"), handed(pair, 2, lane=Lane.REPLAY)
        await pair.front.arrives(2)
        await asyncio.sleep(0)
        assert not one.done()
        first, second = pair.front.begun
        assert (first.events, first.source, first.lane) == (events(3), "crm", Lane.LIVE)
        assert (second.events, second.lane) == (events(2), Lane.REPLAY)
        pair.front.commits[1].set_result(103)
        assert await two == ReceiptId.make(JOURNAL, "aep", 103, 2).text()
        assert not one.done()
        pair.front.commits[0].set_result(100)
        assert await one == ReceiptId.make(JOURNAL, "aep", 100, 3).text()
        assert (first.packed, second.packed) == (b"", b""), "nobody keeps the bytes once they are in the journal"
        assert pair.taken == [("aep", 3), ("aep", 2)]


async def test_large_appends_go_through_in_pieces() -> None:
    async with linked() as pair:
        tasks = [
            future_of(partial(pair.worker.hand_in, Append(events(10, size=90_000)), owner="aep")) for _ in range(5)
        ]
        await pair.front.arrives(5)
        for number, commit in enumerate(pair.front.commits):
            commit.set_result(number * 10)
        assert len({*await asyncio.gather(*tasks)}) == 5


async def test_an_append_that_no_frame_holds_is_refused_and_hurts_nobody() -> None:
    async with linked() as pair:
        with pytest.raises(Overloaded) as refused:
            await future_of(partial(pair.worker.hand_in, Append(events(1, size=MOST_BYTES)), owner="aep"))
        assert refused.value.type == "body-too-large"
        one = handed(pair, 1)
        await pair.front.arrives(1)
        pair.front.commits[0].set_result(0)
        await one


async def test_a_refusal_comes_back_as_it_is_and_stands_for_a_moment() -> None:
    now = 100.0
    async with linked(clock=lambda: now) as pair:
        pair.front.error = Overloaded("journal-full", "the journal is full", 7.0)
        with pytest.raises(Overloaded) as refused:
            await handed(pair, 4)
        assert (refused.value.type, str(refused.value)) == ("journal-full", "the journal is full")
        assert refused.value.retry_after_seconds == 7.0
        assert pair.taken == [("aep", 4), ("aep", -4)], "what was not stored is given back"
        at_the_door = pair.worker.refusal()
        assert at_the_door is not None
        assert at_the_door.type == "journal-full"
        now += remote.REMEMBERED_SECONDS
        assert pair.worker.refusal() is None


async def test_a_commit_that_is_refused_later_is_told_too() -> None:
    async with linked() as pair:
        one = handed(pair, 1)
        await pair.front.arrives(1)
        pair.front.commits[0].set_exception(Overloaded("disk-full", "no room", 3.0))
        with pytest.raises(Overloaded, match="no room"):
            await one
        two = handed(pair, 1)
        await pair.front.arrives(2)
        pair.front.commits[1].set_exception(Stopped("the engine was stopped in the middle of a commit"))
        with pytest.raises(Stopped, match="in the middle"):
            await two


async def test_quotas_are_kept_by_the_core_and_concern_nobody_else() -> None:
    async with linked() as pair:
        pair.quota_wait = 2.5
        with pytest.raises(Overloaded) as refused:
            await handed(pair, 4)
        assert (refused.value.type, refused.value.retry_after_seconds) == ("quota", 2.5)
        assert pair.taken == [("aep", 4)]
        assert pair.front.begun == []
        assert pair.worker.refusal() is None


async def test_when_the_core_is_gone_whoever_waits_hears_that_it_has_stopped() -> None:
    async with linked() as pair:
        one, asked = handed(pair, 1), asyncio.create_task(pair.worker.settled("receipt", 5.0, owner="aep"))
        await pair.front.arrives(1)
        pair.core.close()
        for waiting in (one, asked):
            with pytest.raises(Stopped, match="has ended"):
                await waiting
        refusal = pair.worker.refusal()
        assert refusal is not None
        assert refusal.type == "draining"
        with pytest.raises(Stopped):
            await future_of(partial(pair.worker.hand_in, Append(events(1))))
        with pytest.raises(Stopped):
            await pair.worker.settled("receipt", 1.0)


async def test_an_answer_that_comes_after_the_worker_has_gone_goes_nowhere() -> None:
    async with linked() as pair:
        one = handed(pair, 1)
        await pair.front.arrives(1)
        pair.worker.close()
        await asyncio.wait_for(pair.core.closed.wait(), 5)
        pair.front.commits[0].set_result(0)
        with pytest.raises(Stopped):
            await one


async def test_an_answer_that_fails_holds_nobody_else_up() -> None:
    """Both are told of in one message of the core."""

    def fails(result: str | Exception) -> None:
        raise ValueError("an answer that cannot be made")

    async with linked() as pair:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        pair.worker.hand_in(Append(events(1)), fails, owner="aep")
        other = handed(pair, 1)
        await pair.front.arrives(2)
        for first, commit in enumerate(pair.front.commits):
            commit.set_result(first)
        assert await other == ReceiptId.make(JOURNAL, "aep", 1, 1).text()
        assert [type(it["exception"]) for it in failures] == [ValueError]
        assert not pair.worker.closed.is_set()


async def test_a_refusal_of_backfill_is_nobody_elses_and_gives_back_the_quota() -> None:
    async with linked() as pair:
        pair.front.error = Overloaded("backfill-behind", "too much", 7.0)
        with pytest.raises(Overloaded) as refused:
            await handed(pair, 3, lane=Lane.BACKFILL)
        assert (refused.value.type, refused.value.retry_after_seconds) == ("backfill-behind", 7.0)
        assert pair.taken == [("aep", 3), ("aep", -3)]
        assert pair.worker.refusal() is None


async def test_receipts_are_waited_for_at_the_core() -> None:
    async with linked() as pair:
        asked = asyncio.create_task(pair.worker.settled("receipt", 5.0, owner="aep"))
        other = asyncio.create_task(pair.worker.settled("receipt", 6.0, owner="other"))
        await pair.front.until(lambda: len(pair.front.asked) == 2)
        assert pair.front.asked == [("receipt", "aep", 5.0), ("receipt", "other", 6.0)]
        pair.front.settles.set()
        assert await asked is True
        assert pair.worker.receipt("receipt", owner="aep") == pair.front.receipt("receipt", owner="aep")
        assert pair.worker.receipt("receipt", owner="aep") is None, "only what was just asked for is known here"
        assert await other is False
        assert pair.worker.receipt("receipt", owner="other") is None


async def test_who_hangs_up_is_not_waited_for_any_more() -> None:
    async with linked() as pair:
        asked = asyncio.create_task(pair.worker.settled("receipt", 5.0, owner="aep"))
        await pair.front.until(lambda: bool(pair.front.asked))
        asked.cancel()
        await pair.front.until(lambda: pair.front.given_up == 1)
        assert not pair.core.closed.is_set()


async def test_more_waits_than_there_can_be_break_the_link() -> None:
    async with linked(most_waits=2) as pair:
        asked = [asyncio.create_task(pair.worker.settled("receipt", 5.0)) for _ in range(3)]
        await asyncio.wait_for(pair.worker.closed.wait(), 5)
        assert {type(it) for it in await asyncio.gather(*asked, return_exceptions=True)} == {Stopped}


@pytest.mark.parametrize(
    "garbage",
    [
        HEAD.pack(2**31, FrameKind.APPEND),
        head(FrameKind.MESSAGE, 3) + b"\xff\xff\xff",
        head(FrameKind.APPEND, 4) + b"\x02\x00\xc1\xc1",
        HEAD.pack(0, 9),
        b"".join(framed_append(AppendHead(1, "a", "b", Lane.LIVE), b"\x91\x01")),
        b"".join(framed_append(AppendHead(1, "a", "b", Lane.LIVE), pack_events(events(1))[:-3])),
        b"".join(framed_append(AppendHead(1, "a", "b", Lane.LIVE), pack_events([]))),
    ],
    ids=["too long", "no message", "no head", "unknown kind", "no events", "events cut off", "without events"],
)
async def test_what_is_no_frame_ends_the_link_and_stores_nothing(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as pair:
        pair.worker.send(garbage)
        await asyncio.wait_for(pair.core.closed.wait(), 5)
        await asyncio.wait_for(pair.worker.closed.wait(), 5)
        assert pair.front.begun == []
    assert "the link between core and worker is broken" in caplog.text


async def test_no_more_is_taken_in_than_may_wait_for_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "UNANSWERED_EVENTS", 10)
    async with linked() as pair:
        tasks = [handed(pair, 5), handed(pair, 5)]
        await pair.front.arrives(2)
        refusal = pair.worker.refusal()
        assert refusal is not None
        assert refusal.type == "busy"
        pair.front.commits[0].set_result(0)
        await tasks[0]
        assert pair.worker.refusal() is None
        pair.front.commits[1].set_exception(Stopped("over"))
        await asyncio.wait(tasks)
        assert pair.worker.refusal() is None


async def test_draining_lets_nobody_in_and_what_was_let_in_is_answered() -> None:
    async with linked() as pair:
        early = handed(pair, 1)
        await pair.front.arrives(1)
        pair.core.tell(Drain())
        await asyncio.wait_for(pair.worker.draining.wait(), 5)
        refusal = pair.worker.refusal()
        assert refusal is not None
        assert (refusal.type, refusal.retry_after_seconds) == ("draining", 5.0)
        inside = handed(pair, 1)
        await pair.front.arrives(2)
        pair.worker.shut()
        await asyncio.wait_for(pair.core.drained.wait(), 5)
        with pytest.raises(Stopped, match="draining"):
            await handed(pair, 1)
        assert len(pair.front.begun) == 2, "no append follows the word that there is none"
        pair.front.commits[0].set_result(0)
        pair.front.commits[1].set_result(1)
        await asyncio.gather(early, inside)


async def test_a_worker_that_ends_counts_as_drained() -> None:
    async with linked() as pair:
        pair.worker.close()
        await asyncio.wait_for(pair.core.drained.wait(), 5)
        await asyncio.wait_for(pair.core.counted(), 5)


async def test_counts_arrive_once_each() -> None:
    async with linked() as pair:
        counted = pair.counted
        counted.answers["202"] += 2
        counted.denied["no_key"] += 1
        counted.rejected("missing", 3)
        counted.fields_dropped["unknown_field"] += 4
        counted.ack_seconds.observe(0.003, 2)
        await pair.core.counted()
        await pair.core.counted()
        counted.answers["202"] += 1
        await pair.core.counted()
        metrics = pair.metrics
        assert (metrics.answers, metrics.denied) == ({"202": 3}, {"no_key": 1})
        assert (metrics.events_rejected, metrics.fields_dropped) == ({"missing": 3}, {"unknown_field": 4})
        assert (sum(metrics.ack_seconds.counts), metrics.ack_seconds.total) == (2, pytest.approx(0.006))


async def test_other_callers_are_taken_over_in_order() -> None:
    async with linked() as pair:
        pair.core.tell(Callers(b"one"))
        pair.core.tell(Callers(b"two"))
        await pair.core.counted()
        assert pair.callers == [b"one", b"two"]


async def test_what_is_sent_in_one_turn_of_the_loop_goes_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked() as pair:
        writes: list[int] = []
        transport = pair.worker._transport
        assert transport is not None
        real = transport.writelines
        monkeypatch.setattr(transport, "writelines", lambda parts: (writes.append(len(parts)), real(parts)))
        tasks = [handed(pair, 1) for _ in range(8)]
        await pair.front.arrives(8)
        assert writes == [16]
        for number, commit in enumerate(pair.front.commits):
            commit.set_result(number)
        await asyncio.gather(*tasks)
