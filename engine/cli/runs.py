"""`runs`: the hourly runs of every destination, with AEP's names."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from engine.cli import output
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Url
from engine.cli.reach import Target, reach
from engine.history import HOUR_SECONDS, RunFilter

PAGE = 500
OneDestination = Annotated[str | None, typer.Option("--destination", metavar="NAME", help="Only of this destination.")]
Hours = Annotated[int, typer.Option("--hours", min=1, help="Show so many hours, this one included.")]
Audiences = Annotated[bool, typer.Option("--audiences", help="Also by audience; its sum may exceed the whole.")]
HEADERS = (
    *("Dataflow run start", "Destination", "Status", "Processing time"),
    *("Profiles received", "Identities activated", "Identities excluded", "Identities failed", "Activation rate"),
    "Errors",
)


def runs(
    destination: OneDestination = None,
    hours: Hours = 24,
    audiences: Audiences = False,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Show the hourly runs, newest first: received, activated, excluded, failed, in events.

    An hour in which nothing was settled has no run. What the columns mean: docs/monitoring.md.

    Example:

        rainfocus-engine runs --destination demo --hours 48 --audiences
    """
    since = float((int(time.time()) // HOUR_SECONDS - hours + 1) * HOUR_SECONDS)
    which = RunFilter(consumer=destination, audience=None if audiences else "", since=since)
    found = asyncio.run(_runs(Target(config, url, key_env), which))
    output.print_json({"runs": found}) if json else _show(found, audiences)


async def _runs(target: Target, which: RunFilter) -> list[dict[str, Any]]:
    async with reach(target) as api:
        found, cursor = list[dict[str, Any]](), ""
        while True:
            answer = await api.runs(which, PAGE, cursor)
            found += answer.get("runs", [])
            cursor = answer.get("next") or ""
            if not cursor:
                return found


def _show(found: list[dict[str, Any]], audiences: bool) -> None:
    headers = (*HEADERS[:2], "Audience", *HEADERS[2:]) if audiences else HEADERS
    output.console().print(output.table(headers, [_row(run, audiences) for run in found]))
    if not found:
        output.say("Nothing was settled in these hours.")


def _row(run: dict[str, Any], audiences: bool) -> tuple[object, ...]:
    rate = run.get("activation_rate")
    errors = ", ".join(f"{it['code']} ×{it['recordCount']}" for it in run.get("errors", []))
    return (
        f"{datetime.fromtimestamp(run['started_at'], UTC):%Y-%m-%dT%H:%MZ}",
        run.get("destination"),
        *((run.get("audience") or "(all)",) if audiences else ()),
        run.get("status"),
        f"{round(float(run.get('processing_seconds') or 0) / 60)} min",
        *(run.get(name, 0) for name in ("profiles_received", "identities_activated")),
        *(run.get(name, 0) for name in ("identities_excluded", "identities_failed")),
        None if rate is None else f"{100 * rate:.1f} %",
        errors,
    )
