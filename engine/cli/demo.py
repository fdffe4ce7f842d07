"""`demo`: everything once, on this machine, with a proof at the end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.options import Json
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.cli.demo_run import Demo

HERE = Path(__file__).parent
SAMPLES = (HERE / "attendees.csv", HERE.parents[1] / "examples" / "attendees.csv")
LINE_EVERY = 8  # polls, where nobody watches a bar

File = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="CSV, JSON or NDJSON. Default: 3,000 invented people.")
]
Directory = Annotated[Path, typer.Option("--directory", metavar="PATH", help="Where it works; emptied first.")]
Rate = Annotated[float, typer.Option("--rate", min=1.0, max=5_000.0, metavar="N", help="Requests a second.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65_535, help="Of the engine; 0: any free one.")]
Faults = Annotated[bool, typer.Option("--faults/--no-faults", help="Let the sandbox fail now and then.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave engine and sandbox running until Ctrl-C.")]


def demo(
    file: File = None,
    directory: Directory = Path(".demo"),
    rate: Rate = 250.0,
    port: Port = 0,
    faults: Faults = True,
    keep: Keep = False,
    json: Json = False,
) -> None:
    """Start the RainFocus sandbox and an engine, stream a file of attendees through, and prove what became of it.

    Nothing leaves this machine: own folder, free ports, the sandbox as the only destination. The file has repeats,
    updates and bad rows; the sandbox answers some requests with 429, 503 or a reset. Exit 0 when every accepted event
    has its outcome and the sandbox holds exactly the fold of them.

    Example:

        rainfocus-engine demo --keep
    """
    chosen = file or next((sample for sample in SAMPLES if sample.exists()), None)
    if chosen is None:
        raise EngineError("the sample file is not installed: name a CSV, JSON or NDJSON file of your own")
    if not chosen.exists():
        raise EngineError(f"{chosen}: no such file")
    report = asyncio.run(_demo(chosen, directory, rate, port, faults, keep, json))
    if not report["ok"]:
        raise typer.Exit(1)


async def _demo(
    file: Path, directory: Path, rate: float, port: int, faults: bool, keep: bool, json: bool
) -> dict[str, Any]:
    from engine.cli.demo_run import prepare, proof, running, send

    prepare(directory)
    async with running(directory, rate, port, faults) as demo:
        _introduce(demo, file)
        sent = await send(demo, file)
        if not json:
            _show_sent(sent)
        await _watch(demo)
        shown = await proof(demo, file)
        report = {**shown, "sent": sent, "ok": shown["audit"]["ok"] and _well(shown)}
        output.print_json(report) if json else _show_proof(report)
        if keep:
            await _until_interrupted()
    return report


def _well(shown: dict[str, Any]) -> bool:
    return not shown["wrong"] and not shown["stats"]["regressions"]


def _over(shown: dict[str, Any]) -> int:
    return sum(window["over"] for window in shown["rate"]["windows"])


def _introduce(demo: Demo, file: Path) -> None:
    output.note(f"sandbox    {demo.urls['sandbox']}   (the stand-in for RainFocus: attendees, API log, faults)")
    output.note(f"engine     {demo.urls['admin']}   (dashboard, API, metrics)")
    output.note(f"folder     {demo.directory}   (configuration, journal, state, logs)")
    output.note(f"streaming  {file} at {demo.rate:g} requests/s …")


def _show_sent(sent: dict[str, Any]) -> None:
    from engine.cli.send_show import show_summary

    output.say("\nWhat the ingress said")
    show_summary(sent)


async def _watch(demo: Demo) -> None:
    from engine.cli.demo_run import deliveries

    await (_bar(deliveries(demo)) if sys.stderr.isatty() else _lines(deliveries(demo)))


async def _bar(states: AsyncIterator[dict[str, Any]]) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    texts = [TextColumn(f"{{task.{it}}}", markup=False) for it in ("description", "fields[done]")]
    columns = (texts[0], BarColumn(), texts[1], TimeRemainingColumn())
    with Progress(*columns, console=output.console(sys.stderr)) as progress:
        task = progress.add_task("outcomes", total=None, done="")
        async for state in states:
            done, accepted = _progress(state)
            progress.update(task, total=accepted, completed=done, done=f"{done:,} of {accepted:,} events")


async def _lines(states: AsyncIterator[dict[str, Any]]) -> None:
    count = 0
    async for state in states:
        if count % LINE_EVERY == 0:
            done, accepted = _progress(state)
            output.note(f"outcomes: {done:,} of {accepted:,} events")
        count += 1


def _progress(state: dict[str, Any]) -> tuple[int, int]:
    counts = state["counts"]
    return counts["accepted"] - counts["pending"], counts["accepted"]


def _show_proof(report: dict[str, Any]) -> None:
    from engine.cli.audit import audit_table

    stats, rate = report["stats"], report["rate"]
    output.say("\nWhat became of every accepted event")
    output.console().print(audit_table(report["audit"]))
    rows = [
        ("attendees in the sandbox", report["attendees"]),
        ("… that hold exactly the fold of their events", report["same"]),
        ("older state written over a newer one", stats["regressions"]),
        ("requests", stats["store_requests"]),
        ("… that met a fault (503, 429, or cut off after the write)", sum(stats["by_fault"].values())),
        ("windows over the rate limit", _over(report)),
        ("highest rate in 1 s (limit plus burst: " + f"{rate['rate'] + rate['burst']:g})", _highest(rate)),
    ]
    output.say("\nWhat the sandbox saw")
    output.console().print(output.table(("", "count"), rows))
    for problem in [*report["audit"].get("problems", []), *report["wrong"]]:
        output.fail(problem)
    if report["ok"]:
        output.say("ok: every event has its outcome, and the sandbox holds exactly the folded state")


def _highest(rate: dict[str, Any]) -> int:
    return int(max((window["max"] for window in rate["windows"] if window["seconds"] == 1.0), default=0))


async def _until_interrupted() -> None:
    output.note("running until Ctrl-C …")
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    await done.wait()
