"""`status`: how the engine is, or what became of one attendee."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from engine.cli import output
from engine.cli.destinations import destination_table
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Url
from engine.cli.person import read_key, read_person
from engine.cli.reach import Target, reach

MaybePerson = Annotated[
    str | None,
    typer.Argument(
        metavar="[EMAIL]",
        help="E-mail address, or the 64-digit key from a log; - reads it from stdin.",
        show_default=False,
    ),
]

Key = Annotated[str | None, typer.Option("--key", metavar="HEX", help="The key instead: 64 hexadecimal digits.")]


def status(
    email: MaybePerson = None,
    key: Key = None,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Show how the engine is; with EMAIL or --key, what became of that attendee at every destination.

    The address travels in the body of a request, never in a URL. It shows in the list of processes and in the shell's
    history, though: use - to hand it in on stdin.

    Example:

        rainfocus-engine status lea@example.com
    """
    target = Target(config, url, key_env)
    if email is not None and key is not None:
        raise typer.BadParameter("is one person and --key another; give one of them", param_hint="EMAIL")
    if email is None and key is None:
        answer = asyncio.run(_status(target))
        output.print_json(answer) if json else show_status(answer)
        return
    person = read_key(key) if key is not None else read_person(email or "")
    answer = asyncio.run(_lookup(target, person))
    output.print_json(answer) if json else _show_person(answer)


async def _status(target: Target) -> dict[str, Any]:
    async with reach(target) as api:
        return await api.status()


async def _lookup(target: Target, person: str) -> dict[str, Any]:
    async with reach(target) as api:
        return await api.lookup(person)


def show_status(answer: dict[str, Any]) -> None:
    """Engine, journal, accounts and destinations, for people."""
    for line in summary(answer):
        output.say(line)
    console = output.console()
    console.print(account_table(answer.get("accounts", [])))
    console.print(destination_table(answer.get("destinations", [])))


def summary(answer: dict[str, Any]) -> list[str]:
    """The engine in a few lines."""
    journal = answer.get("journal", {})
    ready = "ready" if answer.get("ready") else f"not ready: {', '.join(answer.get('reasons', [])) or 'unknown'}"
    recovering = ", recovering" if answer.get("recovering") else ""
    size, limit = _mebibytes(journal.get("bytes", 0)), _mebibytes(journal.get("max_bytes", 0))
    lines = [
        f"engine {answer.get('version', '')}: {ready}{recovering}",
        f"journal: {size} of {limit}, {_mebibytes(journal.get('disk_free_bytes', 0))} free on the disk, "
        f"next offset {output.text(journal.get('next', 0))}",
        f"settled per second: {output.text(float(answer.get('settled_per_second') or 0.0))}",
    ]
    lines += [f"alert {it.get('alert')}: {it.get('summary')}" for it in answer.get("alerts", [])]
    return lines + [f"note: {remark}" for remark in answer.get("notes", [])]


def account_table(accounts: list[dict[str, Any]]) -> Any:
    headers = ("account", "breaker", "in flight", "limit", "paused s", "token")
    rows = [
        (
            it.get("name"),
            it.get("breaker"),
            it.get("in_flight", 0),
            it.get("concurrency_limit"),
            float(it.get("paused_seconds") or 0.0),
            it.get("token_trouble") or "ok",
        )
        for it in accounts
    ]
    return output.table(headers, rows)


def _show_person(answer: dict[str, Any]) -> None:
    output.say(f"key {answer.get('key', '')}")
    for name, it in answer.get("destinations", {}).items():
        output.say(f"{name}: {it.get('summary', '')}")
    headers = ("destination", "state", "outcome", "code", "at", "attendee id", "pending", "dead letters")
    rows = [
        (
            name,
            it.get("state"),
            it.get("outcome"),
            it.get("code"),
            output.when(it.get("at")),
            it.get("attendee_id"),
            it.get("pending_events", 0),
            it.get("dead_letters", 0),
        )
        for name, it in answer.get("destinations", {}).items()
    ]
    output.console().print(output.table(headers, rows))
    for name, it in answer.get("destinations", {}).items():
        if said := it.get("consents"):
            output.say(f"{name}: consents {', '.join(f'{path} = {value}' for path, value in said.items())}")


def _mebibytes(size: Any) -> str:
    return f"{float(size or 0) / 2**20:,.1f} MiB"
