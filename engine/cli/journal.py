"""`journal check`: are the files of a stopped engine whole, and what can be saved of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli import output
from engine.cli.options import ConfigPath, Json
from engine.config import Config, locate

commands = typer.Typer(no_args_is_help=True, help="Check the files of a stopped engine.")

Salvage = Annotated[
    Path | None,
    typer.Option("--salvage", metavar="DIR", help="Write what is whole into this empty folder, as a data directory."),
]


@commands.callback()
def root() -> None:
    """Check the files of a stopped engine."""


@commands.command("check")
def check(config: ConfigPath = None, salvage: Salvage = None, json: Json = False) -> None:
    """Read every row of journal and state and say what is damaged. Changes nothing.

    Exit 1 when damage is found, or when an engine runs on the files. With --salvage every whole row is copied to a new
    data directory; offsets that are lost stay taken, and end excluded with the reason 'lost'. The rows are kept in
    memory meanwhile.

    Example:

        rainfocus-engine journal check --salvage /var/lib/rainfocus-engine-saved
    """
    from engine.assembly.inspection import check_journal

    report = check_journal(Config.load(locate(config)), salvage)
    output.print_json(report) if json else _show(report)
    if not report["ok"]:
        raise typer.Exit(1)


def _show(report: dict[str, Any]) -> None:
    journal = report["journal"]
    output.say(
        f"journal: offsets from {journal['first']} up to {journal['next']}; {output.text(journal['events'])} events in "
        f"{output.text(journal['appends'])} appends are whole"
    )
    if journal["discarded_frames"]:
        output.say(
            f"{journal['discarded_frames']} frames of the last commit before a crash are not whole and will be "
            "discarded: it was not acknowledged, unless they were damaged afterwards"
        )
    for problem in report["problems"]:
        output.fail(problem)
    if "salvaged" in report:
        saved = report["salvaged"]
        output.say(f"saved to {saved['directory']}: {', '.join(saved['files'])}; make it the data_dir of the engine")
    elif report["advice"]:
        output.note(f"what to do: {report['advice']}")
    output.say("ok: nothing is damaged" if report["ok"] else f"NOT ok: {journal['lost_events']} events are lost")
