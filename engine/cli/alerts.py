"""`alerts`: what is raised, and whether those who are to be told can be reached."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from engine.cli import output
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Url
from engine.cli.reach import Target, reach
from engine.errors import EngineError

commands = typer.Typer(no_args_is_help=True, help="See alerts of a running engine, and test who is told of them.")

TargetName = Annotated[
    str | None,
    typer.Argument(metavar="[TARGET]", help="Name of a [[notify]]; without it all of them.", show_default=False),
]


@commands.command("list")
def list_alerts(
    config: ConfigPath = None, url: Url = None, key_env: KeyVariable = DEFAULT_KEY_VARIABLE, json: Json = False
) -> None:
    """Show every alert of a running engine, what is raised first, and who is told.

    Example:

        rainfocus-engine alerts list
    """
    answer = asyncio.run(_alerts(Target(config, url, key_env)))
    output.print_json(answer) if json else _show(answer)


@commands.command("test")
def try_targets(
    target: TargetName = None,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Tell a target, or all of them, that this is a test. The running engine does it, once, without retries.

    Exit 1 when one could not be told.

    Example:

        rainfocus-engine alerts test oncall
    """
    results = asyncio.run(_test(Target(config, url, key_env), target))
    output.print_json({"results": results}) if json else _show_results(results)
    if not all(it.get("ok") for it in results):
        raise typer.Exit(1)


async def _alerts(target: Target) -> dict[str, Any]:
    async with reach(target, files=False) as api:
        return await api.alerts()


async def _test(target: Target, name: str | None) -> list[dict[str, Any]]:
    async with reach(target, files=False) as api:
        known = [str(it["name"]) for it in (await api.alerts()).get("targets", [])]
        if name is not None and name not in known:
            raise EngineError(f"there is no [[notify]] named {name!r}; there are {', '.join(known) or 'none'}")
        if not known:
            raise EngineError("nobody is told of alerts: the configuration has no [[notify]]")
        return [await api.test_notification(it) for it in ([name] if name is not None else known)]


def _show(answer: dict[str, Any]) -> None:
    alerts = answer.get("alerts", [])
    rows = [
        (
            it.get("alert"),
            it.get("destination"),
            it.get("state"),
            output.when(it.get("since")),
            _figure(it, "figure"),
            _figure(it, "threshold"),
            ", ".join(it.get("to", [])),
        )
        for it in alerts
    ]
    console = output.console()
    headers = ("alert", "destination", "state", "since", "figure", "threshold", "to")
    console.print(output.table(headers, rows))
    for it in alerts:
        if it.get("state") == "raised":
            output.say(f"raised: {it.get('summary')}; what to do: {it.get('advice')} ({it.get('page')})")
    targets = [
        (
            *(it.get(name) for name in ("name", "kind", "where", "waiting", "last_result")),
            output.when(it.get("last_at")),
        )
        for it in answer.get("targets", [])
    ]
    console.print(output.table(("notify", "kind", "where", "waiting", "last result", "at"), targets))


def _figure(alert: dict[str, Any], name: str) -> str:
    from engine.core.alert_texts import amount

    return amount(float(alert.get(name) or 0.0), str(alert.get("unit"))) if alert.get("unit") else output.EMPTY


def _show_results(results: list[dict[str, Any]]) -> None:
    for it in results:
        mark = "ok" if it.get("ok") else "FAILED"
        output.say(f"{mark:<6} {it.get('target')}: {it.get('result')} ({float(it.get('seconds') or 0.0):.3f} s)")
