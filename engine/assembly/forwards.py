"""`[[forward]]`: a webhook as one more consumer of the journal, for what RainFocus reports as changed.

It has an account of its own (rate, window, breaker, Retry-After pause; no token), and everything that a destination
has: outcomes, retries, dead letters, pause and resume, audit. Of changes none replaces another, so that what waits for
one attendee is joined and not merged.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol

from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.rainfocus import failed
from engine.adapters.sessions import AiohttpTransport, MeteredRequest, open_session
from engine.adapters.webhook import WebhookDestination
from engine.assembly.connection import reach
from engine.config import Config, ForwardConfig
from engine.core.backoff import Backoff
from engine.core.batcher import Batcher
from engine.core.breaker import Breaker
from engine.core.handover import Policy
from engine.core.pace import Pace
from engine.core.progress import patience_of_sending
from engine.core.signature import secret_bytes
from engine.core.window import Window
from engine.dispatcher import Account, Consumer
from engine.dispatcher.consumer import ConsumerPolicy
from engine.errors import ConfigError
from engine.metrics import Metrics
from engine.model import Kind
from engine.ports import Clock, ConsumerState, Destination, State
from engine.profiles.changes import join_changes

MOST_WAITING_BYTES = 67_108_864
"""Of changes in memory: what waits for one attendee leaves as one request. The rest waits in the journal."""


class Builder(Protocol):
    """What `build` has at hand for every consumer."""

    config: Config
    state: State
    clock: Clock
    random: random_module.Random
    metrics: Metrics
    pauses: dict[str, float]
    accounts: list[Account]
    consumers: list[Consumer]
    described: dict[str, dict[str, object]]
    testers: dict[str, Callable[[str | None], Awaitable[dict[str, object]]]]
    settler_dirty: Callable[[], None]
    store_pause: Callable[[str, float], None]

    def breaker(self) -> Breaker: ...

    def letters_full(self) -> bool: ...


async def add_forward(
    builder: Builder, config: ForwardConfig, state: ConsumerState, own: Destination | None, stack: AsyncExitStack
) -> None:
    """`own`: a destination to be used instead of the webhook. Raises ConfigError for a secret that is none."""
    account = _account(builder, config)
    destination = own or await _webhook(builder, config, stack)
    await destination.open()
    stack.push_async_callback(destination.close)
    retry = config.retry
    consumer = Consumer(
        state,
        destination,
        account,
        builder.state,
        policy=_policy(builder.config, config),
        batcher=Batcher(max_profiles=1, max_bytes=MOST_WAITING_BYTES, linger_seconds=0.0),
        breaker=builder.breaker(),
        backoff=Backoff(retry.base_ms / 1000, retry.cap_ms / 1000),
        merge=join_changes,
        clock=builder.clock,
        random=builder.random,
        metrics=builder.metrics.destination(config.name),
        dirty=lambda: builder.settler_dirty(),
        letters_full=builder.letters_full,
    )
    account.add(consumer)
    builder.accounts.append(account)
    builder.consumers.append(consumer)
    builder.testers[config.name] = lambda store_email: reach(config.url)
    builder.described[config.name] = {
        "description": config.description,
        "environment": "webhook",
        "url": config.url,
        "event_code": "",
        "encoding": "webhook",
        "requests_per_second": config.rate.requests_per_second,
        "dry_run": False,
    }


def _account(builder: Builder, config: ForwardConfig) -> Account:
    name, rate = f"forward:{config.name}", config.rate  # no name in the configuration holds a colon
    return Account(
        name,
        bucket=AiolimiterBucket(rate.requests_per_second, rate.burst),
        window=Window(rate.max_concurrency, adaptive=rate.adaptive),
        breaker=builder.breaker(),
        tokens=None,
        clock=builder.clock,
        metrics=builder.metrics.account(name),
        pace=Pace(rate.requests_per_second, rate.burst, builder.clock.monotonic()),
        paused_until=builder.pauses.get(name, 0.0),
        store_pause=lambda name, until: builder.store_pause(name, until),
    )


async def _webhook(builder: Builder, config: ForwardConfig, stack: AsyncExitStack) -> Destination:
    session = open_session(config.url, connections=config.rate.max_concurrency, request_class=MeteredRequest)
    transport = AiohttpTransport(session)
    stack.push_async_callback(transport.close)
    return WebhookDestination(
        config.name,
        config.url,
        _keys(config),
        timeout_seconds=config.retry.timeout_seconds,
        transport=transport,
        clock=builder.clock,
        failed=failed,
    )


def _keys(config: ForwardConfig) -> list[bytes]:
    try:
        return [secret_bytes(it) for it in config.secrets()]
    except ValueError as error:
        raise ConfigError([f"the secret of forward {config.name!r} {error}"]) from None


def _policy(whole: Config, config: ForwardConfig) -> ConsumerPolicy:
    share, retry, rate = len(whole.destinations) + len(whole.forwards), config.retry, config.rate
    return ConsumerPolicy(
        sources=frozenset(),  # of what producers send it takes nothing; changes have no source
        takes=Kind.CHANGE,
        every_event=True,
        handover=Policy(needs_email=False, refuse_synthetic=False),
        suppress=False,
        max_attempts=retry.max_attempts,
        max_age_seconds=retry.max_age_seconds,
        unknown_hold_seconds=retry.unknown_hold_seconds,
        max_profiles=max(1, whole.buffer.max_profiles // share),
        max_bytes=max(1, min(MOST_WAITING_BYTES, whole.buffer.max_bytes // share)),
        patience_seconds=patience_of_sending(
            whole.engine.watchdog_seconds,
            turns=1.0,
            attempt_seconds=retry.timeout_seconds + retry.unknown_hold_seconds,
            requests_per_second=rate.requests_per_second,
            max_concurrency=rate.max_concurrency,
        ),
    )


__all__ = ["add_forward"]
