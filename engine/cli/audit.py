"""`audit`: do the sums add up."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from engine.cli import output
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Url
from engine.cli.reach import Target, reach

COLUMNS = ("accepted", "delivered", "suppressed", "superseded", "excluded", "dead_lettered", "expired", "pending")


def audit(
    config: ConfigPath = None, url: Url = None, key_env: KeyVariable = DEFAULT_KEY_VARIABLE, json: Json = False
) -> None:
    """Recompute from storage that every accepted event has an outcome or is pending, and that journal and state agree.

    Exit 1 when a residual is not zero, events are missing, or the two files contradict each other or themselves.

    Example:

        rainfocus-engine audit --json
    """
    report = asyncio.run(_audit(Target(config, url, key_env)))
    output.print_json(report) if json else _show(report)
    if not report.get("ok"):
        raise typer.Exit(1)


async def _audit(target: Target) -> dict[str, Any]:
    async with reach(target) as api:
        return await api.audit()


def audit_table(report: dict[str, Any]) -> Any:
    """The sums, a row a destination."""
    rows = [
        (name, *(sums.get(column, 0) for column in (*COLUMNS, "residual")))
        for name, sums in report.get("destinations", {}).items()
    ]
    headers = ("destination", *(it.replace("_", "-") for it in COLUMNS), "residual")
    return output.table(headers, rows)


def _show(report: dict[str, Any]) -> None:
    output.console().print(audit_table(report))
    for problem in report.get("problems", []):
        output.fail(problem)
    output.say(
        "ok: every accepted event is accounted for" if report.get("ok") else "NOT ok: every problem is named above"
    )
