"""Asking before something is destroyed."""

from __future__ import annotations

import sys

import typer


def confirm(question: str, yes: bool) -> None:
    """Returns when the answer is yes. In a pipe nobody can answer, so there --yes is required (usage error)."""
    if yes:
        return
    if not _somebody_is_there():
        raise typer.BadParameter("is required where nobody can be asked", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()
