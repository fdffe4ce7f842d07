"""The engine as a service: Engine, its listeners, and what can change while they run."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

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
    tls_context,
)
from engine.assembly.engine import Engine
from engine.config import Config
from engine.config.access import reached_beyond
from engine.errors import ConfigError, DataDirectoryError
from engine.service import create_admin_app, create_service_app

SHUTDOWN: dict[str, Any] = {"shutdown_seconds": 2.0}
"""How long answers under way may take once the engine has drained."""

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

    def __init__(self, config: Config) -> None:
        self.config = config
        self.engine = Engine(config)
        self.urls: dict[str, str] = {}
        self._keys = self.engine.keys()
        self._max_connections = config.ingress.max_connections
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            fitted = self._fit_connections()
            await self._stack.enter_async_context(self.engine)
            for note in [*self.engine.control.notes(), *fitted]:
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
        self.engine.stop()

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
        self._keys.replace(config.ingress.keys, config.ingress.clients)
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
        config, listeners = self.config, 1 if self.config.admin is None else 2
        outward = sum(account.rate.max_concurrency + 1 for account in config.accounts) + listeners * REFUSED_AT_ONCE
        wanted = config.ingress.max_connections
        self._max_connections = -(-connections_possible(wanted * listeners, outward) // listeners)
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
        admin = Listener(app, config.admin.host, config.admin.port, max_connections=limit, **SHUTDOWN)
        await self._open("admin", admin, config.admin.host)

    async def _open_ingress(self, app: web.Application, ingress: Ingress) -> str:
        config = self.config.ingress
        listener = ingress_listener(app, ingress, self.config, max_connections=self._max_connections)
        return await self._open("ingress", listener, config.host, tls=bool(config.tls_cert))

    async def _open(self, name: str, listener: Listener | FastListener, host: str, *, tls: bool = False) -> str:
        await listener.open()
        self._stack.push_async_callback(listener.close)
        shown = f"[{host}]" if ":" in host else host
        self.urls[name] = f"{'https' if tls else 'http'}://{shown}:{listener.port}"
        return self.urls[name]


def ingress_listener(
    app: web.Application,
    ingress: Ingress,
    config: Config,
    *,
    max_connections: int = 0,
    sock: socket.socket | None = None,
    reuse_port: bool = False,
) -> Listener | FastListener:
    """Behind the front that the configuration wants, not open yet. Raises ConfigError for TLS files that cannot be
    used."""
    where = config.ingress
    more: dict[str, Any] = {
        **SHUTDOWN,
        **{"max_connections": max_connections, "tls": _tls(config) if where.tls_cert else None},
        **{"sock": sock, "reuse_port": reuse_port, "ingress": ingress},
    }
    if where.front == "fast":
        return FastListener(app, where.host, where.port, body_seconds=where.body_timeout_seconds, **more)
    return Listener(app, where.host, where.port, **more)


def _tls(config: Config) -> ssl.SSLContext:
    ingress = config.ingress
    try:
        return tls_context(
            str(config.base / ingress.tls_cert),
            str(config.base / ingress.tls_key) if ingress.tls_key else "",
            str(config.base / ingress.tls_client_ca) if ingress.tls_client_ca else "",
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"ingress.tls_cert: certificate or key cannot be used ({error})"]) from error


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
