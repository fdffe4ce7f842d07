"""A stage for the dispatcher: accounts and destinations around a real pipeline, all in memory, on virtual time.

`async with stage.running():` is one process; running the same stage again is the next one, over the same disk.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import anyio

from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.memory_journal import MemoryJournal
from engine.core.backoff import Backoff
from engine.core.batcher import Batcher
from engine.core.breaker import Breaker
from engine.core.handover import Policy
from engine.core.pace import Pace
from engine.core.window import Window
from engine.dispatcher import Account, Consumer
from engine.dispatcher.consumer import ConsumerPolicy
from engine.metrics import Metrics
from engine.model import Append, Batch, Event, Lane, Membership, Profile, Reply, Trait
from engine.pipeline import Pipeline
from engine.ports import ConsumerState, Destination, LetterFilter, Permit, TokenSource
from engine.profiles.identity import key_of
from engine.profiles.mapping import merge_contents
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination
from engine.testing.lasting import LastingState

HOLD_SECONDS = 2.0


def address(person: int | str) -> str:
    return f"p{person}@example.com"


def key(person: int | str) -> bytes:
    return key_of(address(person))


def event(person: int | str, *, audiences: dict[str, Membership] | None = None, **fields: object) -> Event:
    content = {"email": address(person)} | {name: str(value) for name, value in fields.items()}
    return Event(key(person), json.dumps(content, separators=(",", ":")).encode(), Trait.EMAIL, audiences)


class OpenBucket:
    """No limit."""

    async def take(self) -> None:
        """At once."""


class Tokens:
    """A token source: a new token for every one that was discarded, `seconds` later."""

    trouble = ""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.number, self.discarded, self._valid = seconds, 0, list[str](), ""
        self.refreshes = 0

    def current(self) -> str:
        return self._valid

    async def valid(self) -> str:
        if not self._valid:
            await anyio.sleep(self.seconds)
            self.refreshes += 1
            self._valid = f"token-{self.refreshes}"
        return self._valid

    def discard(self, token: str, /) -> None:
        self.discarded.append(token)
        if token == self._valid:
            self._valid = ""

    async def run(self) -> None:
        """Nothing to do ahead of time."""

    async def close(self) -> None:
        """Nothing to close."""


class Connecting(FakeDestination):
    """Opens a connection before it uses its permit: `connect()` gives the seconds that takes."""

    def __init__(self, connect: Callable[[], float], **options: Any) -> None:
        super().__init__(**options)
        self._connect = connect

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        await anyio.sleep(self._connect())
        return await super().send(batch, permit)


class Stage:
    def __init__(self, *, most_letters: int = 1_000) -> None:
        self.clock, self.journal, self.state = VirtualClock(), MemoryJournal(), LastingState()
        self.most_letters = most_letters
        self.metrics = Metrics()
        self.accounts: dict[str, Account] = {}
        self.consumers: dict[str, Consumer] = {}
        self._accounts: list[dict[str, Any]] = []
        self._destinations: list[dict[str, Any]] = []

    # -- what there is --------------------------------------------------------------------------------------------

    def account(
        self,
        name: str = "a",
        *,
        rate: float | None = None,
        burst: int = 2,
        concurrency: int = 8,
        adaptive: bool = False,
        tokens: TokenSource | None = None,
    ) -> None:
        self._accounts.append(locals())

    def destination(
        self,
        name: str,
        destination: Destination,
        *,
        account: str = "a",
        weight: int = 1,
        linger: float = 0.0,
        handover: Policy | None = None,
        **policy: Any,
    ) -> None:
        if not any(one["name"] == account for one in self._accounts):
            self.account(account)
        policy = {"unknown_hold_seconds": HOLD_SECONDS, "handover": handover or Policy()} | policy
        self._destinations.append(locals())

    # -- a process ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, *, drain: bool = False) -> AsyncIterator[Stage]:
        """One process; killed at the end, or drained."""
        tail = await self.journal.open()
        await self.state.open()
        self.metrics = Metrics()
        pauses = await self.state.pauses()
        stored = {one.name: one for one in await self.state.consumers()}
        self.accounts = {one["name"]: self._make_account(one, pauses) for one in self._accounts}
        self.consumers = {}
        for one in self._destinations:
            state = stored.get(one["name"]) or ConsumerState(one["name"], "here", 0, 0, 0, clean=True)
            if one["name"] not in stored:
                await self.state.add_consumer(state)
            self.consumers[one["name"]] = self._make_consumer(one, state)
        self.pipeline = Pipeline(
            self.journal,
            self.state,
            list(self.accounts.values()),
            list(self.consumers.values()),
            journal_next=tail.next,
            clock=self.clock,
            metrics=self.metrics,
        )
        async with anyio.create_task_group() as tasks:
            await self.pipeline.start(tasks)
            yield self
            drained = drain and await self.pipeline.drain(60.0)
            tasks.cancel_scope.cancel()
        if drain:
            await self.pipeline.settler.settle(clean=drained)

    def _make_account(self, one: dict[str, Any], pauses: dict[str, float]) -> Account:
        return Account(
            one["name"],
            bucket=OpenBucket() if one["rate"] is None else AiolimiterBucket(one["rate"], one["burst"]),
            window=Window(one["concurrency"], adaptive=one["adaptive"]),
            breaker=self._breaker(),
            tokens=one["tokens"],
            clock=self.clock,
            metrics=self.metrics.account(one["name"]),
            pace=None if one["rate"] is None else Pace(one["rate"], one["burst"], self.clock.monotonic()),
            paused_until=pauses.get(one["name"], 0.0),
            store_pause=lambda name, until: self.pipeline.settler.pause(name, until),
        )

    def _make_consumer(self, one: dict[str, Any], state: ConsumerState) -> Consumer:
        account, destination = self.accounts[one["account"]], one["destination"]
        consumer = Consumer(
            state,
            destination,
            account,
            self.state,
            policy=ConsumerPolicy(**one["policy"]),
            batcher=Batcher(
                max_profiles=destination.profiles_per_request, max_bytes=1_000_000, linger_seconds=one["linger"]
            ),
            breaker=self._breaker(),
            backoff=Backoff(0.5, 60.0),
            merge=merge_contents,
            clock=self.clock,
            random=random.Random(1),
            metrics=self.metrics.destination(one["name"]),
            dirty=lambda: self.pipeline.settler.dirty(),
            letters_full=lambda: sum(c.books.letters for c in self.consumers.values()) >= self.most_letters,
            weight=one["weight"],
        )
        account.add(consumer)
        return consumer

    def _breaker(self) -> Breaker:
        return Breaker(Backoff(1.0, 60.0), random.Random(1))

    # -- what happens ---------------------------------------------------------------------------------------------

    async def submit(self, *events: Event, source: str = "default", lane: Lane = Lane.LIVE) -> int:
        return await self.pipeline.commit.submit(Append(list(events), source, lane))

    async def settled(self, *names: str, within: float = 3_600.0) -> None:
        """Until these destinations (all, if none is named) owe nothing any more, and that is durable."""
        began = anyio.current_time()
        with anyio.fail_after(within):
            while any(self.pending(name) for name in names or self.consumers):  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(max(0.01, (anyio.current_time() - began) / 20))
        await self.pipeline.settler.settle()
        assert [c.residual(self.pipeline.commit.next_offset) for c in self.consumers.values()] == [0] * len(
            self.consumers
        )

    def pending(self, name: str) -> int:
        return self.consumers[name].pending(self.pipeline.commit.next_offset)

    def counts(self, name: str) -> dict[str, int]:
        return {reason: events for reason, events in self.consumers[name].books.counts.items() if events}

    async def letters(self, name: str) -> list[tuple[str, str, Profile]]:
        """(kind, reason, profile) of what is kept."""
        found = await self.state.letters(LetterFilter(consumer=name), 1_000)
        return [(held.kind.value, held.reason, held.profile) for _, held in found]


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A coroutine as a test of pytest's, on virtual time."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(lambda: test(**fixtures))

    return run
