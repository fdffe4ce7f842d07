"""`keys new`: make an API key, or an OAuth client."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import output
from engine.cli.options import Json

commands = typer.Typer(no_args_is_help=True, help="Make API keys and OAuth clients for producers and operators.")


Client = Annotated[bool, typer.Option("--client", help="Make an OAuth client: an id and a secret, for tokens.")]


@commands.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Stands in logs and metrics instead of the key.")],
    client: Client = False,
    json: Json = False,
) -> None:
    """Make an API key: prints the block for config.toml and, once, the key.

    The configuration holds only its SHA-256; the key itself cannot be shown again.
    The block goes to config.toml (then reload with SIGHUP), the key to whoever sends events.
    With --client it makes a client id and secret instead, which are exchanged for tokens at POST /oauth/token: what
    Adobe Experience Platform calls OAuth 2 client credentials.

    Example:

        rainfocus-engine keys new aep --client
    """
    _check_name(name)
    if client:
        _new_client(name, json)
        return
    from engine.adapters.api_keys import new_key

    secret, block = new_key(name)
    if json:
        output.print_json({"name": name, "key": secret, "toml": block})
        return
    output.say(block.rstrip() + "\n")
    output.say(f"key: {secret}")
    output.note("Keep the key now: it cannot be shown again. Send it as 'Authorization: Bearer KEY'.")


def _new_client(name: str, json: bool) -> None:
    from engine.adapters.api_keys import new_client

    secret, block = new_client(name)
    if json:
        output.print_json({"name": name, "client_id": name, "client_secret": secret, "toml": block})
        return
    output.say(block.rstrip() + "\n")
    output.say(f"client id:     {name}")
    output.say(f"client secret: {secret}")
    output.note(
        "Keep the secret now: it cannot be shown again. The access token URL is the engine's, with /oauth/token."
    )


def _check_name(name: str) -> None:
    import msgspec

    from engine.config import NAME, Name

    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise typer.BadParameter(f"must be {NAME}", param_hint="NAME") from None
