"""`bench`: load for an engine that runs, with invented people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable
from engine.cli.reach import Target, admin_url, ingress_url
from engine.errors import EngineError

if TYPE_CHECKING:
    import ssl

    from engine.bench.results import Cell
    from engine.bench.running import Plan
    from engine.cli.client import Client

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The engine. Default: the ingress of the configuration.")
]
AdminUrl = Annotated[
    str | None, typer.Option("--admin-url", metavar="URL", help="Its admin API, if that listens elsewhere.")
]
Rate = Annotated[
    float, typer.Option("--rate", min=0.0, metavar="N", help="Events a second; 0: as fast as the engine answers.")
]
Seconds = Annotated[float, typer.Option("--seconds", min=0.1, max=3_600.0, metavar="S", help="How long.")]
EventsPerRequest = Annotated[
    int, typer.Option("--events-per-request", min=1, max=10_000, metavar="N", help="Events in one request.")
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, max=1_000, metavar="N", help="Connections, one request each at a time.")
]
SourceName = Annotated[str, typer.Option("--source", metavar="NAME", help="Name of their source in the configuration.")]
Allowed = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-destination", metavar="NAME", help="A destination outside the sandbox that may be part of it."
    ),
]


def bench(
    rate: Rate = 0.0,
    seconds: Seconds = 10.0,
    events_per_request: EventsPerRequest = 10,
    concurrency: Concurrency = 16,
    source: SourceName = "",
    allow_destination: Allowed = None,
    config: ConfigPath = None,
    url: Url = None,
    admin_url: AdminUrl = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Put a running engine under load and say how fast it takes events in and how long they take to be delivered.

    The people are invented, with addresses at bench.invalid, and every event is of another one. An engine with a
    destination outside the sandbox is refused before anything is sent, unless each is named; even then it excludes
    such addresses there (reason synthetic). What is sent stays in journal and ledger like any other event.
    With --rate latencies run from the moment a request was due; without it every connection sends at once again.
    The key needs the scopes profiles:write and destinations:view.

    Example:

        rainfocus-engine bench --rate 2000 --seconds 30
    """
    from engine.bench.running import Plan

    target = Target(config, url, key_env)
    place, admin, certificate = _places(target, admin_url)
    plan = Plan(
        url=place,
        key=target.key,
        events_per_second=rate,
        seconds=seconds,
        events_per_request=events_per_request,
        concurrency=concurrency,
        source=source,
    )
    client = _client(admin, target, certificate)
    cells = asyncio.run(_bench(plan, client, allow_destination or [], certificate))
    _show_json(cells) if json else _show(cells)


def _places(target: Target, admin: str | None) -> tuple[str, str, str]:
    """URL of the ingress, URL of the admin API, certificate to trust."""
    if target.url:
        return target.url, admin or target.url, ""
    config = target.config()
    ingress = ingress_url(config)
    if not ingress:
        raise EngineError("the configuration lets the system choose the port: name the engine with --url")
    return ingress, admin or admin_url(config), config.ingress.tls_cert


def _client(url: str, target: Target, certificate: str) -> Client:
    from engine.cli.client import Client

    trusted = certificate if url.startswith("https") else ""
    return Client(url, target.key, key_variable=target.key_variable, certificate=trusted)


async def _bench(plan: Plan, client: Client, allowed: list[str], certificate: str) -> list[Cell]:
    from engine.bench.running import Admin, bench

    async with client, _sentences(plan.url):
        return await bench(
            plan, Admin(client.destinations, client.metrics), allowed=allowed, trust=_trust(plan.url, certificate)
        )


@asynccontextmanager
async def _sentences(url: str) -> AsyncIterator[None]:
    """A failure of the load's own sockets as a sentence."""
    try:
        yield
    except OSError as error:
        raise EngineError(f"{url} does not answer ({error.strerror or type(error).__name__})") from error
    except ValueError as error:
        raise EngineError(f"{url}: {error}") from error


def _trust(url: str, certificate: str) -> ssl.SSLContext | None:
    from engine.cli.client import trusting

    return trusting(certificate) if certificate and url.startswith("https") else None


def _show(cells: list[Cell]) -> None:
    from engine.bench.report import running_tables

    for table in running_tables(cells):
        output.console().print(table)


def _show_json(cells: list[Cell]) -> None:
    import msgspec

    shown: Any = msgspec.to_builtins(cells)
    output.print_json({"destinations": shown})
