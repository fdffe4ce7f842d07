"""A result as one page that needs nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from benchmarks import plots
from benchmarks.console import head
from benchmarks.result import Run
from benchmarks.tables import NOTHING, Table, tables

STYLE = Path(__file__).parent / "report.css"
TEXT_HEADERS = {"note", "reason", "what"}


def page(run: Run) -> str:
    parts = [
        f"<h1>rainfocus-engine: {TITLES[run.kind]}</h1>",
        *(f'<p class="dim">{escape(line)}</p>' for line in head(run) if line),
        *plots.all_of(run),
        *(_table(it) for it in tables(run)),
        f'<p class="dim">Settings: {escape(", ".join(f"{name} {it}" for name, it in run.settings.items()))}</p>',
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>rainfocus-engine: {TITLES[run.kind]}</title><style>{STYLE.read_text('utf-8')}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


TITLES = {"run": "benchmark", "compare": "comparison", "soak": "soak", "sizing": "sizing"}


def _table(table: Table) -> str:
    numeric = [_numeric(row[column] for row in table.rows) for column in range(len(table.headers))]
    headers = "".join(_cell("th", it, _kind(it, numeric[at])) for at, it in enumerate(table.headers))
    rows = "".join(f"<tr>{_row(row, table.headers, numeric)}</tr>" for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table><thead><tr>{headers}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(row: Sequence[str], headers: Sequence[str], numeric: Sequence[bool]) -> str:
    return "".join(_cell("td", it, _kind(headers[at], numeric[at])) for at, it in enumerate(row))


def _kind(header: str, numeric: bool) -> str:
    if header in TEXT_HEADERS:
        return "wide"
    return "number" if numeric else ""


def _cell(tag: str, text: str, kind: str) -> str:
    return f'<{tag} class="{kind}">{escape(text)}</{tag}>' if kind else f"<{tag}>{escape(text)}</{tag}>"


def _numeric(cells: Iterable[str]) -> bool:
    return all(it == NOTHING or it[:1].isdigit() or it[:2].lstrip("-")[:1].isdigit() for it in cells)
