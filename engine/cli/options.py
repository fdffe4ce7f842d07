"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_KEY_VARIABLE = "RAINFOCUS_ENGINE_KEY"


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("rainfocus-engine"))
        except PackageNotFoundError:
            typer.echo("not installed")
        raise typer.Exit


Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks. Also: RAINFOCUS_ENGINE_DEBUG=1.")]
Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)]
ConfigPath = Annotated[
    str | None,
    typer.Option("--config", metavar="PATH", help="Default: $RAINFOCUS_ENGINE_CONFIG, else ./config.toml."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=64,
        metavar="N",
        help="Processes that take events in. Default: ingress.workers; 1: this process alone.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="A running engine. Default: where the configuration says; none there: the files."
    ),
]
KeyVariable = Annotated[
    str, typer.Option("--key-env", metavar="NAME", help="Environment variable that holds the API key.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Person = Annotated[
    str, typer.Argument(metavar="EMAIL", help="E-mail address, or the 64-digit key from a log; - reads it from stdin.")
]
StoreEmail = Annotated[
    str | None,
    typer.Option("--store", metavar="EMAIL", help="Also WRITE this attendee to RainFocus, to prove the whole way."),
]
DestinationName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a destination.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; made if it is missing.")]
