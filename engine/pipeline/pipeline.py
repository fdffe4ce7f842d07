"""The stages in the order the data flows, in one task group, and their orderly end.

commit ──▶ readers (one a destination) ──▶ arbiters (one an account) ──▶ attempts ──▶ settler
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from engine.core.drain_rate import DrainRate
from engine.core.fill import Fill
from engine.core.receipts import Receipts, Tracker
from engine.dispatcher import Account, Consumer
from engine.errors import NoSpace, Stopped
from engine.metrics import Metrics
from engine.model import Append, Lane
from engine.pipeline.backfill_pace import BackfillPace
from engine.pipeline.commit import CommitStage, Told
from engine.pipeline.eraser import Eraser
from engine.pipeline.reader import Reader
from engine.pipeline.settler import Settler
from engine.pipeline.watchdog import Watchdog, reading, sending
from engine.ports import Clock, Journal, State

PRUNE_SECONDS = 600.0

EXPIRED_SHARE = 0.1
"""How much of the backlog of the consumer furthest behind is given up at a time when `on_full` says so."""


class Pipeline:
    """Wires the stages to each other. Everything it is given is open already."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        accounts: Sequence[Account],
        consumers: Sequence[Consumer],
        *,
        journal_next: int,
        clock: Clock,
        metrics: Metrics,
        expire_when_full: bool = False,
        watchdog_seconds: float = 0.0,
    ) -> None:
        self.accounts, self.consumers, self.receipts = accounts, consumers, Receipts()
        self._state, self._clock, self._journal_next = state, clock, journal_next
        self._journal, self._fill = journal, Fill()
        self.filling = asyncio.Event()  # the journal has passed a level upwards: look at it now
        self.drain_rate = DrainRate()
        self.commit = CommitStage(
            journal,
            self._hand_over,
            clock=clock,
            metrics=metrics,
            drain=self.drain_rate,
            make_room=self._expire_oldest if expire_when_full else None,
        )
        self.commit.next_offset = journal_next
        self.settler = Settler(
            state, journal, consumers, clock=clock, drain=self.drain_rate, settled=self._after_settling
        )
        self.eraser = Eraser(journal, self.settler.dirty)
        for consumer in consumers:
            consumer.holding.eraser = self.eraser
        self.readers = [Reader(consumer, journal, state, self.receipts, self.settler.lock) for consumer in consumers]
        self._backfill_pace = BackfillPace(self.readers, self.commit.hand_in)
        self.watchdog = Watchdog(watchdog_seconds, clock=clock, metrics=metrics)
        self._watch()
        self._names = [consumer.name for consumer in consumers]

    def __repr__(self) -> str:
        return f"<Pipeline next {self.commit.next_offset} {list(self.consumers)!r}>"

    @property
    def recovering(self) -> bool:
        return any(consumer.recovering for consumer in self.consumers)

    @property
    def was_clean(self) -> bool:
        """Had the last process settled every attempt?"""
        return all(consumer.was_clean for consumer in self.consumers)

    async def start(self, tasks: TaskGroup, *, dispatching: bool = True) -> None:
        """Accepting on return; recovery goes on behind. A stage that fails fails the task group. Without `dispatching`
        nothing is ever sent."""
        for consumer in self.consumers:
            consumer.announce()
        await self.settler.settle()
        tasks.start_soon(self.commit.run)
        tasks.start_soon(self.settler.run)
        tasks.start_soon(self.eraser.run)
        tasks.start_soon(self._prune)
        if dispatching:
            tasks.start_soon(self.watchdog.run)
        for reader in self.readers:
            tasks.start_soon(reader.run, self._journal_next, dispatching)
        for account in self.accounts if dispatching else ():
            if account.tokens is not None:
                tasks.start_soon(account.tokens.run)
            tasks.start_soon(account.run, tasks)

    def _watch(self) -> None:
        self.watchdog.watch("commit", self.commit.should_progress)
        self.watchdog.watch("settle", self.settler.should_progress)
        for one in self.consumers:
            read, patience = reading(one, lambda: self.commit.next_offset), one.policy.patience_seconds
            self.watchdog.watch("read", read, destination=one.name, patience_seconds=patience)
            self.watchdog.watch("send", sending(one), destination=one.name, patience_seconds=patience)

    def hand_in(self, append: Append, told: Told) -> None:
        """To the commit stage; see there. Backfill goes in at its pace."""
        (self._backfill_pace if append.lane == Lane.BACKFILL else self.commit).hand_in(append, told)

    def refuse(self) -> None:
        """Accept nothing more; what was handed in already is still committed."""
        self.commit.close_door(Stopped("the engine is draining"))
        self._backfill_pace.close()

    async def drain(self, timeout_seconds: float) -> bool:
        """Let attempts under way finish and write down what became of them; the backlog stays in the journal.
        True when nothing was under way any more."""
        self.refuse()
        for account in self.accounts:
            account.drain()
        with anyio.move_on_after(timeout_seconds) as scope:
            await self.commit.flushed()
            for account in self.accounts:
                await account.idle.wait()
        return not scope.cancelled_caught

    def close(self, reason: Stopped) -> None:
        """Everything has ended, however it did; whoever still waits hears it."""
        self.commit.close(reason)
        self._backfill_pace.close()
        self.settler.close(reason)
        self.receipts.release()
        for reader in self.readers:
            reader.recovered.set()

    def _hand_over(self, appends: Sequence[Append]) -> None:
        """Called by the commit stage with what one commit has made durable, in offset order."""
        for append in appends:
            if self.consumers:
                self.receipts.add(Tracker(append.first, len(append.events), self._names))
            for reader in self.readers:
                reader.offer(append)
        self._watch_journal()

    async def _expire_oldest(self) -> None:
        """The journal is full and told to expire: the consumer that is furthest behind gives up its oldest backlog."""
        furthest = min(self.consumers, key=lambda consumer: consumer.watermark, default=None)
        if furthest is None:
            return
        span = self.commit.next_offset - furthest.watermark
        async with self.settler.lock:
            await furthest.holding.expire(furthest.watermark + max(1, int(span * EXPIRED_SHARE)))

    def _after_settling(self) -> None:
        for reader in self.readers:
            reader.wake()
        self._backfill_pace.look_again()

    def journal_seconds_left(self) -> float:
        """Until events are refused, if the journal goes on growing as it did; infinite while it does not."""
        size = self._journal.size()
        return self._fill.seconds_left(size.bytes, size.max_bytes)

    def _watch_journal(self) -> None:
        """Alerts tell in time who holds up a journal that fills (DESIGN §4, Limits): they look now and then, and at
        once when it is worth it."""
        size = self._journal.size()
        if self._fill.passed(size.bytes, size.max_bytes, self._clock.monotonic()) is not None:
            self.filling.set()

    async def _prune(self) -> None:
        while True:
            with suppress(NoSpace):  # deleting takes space as well; the next round tries again
                await self._state.prune(self._clock.time())
            await self.settler.recount_letters()
            await anyio.sleep(PRUNE_SECONDS)
