"""The engine as a service: Engine, its listeners, and what can change while they run."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiohttp import web

from engine.adapters.descriptors import connections_possible
from engine.adapters.http_ingress import (
    REFUSED_AT_ONCE,
    Access,
    Denials,
    FastListener,
    Ingress,
    Listener,
    create_ingress_app,
    inner_listener,
)
from engine.adapters.worker_link import Entrance, listening_sockets
from engine.assembly.engine import Engine
from engine.assembly.listeners import SHUTDOWN_SECONDS, ingress_listener
from engine.assembly.tls import tls_of
from engine.assembly.worker_plan import FILES_A_WORKER, INNER_CONNECTIONS, Inner, callers_plan, with_secrets_read
from engine.assembly.workers import Spawn, Workers, workers_of
from engine.config import Config
from engine.config.access import reached_beyond
from engine.errors import ConfigError, DataDirectoryError
from engine.service import create_admin_app, create_service_app

RELOADABLE = {"log", "ingress.keys", "ingress.clients"}

log = logging.getLogger("engine.service")


class Service:
    """An engine that takes events in over HTTP and answers questions about them.

    ::

        async with Service(config) as service:
            await service.stopped()

    `urls`: {"ingress": …, "admin": …} as they are listened to. While it drains the listeners stay and answer 503.
    Entering raises what `Engine` raises, ConfigError for TLS files that cannot be used and for a limit of open files
    that is too low, and OSError when an address is taken.
    """

    def __init__(self, config: Config, *, spawn: Spawn | None = None) -> None:
        """`spawn` starts `ingress.workers` processes; without it this process takes the events in itself."""
        self.config = config
        self._spawn = spawn if config.ingress.workers > 1 else None
        self._workers: Workers | None = None
        self.engine = Engine(config if self._spawn is None else with_secrets_read(config))
        self.urls: dict[str, str] = {}
        self._keys = self.engine.keys()
        self._max_connections = config.ingress.max_connections
        self._inner_connections = INNER_CONNECTIONS
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            fitted = self._fit_connections()
            await self._stack.enter_async_context(self.engine)
            for note in [*self.engine.control.notes(), *fitted, *self._alone()]:
                log.warning("%s", note)
            if self.config.ingress.clients:
                self._keys.prepare()
            await self._listen()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, then close the listeners."""
        self.stop()
        await self.engine.drained()
        await self._stack.aclose()

    def stop(self) -> None:
        """Begin to drain; `stopped` tells when it is over."""
        if self._workers is None:
            self.engine.stop()
        else:
            self._workers.drain(self.engine.stop)

    async def stopped(self) -> None:
        """Wait until the engine has ended; raises what ended it, if it failed."""
        await self.engine.stopped()

    def reload(self, config: Config) -> list[str]:
        """Take over keys and clients of the ingress, all at once. Returns what else has changed and needs a restart.

        Raises ConfigError when a secret cannot be read: then nothing is taken over."""
        self._check_limits(config)
        try:
            if config.ingress.clients:
                self._keys.prepare()
        except DataDirectoryError as error:
            raise ConfigError([str(error)]) from error
        callers = config if self._workers is None else with_secrets_read(config)
        self._keys.replace(callers.ingress.keys, callers.ingress.clients)
        if self._workers is not None:
            self._workers.reload(callers_plan(callers, self._keys.signing_key))
        changed = [name for name in _differences(self.config.describe(), config.describe()) if name not in RELOADABLE]
        return [f"{name} has changed: it takes effect with the next start" for name in changed]

    def _check_limits(self, config: Config) -> None:
        """Callers may change under a running engine, where events go does not: what limits them is what runs."""
        for caller in (*config.ingress.keys, *config.ingress.clients):
            if names := reached_beyond(caller, self.config.sources, self.config.destinations):
                what = f"until the next start its events also go to {', '.join(names)}; start anew to take this over"
                raise ConfigError([f"ingress: the destinations of {caller.name!r}: {what}"])

    def _fit_connections(self) -> list[str]:
        """As many connections as the limit of open files has room for; what there is to say about it."""
        config, listeners = self.config, (self._spawn is None) + (self.config.admin is not None)
        workers = 0 if self._spawn is None else config.ingress.workers
        outward = sum(account.rate.max_concurrency + 1 for account in config.accounts) + listeners * REFUSED_AT_ONCE
        outward += workers * FILES_A_WORKER
        wanted = config.ingress.max_connections
        possible = connections_possible(wanted * listeners + workers * INNER_CONNECTIONS, outward)
        if workers:
            self._inner_connections = max(1, min(INNER_CONNECTIONS, possible // workers // (1 + listeners)))
            possible -= workers * self._inner_connections
        self._max_connections = -(-possible // listeners) if listeners else wanted
        if self._max_connections == wanted:
            return []
        return [
            f"ingress.max_connections is {wanted}, but the files this process may have open (ulimit -n) leave room for "
            f"{self._max_connections}"
        ]

    async def _listen(self) -> None:
        config, engine, metrics = self.config, self.engine, self.engine.metrics
        access = Access(self._keys, Denials(metrics))
        ingress = engine.ingress(access)
        if config.admin is None:
            app = create_service_app(ingress, lambda: engine.control, access, metrics=metrics)
            self.urls["admin"] = await self._open_ingress(app, ingress)
            return
        await self._open_ingress(create_ingress_app(ingress), ingress)
        app = create_admin_app(lambda: engine.control, access, metrics=metrics)
        limit = self._max_connections
        admin = Listener(
            app, config.admin.host, config.admin.port, max_connections=limit, shutdown_seconds=SHUTDOWN_SECONDS
        )
        await self._open("admin", admin, config.admin.host)

    async def _open_ingress(self, app: web.Application, ingress: Ingress) -> str:
        config = self.config.ingress
        if self._spawn is None:
            listener = ingress_listener(app, ingress, self.config, max_connections=self._max_connections)
            return await self._open("ingress", listener, config.host, tls=bool(config.tls_cert))
        tls_of(self.config)  # what is wrong with it is told here, not by every worker
        entrance = Entrance(await listening_sockets(config.host, config.port))
        self._stack.callback(entrance.close)
        enter = self._stack.enter_async_context
        inner = await enter(inner_listener(app, shutdown_seconds=SHUTDOWN_SECONDS))
        core = Inner(inner, self._inner_connections)
        workers = workers_of(self.engine.config, self.engine, self._keys, core, entrance, self._spawn)
        self.engine.metrics.elsewhere = workers.counted
        self._workers = await enter(workers)
        return self._named("ingress", config.host, entrance.port, tls=bool(config.tls_cert))

    def _alone(self) -> list[str]:
        workers = self.config.ingress.workers
        if workers == 1 or self._spawn is not None:
            return []
        return [f"ingress.workers is {workers}, but workers are there for `serve` only: this process does everything"]

    async def _open(self, name: str, listener: Listener | FastListener, host: str, *, tls: bool = False) -> str:
        await listener.open()
        self._stack.push_async_callback(listener.close)
        return self._named(name, host, listener.port, tls=tls)

    def _named(self, name: str, host: str, port: int, *, tls: bool) -> str:
        shown = f"[{host}]" if ":" in host else host
        self.urls[name] = f"{'https' if tls else 'http'}://{shown}:{port}"
        return self.urls[name]


def _differences(before: dict[str, object], after: dict[str, object], prefix: str = "") -> list[str]:
    """Where two descriptions differ, table by table and key by key."""
    found: list[str] = []
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        if isinstance(one, dict) and isinstance(other, dict) and prefix + name not in RELOADABLE:
            found += _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(prefix + name)
    return found
