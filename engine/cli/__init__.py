"""The command line: one file a command. Exit codes: 0 ok, 1 failure, 2 usage, 78 configuration, 130 interrupted."""

from __future__ import annotations


def main() -> None:
    """What `rainfocus-engine` and `python -m engine` run. Ends the process."""
    from engine.cli.app import app

    app(prog_name="rainfocus-engine")
