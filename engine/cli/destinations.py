"""`destinations`: list, test, pause, resume, remove, rename."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.confirm import confirm
from engine.cli.options import (
    DEFAULT_KEY_VARIABLE,
    ConfigPath,
    DestinationName,
    Json,
    KeyVariable,
    StoreEmail,
    Url,
    Yes,
)
from engine.cli.reach import Target, reach

if TYPE_CHECKING:
    from engine.assembly.offline import Removed

commands = typer.Typer(no_args_is_help=True, help="See, test, pause, resume, remove and rename destinations.")


@commands.command("list")
def list_destinations(
    config: ConfigPath = None, url: Url = None, key_env: KeyVariable = DEFAULT_KEY_VARIABLE, json: Json = False
) -> None:
    """Show every destination: where it goes, its state, its counts.

    Example:

        rainfocus-engine destinations list
    """
    found = asyncio.run(_list(Target(config, url, key_env)))
    output.print_json({"destinations": found}) if json else output.console().print(destination_table(found))


@commands.command("test")
def try_destination(
    name: DestinationName,
    store: StoreEmail = None,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Resolve, connect and fetch a token; with --store also write that attendee.

    Exit 1 when a step fails. A running engine pays for it from the destination's rate limit.

    Example:

        rainfocus-engine destinations test demo
    """
    from engine.cli.check import show_steps

    result = asyncio.run(_test(Target(config, url, key_env), name, store))
    output.print_json(result) if json else show_steps(name, result)
    if not result.get("ok"):
        raise typer.Exit(1)


@commands.command("pause")
def pause(
    name: DestinationName,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Send nothing to a destination until it is resumed; its events are kept. Survives a restart.

    Example:

        rainfocus-engine destinations pause demo
    """
    _set_paused(Target(config, url, key_env), name, True, json)


@commands.command("resume")
def resume(
    name: DestinationName,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Send to a paused destination again.

    Example:

        rainfocus-engine destinations resume demo
    """
    _set_paused(Target(config, url, key_env), name, False, json)


@commands.command("remove")
def remove(name: DestinationName, yes: Yes = False, config: ConfigPath = None, json: Json = False) -> None:
    """Expire the backlog of a destination that has left the configuration.

    Works on the files of a stopped engine. What was pending there expires and is counted; its ledger goes, and its
    dead letters stay until they are purged or too old.

    Example:

        rainfocus-engine destinations remove demo --yes
    """
    confirm(f"Expire the backlog of {name!r} and delete its ledger?", yes)
    removed = asyncio.run(_remove(Target(config, None, ""), name))
    if json:
        output.print_json({"removed": name, "expired": removed.expired, "dead_letters": removed.letters})
    else:
        output.say(f"{name}: removed; {removed.expired} pending events expired, {removed.letters} dead letters stay")


@commands.command("rename")
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The name it had.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name it has in the configuration now.")],
    config: ConfigPath = None,
    json: Json = False,
) -> None:
    """Move backlog, ledger and counts of a destination to its new name.

    Works on the files of a stopped engine; change the name in the configuration as well.

    Example:

        rainfocus-engine destinations rename demo demo-2027
    """
    asyncio.run(_rename(Target(config, None, ""), old, new))
    output.print_json({"renamed": old, "to": new}) if json else output.say(f"{old}: renamed to {new}")


def destination_table(found: list[dict[str, Any]]) -> Any:
    """Name, state and counts of destinations, as `list`, `status` and `top` show them."""
    headers = ("destination", "state", "delivered", "pending", "held", "dead letters", "oldest s", "url")
    rows = [
        (
            it.get("name"),
            _state(it),
            it.get("counts", {}).get("delivered", 0),
            it.get("counts", {}).get("pending", 0),
            it.get("held", 0),
            it.get("dead_letters", 0),
            float(it.get("oldest_pending_seconds") or 0.0),
            it.get("url"),
        )
        for it in found
    ]
    return output.table(headers, rows)


def _state(destination: dict[str, Any]) -> str:
    reason = destination.get("reason")
    return f"{destination.get('state')} ({reason})" if reason else str(destination.get("state"))


def _set_paused(target: Target, name: str, paused: bool, json: bool) -> None:
    asyncio.run(_switch(target, name, paused))
    state = "paused" if paused else "active"
    output.print_json({"name": name, "paused": paused}) if json else output.say(f"{name}: {state}")


async def _list(target: Target) -> list[dict[str, Any]]:
    async with reach(target) as api:
        return await api.destinations()


async def _test(target: Target, name: str, store_email: str | None) -> dict[str, Any]:
    if store_email:
        output.note(f"Writing the attendee you named to {name}.")
    async with reach(target) as api:
        return await api.test_destination(name, store_email)


async def _switch(target: Target, name: str, paused: bool) -> None:
    async with reach(target) as api:
        await (api.pause(name) if paused else api.resume(name))


async def _remove(target: Target, name: str) -> Removed:
    from engine.assembly.offline import remove_destination

    return await remove_destination(target.config(), name)


async def _rename(target: Target, old: str, new: str) -> None:
    from engine.assembly.offline import rename_destination

    await rename_destination(target.config(), old, new)
