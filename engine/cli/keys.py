"""`keys new`: make an API key."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import output
from engine.cli.options import Json

commands = typer.Typer(no_args_is_help=True, help="Make API keys for producers and operators.")


@commands.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Stands in logs and metrics instead of the key.")],
    json: Json = False,
) -> None:
    """Make an API key: prints the block for config.toml and, once, the key.

    The configuration holds only its SHA-256; the key itself cannot be shown again.
    The block goes to config.toml (then reload with SIGHUP), the key to whoever sends events.

    Example:

        rainfocus-engine keys new aep
    """
    _check_name(name)
    from engine.adapters.api_keys import new_key

    secret, block = new_key(name)
    if json:
        output.print_json({"name": name, "key": secret, "toml": block})
        return
    output.say(block.rstrip() + "\n")
    output.say(f"key: {secret}")
    output.note("Keep the key now: it cannot be shown again. Send it as 'Authorization: Bearer KEY'.")


def _check_name(name: str) -> None:
    import msgspec

    from engine.config import NAME, Name

    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise typer.BadParameter(f"must be {NAME}", param_hint="NAME") from None
