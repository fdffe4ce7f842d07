"""Everything that talks to RainFocus for one account: sessions, token, destinations, and their tests."""

from __future__ import annotations

import random as random_module
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import msgspec
from yarl import URL

from engine.adapters.clock import SystemClock
from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.oauth import Credentials, OAuthTokenSource
from engine.adapters.rainfocus import RainFocusDestination
from engine.adapters.raw_http import RawTransport
from engine.adapters.sessions import AiohttpTransport, MeteredRequest, open_session, proxy_of
from engine.assembly.connection import Tester
from engine.config import AccountConfig, DestinationConfig
from engine.core.backoff import Backoff
from engine.core.breaker import Breaker
from engine.core.consent import Rule
from engine.core.handover import Policy
from engine.core.window import Window
from engine.dispatcher import Account
from engine.errors import ConfigError
from engine.metrics import AccountMetrics
from engine.ports import Clock, Destination
from engine.profiles.aep_audiences import named
from engine.profiles.fields import as_text
from engine.profiles.mapping import Mapper
from engine.transport import Transport

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
    transports = Transports(config, stack)
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
            transport=transports.to(one.resolved_url(config)),
            clock=clock,
            random=random,
        )
        outward.destinations[one.name] = destination
        outward.testers[one.name] = Tester(config, one, account, tokens, destination, clock).run
    return outward


class Transports:
    """The connections of one account: raw ones, or aiohttp's where the configuration or a proxy asks for it."""

    def __init__(self, config: AccountConfig, stack: AsyncExitStack) -> None:
        self._config, self._stack = config, stack
        self._made: dict[tuple[str, str], Transport] = {}  # by kind, and proxy

    def to(self, url: str) -> Transport:
        """Raises ConfigError for a raw connection through a proxy."""
        kind, proxy = self._config.transport, proxy_of(url)
        if kind == "raw" and proxy is not None:
            raise ConfigError([_through(self._config.name, proxy)])
        if kind == "auto":
            kind = "raw" if proxy is None else "aiohttp"
        key = kind, str(proxy or "")
        if key not in self._made:
            self._made[key] = self._make(kind, url)
            self._stack.push_async_callback(self._made[key].close)
        return self._made[key]

    def _make(self, kind: str, url: str) -> Transport:
        connections = self._config.rate.max_concurrency
        if kind == "raw":
            return RawTransport(connections=connections)
        return AiohttpTransport(open_session(url, connections=connections, request_class=MeteredRequest))


def _through(account: str, proxy: URL) -> str:
    return (
        f'account {account!r}: transport = "raw" cannot go through the proxy that the environment names '
        f'({proxy.host}); write transport = "auto", or put the host into NO_PROXY'
    )


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
    """What may leave, and which memberships and consents a flag is about. An audience is named by its id, with or
    without namespace, or by the name that producers give it."""
    everybody = "*" in config.audiences
    return Policy(
        audiences=None if everybody else frozenset(map(named, config.audiences)),
        names=frozenset() if everybody else frozenset(map(as_text, config.audiences)),
        exits=config.exits,
        refuse_synthetic=not account.sandbox,
        consents=tuple(Rule(it.required, frozenset(it.accepted), it.absent == "allow") for it in config.consent),
    )


__all__ = ["Outward", "build_outward", "try_connection"]
