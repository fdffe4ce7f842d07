"""`dead-letters`: list, show, replay, purge."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from engine.cli import output
from engine.cli.confirm import confirm
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Url, Yes
from engine.cli.reach import Api, Target, reach
from engine.cli.times import moment
from engine.errors import EngineError
from engine.model import HeldKind
from engine.ports import LetterFilter

commands = typer.Typer(no_args_is_help=True, help="See, replay and purge profiles that could not be delivered.")
PAGE = 500


class Class(StrEnum):
    """Why a profile became a dead letter: refused too often, or too old."""

    DEAD_LETTERED = "dead_lettered"
    EXPIRED = "expired"


Destination = Annotated[str | None, typer.Option("--destination", metavar="NAME", help="Only of this destination.")]
Kind = Annotated[Class | None, typer.Option("--class", help="Only of this class.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="Only with this reason, as http_400.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only from then on: ISO 8601 (UTC), or ago: 90m, 2h, 7d.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only before then, written like --since.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what matches.")]
Number = Annotated[int, typer.Argument(metavar="ID", help="Number of the dead letter, from `dead-letters list`.")]
Numbers = Annotated[list[int] | None, typer.Option("--id", metavar="ID", help="Only this one; may be repeated.")]


@commands.command("list")
def list_letters(
    destination: Destination = None,
    kind: Kind = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Show dead letters without the data of the person, oldest first.

    Example:

        rainfocus-engine dead-letters list --destination demo --since 2h
    """
    which = chosen(destination, kind, reason, since, until, None)
    answer = asyncio.run(_list(Target(config, url, key_env), which, limit))
    output.print_json(answer) if json else _show_list(answer)


@commands.command("show")
def show(
    id: Number,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Show one dead letter with its content: this prints the data of a person.

    Example:

        rainfocus-engine dead-letters show 17 --json
    """
    letter = asyncio.run(_show(Target(config, url, key_env), id))
    if json:
        output.print_json(letter)
        return
    for name, value in letter.items():
        shown = output.when(value) if name in ("at", "first_tried_at") else output.text(value)
        output.say(f"{name:<15} {shown}")


@commands.command("replay")
def replay(
    destination: Destination = None,
    kind: Kind = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    id: Numbers = None,
    dry_run: DryRun = False,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Hand dead letters in again, for their own destination. One that newer events have overtaken is not sent.

    Example:

        rainfocus-engine dead-letters replay --destination demo --reason http_400 --dry-run
    """
    which = chosen(destination, kind, reason, since, until, id)
    answer = asyncio.run(_replay(Target(config, url, key_env), which, dry_run))
    _show_count(answer, "replayed", dry_run, json)


@commands.command("purge")
def purge(
    destination: Destination = None,
    kind: Kind = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    id: Numbers = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Delete the content of dead letters for good.

    Asks first on a terminal; needs --yes where nobody can be asked.

    Example:

        rainfocus-engine dead-letters purge --until 30d --yes
    """
    which = chosen(destination, kind, reason, since, until, id)
    if not dry_run:
        confirm("Delete the content of all dead letters that match?", yes)
    answer = asyncio.run(_purge(Target(config, url, key_env), which, dry_run))
    _show_count(answer, "purged", dry_run, json)


def chosen(
    destination: str | None,
    kind: Class | None,
    reason: str | None,
    since: str | None,
    until: str | None,
    ids: list[int] | None,
) -> LetterFilter:
    """The options as a filter. Raises BadParameter for a time that is none."""
    return LetterFilter(
        consumer=destination,
        ids=tuple(ids) if ids else None,
        kind=HeldKind(kind.value) if kind else None,
        reason=reason,
        since=moment(since, "--since", time.time()),
        until=moment(until, "--until", time.time()),
    )


async def _list(target: Target, which: LetterFilter, limit: int) -> dict[str, Any]:
    """As many pages as `limit` takes."""
    async with reach(target) as api:
        letters, after, total = list[Any](), 0, 0
        while True:
            answer = await api.letters(which, min(PAGE, limit - len(letters)), after, False)
            letters += answer.get("letters", [])
            total, after = answer.get("total", len(letters)), answer.get("next") or 0
            if not after or len(letters) >= limit:
                return {"letters": letters, "next": after or None, "total": total}


async def _show(target: Target, id: int) -> dict[str, Any]:
    async with reach(target) as api:
        return await _letter(api, id)


async def _letter(api: Api, id: int) -> dict[str, Any]:
    answer = await api.letters(LetterFilter(ids=(id,), state=None), 1, 0, True)
    for letter in answer.get("letters", []):
        if letter.get("id") == id:
            return dict(letter)
    raise EngineError(f"there is no dead letter {id}")


async def _replay(target: Target, which: LetterFilter, dry_run: bool) -> dict[str, Any]:
    async with reach(target) as api:
        return await api.replay(which, dry_run)


async def _purge(target: Target, which: LetterFilter, dry_run: bool) -> dict[str, Any]:
    async with reach(target) as api:
        return await api.purge(which, dry_run)


def _show_list(answer: dict[str, Any]) -> None:
    headers = ("id", "destination", "class", "code", "reason", "attempts", "events", "at", "key", "answer")
    rows = [
        (
            *(str(it.get("id")), it.get("destination"), it.get("kind"), it.get("code"), it.get("reason")),
            *(it.get("attempts", 0), it.get("events", 0), output.when(it.get("at")), str(it.get("key"))[:12]),
            it.get("excerpt"),
        )
        for it in answer["letters"]
    ]
    output.console().print(output.table(headers, rows))
    output.say(f"{len(rows)} of {output.text(answer['total'])}")


def _show_count(answer: dict[str, Any], what: str, dry_run: bool, json: bool) -> None:
    if json:
        output.print_json(answer)
    elif dry_run:
        output.say(f"{output.text(answer.get('matched', 0))} match; nothing was done")
    else:
        output.say(f"{output.text(answer.get(what, 0))} {what}")
