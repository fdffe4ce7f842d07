"""Everything that talks to RainFocus for one account: sessions, token, destinations, and their tests."""

from __future__ import annotations

import random as random_module
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import msgspec

from engine.adapters.clock import SystemClock
from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.oauth import Credentials, OAuthTokenSource
from engine.adapters.rainfocus import MeteredRequest, RainFocusDestination
from engine.adapters.sessions import open_session
from engine.assembly.connection import Tester
from engine.config import AccountConfig, DestinationConfig
from engine.core.backoff import Backoff
from engine.core.breaker import Breaker
from engine.core.handover import Policy
from engine.core.window import Window
from engine.dispatcher import Account
from engine.metrics import AccountMetrics
from engine.ports import Clock, Destination
from engine.profiles.aep_audiences import named
from engine.profiles.fields import as_text
from engine.profiles.mapping import Mapper

TOKEN_CONNECTIONS = 1


class Outward(msgspec.Struct):
    """One account's way out, by destination name. `testers`: see `ports.Control.test_destination`."""

    tokens: OAuthTokenSource
    destinations: dict[str, Destination]
    testers: dict[str, Callable[[str | None], Awaitable[dict[str, object]]]]


async def build_outward(
    config: AccountConfig,
    destinations: list[DestinationConfig],
    account: Account,
    clock: Clock,
    random: random_module.Random,
    stack: AsyncExitStack,
) -> Outward:
    """The sessions are closed by `stack`. The token source makes its own connections: a token must not wait for a
    request that waits for it."""
    session = open_session(
        config.base_url_resolved(), connections=config.rate.max_concurrency, request_class=MeteredRequest
    )
    stack.push_async_callback(session.close)
    token_session = open_session(config.token_url_resolved(), connections=TOKEN_CONNECTIONS)
    stack.push_async_callback(token_session.close)
    tokens = OAuthTokenSource(
        config.token_url_resolved(),
        credentials_of(config),
        session=token_session,
        clock=clock,
        random=random,
        metrics=account.metrics,
        paused=account.pause_seconds,
    )
    stack.push_async_callback(tokens.close)
    outward = Outward(tokens, {}, {})
    for one in destinations:
        destination = RainFocusDestination(
            one,
            config,
            mapper=mapper_of(one),
            policy=policy_of(one, config),
            session=session,
            clock=clock,
            random=random,
        )
        outward.destinations[one.name] = destination
        outward.testers[one.name] = Tester(config, one, account, tokens, destination, clock).run
    return outward


async def try_connection(
    config: AccountConfig, one: DestinationConfig, *, store_email: str | None = None, paused_until: float = 0.0
) -> dict[str, object]:
    """Test a destination without an engine. Only with `store_email` something is written, and only that attendee: by
    an arbiter with a bucket of its own, which is bound by a stored pause (`paused_until`, epoch seconds).

    The answer has the shape of `ports.Control.test_destination`."""
    clock, random = SystemClock(), random_module.Random()
    account = Account(
        config.name,
        bucket=AiolimiterBucket(config.rate.requests_per_second, config.rate.burst),
        window=Window(1, adaptive=False),
        breaker=Breaker(Backoff(1.0, 60.0), random),
        tokens=None,
        clock=clock,
        metrics=AccountMetrics(),
        paused_until=paused_until,
        store_pause=lambda name, until: None,
    )
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        outward = await build_outward(config, [one], account, clock, random, stack)
        account.tokens = tokens = outward.tokens
        destination = outward.destinations[one.name]
        tasks.start_soon(account.run, tasks)
        tester = Tester(config, one, account, tokens, destination, clock, fetch=tokens.refresh)
        answer = await tester.run(store_email)
        tasks.cancel_scope.cancel()
    return answer


def credentials_of(config: AccountConfig) -> Credentials:
    return Credentials(
        client_id=config.client_id_value, client_secret=config.client_secret_value, placement=config.token_auth
    )


def mapper_of(config: DestinationConfig) -> Mapper:
    in_body = config.event_in != "query"
    return Mapper(
        fields=config.fields,
        rename=config.rename,
        state_policy=config.state_policy,
        apply_transformation=config.apply_transformation,
        flag_field=config.exits.partition("flag:")[2],
        event_param=config.event_param if in_body else "",
        event_code=config.event_code if in_body else "",
    )


def policy_of(config: DestinationConfig, account: AccountConfig) -> Policy:
    """What may leave, and which memberships a flag is about. An audience is named by its id, with or without namespace,
    or by the name that producers give it."""
    everybody = "*" in config.audiences
    return Policy(
        audiences=None if everybody else frozenset(map(named, config.audiences)),
        names=frozenset() if everybody else frozenset(map(as_text, config.audiences)),
        exits=config.exits,
        refuse_synthetic=not account.sandbox,
    )


__all__ = ["Outward", "build_outward", "try_connection"]
