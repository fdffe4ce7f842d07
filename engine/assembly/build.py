"""config -> adapters -> pipeline. Everything that has to be open is open on return, and closed by the stack."""

from __future__ import annotations

import random as random_module
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from engine.adapters.data_directory import owned
from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.memory_journal import MemoryJournal
from engine.adapters.sqlite import LedgerLimits, LetterLimits, RunLimits, SqliteState
from engine.assembly.alerting import Alerting, open_alerting
from engine.assembly.audit import contradictions
from engine.assembly.control import EngineControl
from engine.assembly.forwards import add_forward
from engine.assembly.gauges import register_gauges
from engine.assembly.journal_kind import DATABASE, KINDS, make_journal
from engine.assembly.outlook import wanted_of
from engine.assembly.outward import Outward, build_outward, policy_of
from engine.assembly.version import engine_version
from engine.config import AccountConfig, Config, DestinationConfig
from engine.core.backoff import Backoff
from engine.core.batcher import Batcher
from engine.core.breaker import Breaker
from engine.core.pace import Pace
from engine.core.progress import patience_of_sending
from engine.core.reconcile import disagreements, orphan_problem, reconcile
from engine.core.window import Window
from engine.dispatcher import Account, Consumer
from engine.dispatcher.consumer import ConsumerPolicy
from engine.errors import ConfigError, DataDirectoryError
from engine.metrics import Metrics
from engine.pipeline import Pipeline
from engine.ports import Clock, ConsumerState, Destination, Journal, JournalTail, State
from engine.profiles.mapping import merge_contents

PROBE_BASE_SECONDS, PROBE_CAP_SECONDS = 1.0, 20.0


class Parts(msgspec.Struct):
    """What runs, for the control side."""

    version: str
    clock: Clock
    journal: Journal
    state: State
    pipeline: Pipeline
    accounts: list[Account]
    consumers: list[Consumer]
    metrics: Metrics
    journal_id: str
    discarded_frames: int
    notes: list[str]
    described: dict[str, dict[str, object]]
    testers: dict[str, Callable[[str | None], Awaitable[dict[str, object]]]]
    directory: Path | None  # with its files; None when everything is in memory
    journal_file: str  # what a backup of the journal is called
    problems: list[str]  # what contradicted itself in the state as it was found
    control: EngineControl = None  # type: ignore[assignment]
    alerting: Alerting = None  # type: ignore[assignment]


async def open_parts(
    config: Config,
    stack: AsyncExitStack,
    own_destinations: Mapping[str, Destination],
    own_journal: Journal | None,
    own_state: State | None,
    clock: Clock,
    random: random_module.Random,
    metrics: Metrics,
) -> Parts:
    """Raises ConfigError, DataDirectoryError, StorageFailed, NoSpace."""
    journal, state = build_storage(config, stack, own_journal, own_state)
    stack.push_async_callback(journal.close)
    tail = await journal.open()
    metrics.accepted(tail.next)  # what is durable was accepted: the sum survives a restart
    stack.push_async_callback(state.close)
    await state.open()
    problems = contradictions(await state.consumers(), {}, tail.next)  # before anything is written over it
    states, notes = await resume(config, state, tail)
    builder = _Builder(config, state, clock, random, metrics, await state.pauses())
    for account in config.accounts:
        await builder.account(account, own_destinations, states, stack)
    for forward in config.forwards:
        await add_forward(builder, forward, states[forward.name], own_destinations.get(forward.name), stack)
    pipeline = Pipeline(
        journal,
        state,
        builder.accounts,
        builder.consumers,
        journal_next=tail.next,
        clock=clock,
        metrics=metrics,
        expire_when_full=config.journal.on_full == "expire",
        watchdog_seconds=config.engine.watchdog_seconds,
    )
    builder.settler_dirty = pipeline.settler.dirty
    builder.store_pause = pipeline.settler.pause
    parts = Parts(
        engine_version(),
        clock,
        journal,
        state,
        pipeline,
        builder.accounts,
        builder.consumers,
        metrics,
        tail.id,
        tail.discarded_frames,
        notes,
        builder.described,
        builder.testers,
        None if own_journal is not None or config.journal.kind == "memory" else config.data_dir,
        KINDS[config.journal.kind].file if config.journal.kind in KINDS and own_journal is None else DATABASE,
        problems,
    )
    parts.control = EngineControl(parts)
    register_gauges(metrics, parts)
    parts.alerting = await open_alerting(config, parts, stack, random)
    return parts


def build_storage(
    config: Config, stack: AsyncExitStack, own_journal: Journal | None = None, own_state: State | None = None
) -> tuple[Journal, State]:
    """The journal and the state file beside it; the data directory is owned until the stack closes. Not opened yet."""
    ledger = LedgerLimits(config.ledger.enabled, config.ledger.retention_days, config.ledger.max_keys)
    letters = LetterLimits(config.dead_letters.retention_days, config.dead_letters.max_count)
    runs = RunLimits(config.runs.retention_days, config.runs.max_audiences)
    if own_journal is not None or config.journal.kind == "memory":
        journal = own_journal or MemoryJournal(max_bytes=config.journal.max_bytes)
        return journal, own_state or SqliteState(None, ledger=ledger, letters=letters, runs=runs)
    directory = stack.enter_context(owned(config.data_dir))
    journal = make_journal(config, directory)
    return journal, own_state or SqliteState(directory / "state.db", ledger=ledger, letters=letters, runs=runs)


