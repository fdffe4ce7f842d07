"""A result on a terminal."""

from __future__ import annotations

from benchmarks.result import Run
from benchmarks.tables import tables
from engine.bench.report import console, plain_table


def head(run: Run) -> list[str]:
    versions = " · ".join(f"{name} {version}" for name, version in run.versions.items())
    return [
        run.machine.line(),
        f"rainfocus-engine {run.version} ({run.commit or 'no checkout'}) · {run.at} · took {run.seconds:.0f} s",
        versions,
        str(run.settings.get("cores", "")),
    ]


def show(run: Run) -> None:
    screen = console()
    for line in head(run):
        screen.print(line)
    for table in tables(run):
        screen.print(plain_table(table.title, table.headers, table.rows))
