"""The tree of commands, and how every failure ends: one clear sentence on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from engine.cli import (
    alerts,
    audit,
    backup,
    bench,
    check,
    dead_letters,
    demo,
    destinations,
    export,
    forget,
    journal,
    keys,
    output,
    runs,
    sandbox,
    send,
    serve,
    status,
    top,
)
from engine.cli.options import Debug, Version
from engine.errors import ConfigError, EngineError

OK, FAILURE, CONFIG, INTERRUPTED = 0, 1, 78, 130
DEBUG_VARIABLE = "RAINFOCUS_ENGINE_DEBUG"


class Commands(TyperGroup):
    """Turns what a command raises into a sentence and an exit code; a traceback only with --debug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(OK) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except (Exception, BaseExceptionGroup) as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise  # its own ways of leaving: usage errors, Exit, Abort
            raise typer.Exit(_report(single(error))) from None
        return result


def single(error: BaseException) -> BaseException:
    """The first exception inside a group: one sentence is worth more than a tree."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _sentences(error: BaseException) -> list[str]:
    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, EngineError):
        return [str(error)]
    if isinstance(error, OSError) and error.strerror:
        return [f"{error.filename}: {error.strerror}" if error.filename else error.strerror]
    # Nobody foresaw this one. Its text may hold anything, a person's data too, so only its kind is shown.
    return [f"unexpected {type(error).__name__}; `rainfocus-engine --debug COMMAND` shows where"]


def _report(error: BaseException) -> int:
    """Say it on stderr and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if debugging():
        traceback.print_exception(error, file=sys.stderr)
    for sentence in _sentences(error):
        output.fail(sentence)
    return CONFIG if isinstance(error, ConfigError) else FAILURE


def debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _forget_stdout() -> None:
    """Nobody reads any more. Without this the interpreter complains again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.callback()
def root(debug: Debug = False, version: Version = False) -> None:
    """Keeps RainFocus attendee profiles up to date from a stream of profile events.

    Every command takes --config PATH, else $RAINFOCUS_ENGINE_CONFIG, else ./config.toml.
    Exit codes: 0 ok, 1 failure, 2 usage, 78 configuration, 130 interrupted.

    Example:

        rainfocus-engine check && rainfocus-engine serve
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


RUN, SEE, CHANGE = "Run", "See", "Change"
app.command("demo", rich_help_panel=RUN)(demo.demo)
app.command("serve", rich_help_panel=RUN)(serve.serve)
app.command("check", rich_help_panel=RUN)(check.check)
app.command("sandbox", rich_help_panel=RUN)(sandbox.sandbox)
app.command("send", rich_help_panel=RUN)(send.send)
app.command("bench", rich_help_panel=RUN)(bench.bench)
app.command("status", rich_help_panel=SEE)(status.status)
app.command("top", rich_help_panel=SEE)(top.top)
app.command("runs", rich_help_panel=SEE)(runs.runs)
app.command("export", rich_help_panel=SEE)(export.export)
app.command("audit", rich_help_panel=SEE)(audit.audit)
app.add_typer(alerts.commands, name="alerts", rich_help_panel=SEE)
app.add_typer(journal.commands, name="journal", rich_help_panel=SEE)
app.add_typer(destinations.commands, name="destinations", rich_help_panel=CHANGE)
app.add_typer(dead_letters.commands, name="dead-letters", rich_help_panel=CHANGE)
app.add_typer(keys.commands, name="keys", rich_help_panel=CHANGE)
app.command("forget", rich_help_panel=CHANGE)(forget.forget)
app.command("backup", rich_help_panel=CHANGE)(backup.backup)