async def resume(config: Config, state: State, tail: JournalTail) -> tuple[dict[str, ConsumerState], list[str]]:
    """The consumers as they go on, by name, and what there is to say about it. Raises ConfigError for orphans."""
    stored = await state.consumers()
    problems = disagreements(stored, tail.first, tail.next)
    if problems:
        raise DataDirectoryError(
            f"{problems[0]}: the two files are not of one moment, or one of them is damaged. `rainfocus-engine journal "
            "check` says what is missing; or restore both from one backup"
        )
    plan = reconcile(stored, wanted_of(config), tail.first, tail.next)
    if plan.orphans:
        raise ConfigError([orphan_problem(one, tail.next) for one in plan.orphans])
    for one in plan.add:
        await state.add_consumer(one)
    return plan.states(), plan.notes


class _Builder:
    """Accounts and consumers, one after the other; the settler comes last: it is reached through two attributes."""

    def __init__(
        self,
        config: Config,
        state: State,
        clock: Clock,
        random: random_module.Random,
        metrics: Metrics,
        pauses: dict[str, float],
    ) -> None:
        self.config, self.state, self.clock, self.random = config, state, clock, random
        self.metrics, self.pauses = metrics, pauses
        self.accounts: list[Account] = []
        self.consumers: list[Consumer] = []
        self.described: dict[str, dict[str, object]] = {}
        self.testers: dict[str, Callable[[str | None], Awaitable[dict[str, object]]]] = {}
        self.settler_dirty: Callable[[], None] = lambda: None
        self.store_pause: Callable[[str, float], None] = lambda name, until: None

    async def account(
        self,
        config: AccountConfig,
        own: Mapping[str, Destination],
        states: Mapping[str, ConsumerState],
        stack: AsyncExitStack,
    ) -> None:
        mine = [one for one in self.config.destinations if self.config.account_of(one) is config]
        theirs = [one for one in mine if one.name not in own]
        rate = config.rate
        account = Account(
            config.name,
            bucket=AiolimiterBucket(rate.requests_per_second, rate.burst),
            window=Window(rate.max_concurrency, adaptive=rate.adaptive),
            breaker=self.breaker(),
            tokens=None,
            clock=self.clock,
            metrics=self.metrics.account(config.name),
            pace=Pace(rate.requests_per_second, rate.burst, self.clock.monotonic()),
            paused_until=self.pauses.get(config.name, 0.0),
            store_pause=lambda name, until: self.store_pause(name, until),
        )
        outward: Outward | None = None
        if theirs:
            outward = await build_outward(config, theirs, account, self.clock, self.random, stack)
            account.tokens = outward.tokens
        self.accounts.append(account)
        for one in mine:
            destination = own.get(one.name)
            if destination is None:
                assert outward is not None
                destination = outward.destinations[one.name]
                self.testers[one.name] = outward.testers[one.name]
            await self._consumer(one, config, states[one.name], destination, account, stack)

    async def _consumer(
        self,
        config: DestinationConfig,
        account_config: AccountConfig,
        state: ConsumerState,
        destination: Destination,
        account: Account,
        stack: AsyncExitStack,
    ) -> None:
        await destination.open()
        stack.push_async_callback(destination.close)
        batch, retry = config.batch, config.retry
        consumer = Consumer(
            state,
            destination,
            account,
            self.state,
            policy=_policy(config, account_config, self.config),
            batcher=Batcher(
                max_profiles=min(batch.max_profiles, destination.profiles_per_request),
                max_bytes=batch.max_bytes,
                linger_seconds=batch.linger_ms / 1000,
            ),
            breaker=self.breaker(),
            backoff=Backoff(retry.base_ms / 1000, retry.cap_ms / 1000),
            merge=merge_contents,
            clock=self.clock,
            random=self.random,
            metrics=self.metrics.destination(config.name),
            dirty=lambda: self.settler_dirty(),
            letters_full=self.letters_full,
            weight=config.weight,
        )
        self.consumers.append(consumer)
        account.add(consumer)
        self.described[config.name] = {
            "description": config.description,
            "environment": account_config.environment,
            "url": config.resolved_url(account_config),
            "event_code": config.event_code,
            "encoding": config.encoding,
            "requests_per_second": account_config.rate.requests_per_second,
            "dry_run": config.dry_run,
        }

    def breaker(self) -> Breaker:
        return Breaker(Backoff(PROBE_BASE_SECONDS, PROBE_CAP_SECONDS), self.random)

    def letters_full(self) -> bool:
        return sum(one.books.letters for one in self.consumers) >= self.config.dead_letters.max_count


def _policy(config: DestinationConfig, account: AccountConfig, whole: Config) -> ConsumerPolicy:
    share = len(whole.destinations) + len(whole.forwards)
    return ConsumerPolicy(
        sources=None if "*" in config.sources else frozenset(config.sources),
        handover=policy_of(config, account),
        dry_run=config.dry_run,
        suppress=config.suppress.enabled and whole.ledger.enabled,
        suppress_ttl_seconds=config.suppress.ttl_seconds,
        max_attempts=config.retry.max_attempts,
        max_age_seconds=config.retry.max_age_seconds,
        unknown_hold_seconds=config.retry.unknown_hold_seconds,
        max_profiles=max(1, whole.buffer.max_profiles // share),
        max_bytes=max(1, whole.buffer.max_bytes // share),
        patience_seconds=_patience_seconds(config, account, whole),
    )


def _patience_seconds(config: DestinationConfig, account: AccountConfig, whole: Config) -> float:
    beside = [one for one in whole.destinations if whole.account_of(one) is account]
    return patience_of_sending(
        whole.engine.watchdog_seconds,
        turns=sum(one.weight for one in beside) / config.weight,
        attempt_seconds=max(one.retry.timeout_seconds + one.retry.unknown_hold_seconds for one in beside),
        requests_per_second=account.rate.requests_per_second,
        max_concurrency=account.rate.max_concurrency,
    )
