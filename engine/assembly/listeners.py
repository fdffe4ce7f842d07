"""config -> the listener that takes events in."""

from __future__ import annotations

import socket
from typing import Any

from aiohttp import web

from engine.adapters.http_ingress import FastListener, Ingress, Listener
from engine.assembly.tls import tls_of
from engine.config import Config

SHUTDOWN_SECONDS = 2.0
"""How long answers under way may take once the engine has drained."""


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
        **{"max_connections": max_connections, "tls": tls_of(config), "shutdown_seconds": SHUTDOWN_SECONDS},
        **{"sock": sock, "reuse_port": reuse_port, "ingress": ingress},
    }
    if where.front == "fast":
        return FastListener(app, where.host, where.port, body_seconds=where.body_timeout_seconds, **more)
    return Listener(app, where.host, where.port, **more)
