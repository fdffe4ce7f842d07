"""`export`: what became of everybody, as NDJSON or CSV."""

from __future__ import annotations

import asyncio
import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, KeyVariable, Url
from engine.cli.reach import Target, reach
from engine.cli.runs import OneDestination
from engine.cli.times import moment
from engine.history import OutcomeFilter
from engine.model import Outcome


class Format(StrEnum):
    """How rows are written."""

    NDJSON = "ndjson"
    CSV = "csv"


Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only from then on: ISO 8601 (UTC), or ago: 90m, 2h, 7d.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only before then, written like --since.")]
WhichOutcome = Annotated[Outcome | None, typer.Option("--outcome", help="Only what ended so.")]
Written = Annotated[Format, typer.Option("--format", help="NDJSON, or CSV with a head.")]
Json = Annotated[bool, typer.Option("--json", help="The same as --format ndjson.")]


def export(
    since: Since = None,
    until: Until = None,
    destination: OneDestination = None,
    outcome: WhichOutcome = None,
    format: Written = Format.NDJSON,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Write the last outcome of every attendee at every destination, then the dead letters, to stdout.

    Attendees are named by key, the SHA-256 of the address. It is the last outcome that is known, not every event.

    Example:

        rainfocus-engine export --since 24h --format csv > outcomes.csv
    """
    which = OutcomeFilter(
        consumer=destination or "",
        outcome=str(outcome.value) if outcome else None,
        since=moment(since, "--since", time.time()),
        until=moment(until, "--until", time.time()),
    )
    asyncio.run(_export(Target(config, url, key_env), which, Format.NDJSON if json else format))


async def _export(target: Target, which: OutcomeFilter, format: Format) -> None:
    async with reach(target) as api:
        async for data in api.export(which, format.value):
            sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
