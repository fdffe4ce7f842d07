"""What commands print: data on stdout, everything else on stderr. No colours in a pipe or under NO_COLOR."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_IN_A_PIPE = 200
EMPTY = "-"


def console(file: TextIO | None = None) -> Console:
    """Text of others is never read as markup. In a pipe lines are wide, so that `grep` finds whole rows."""
    from rich.console import Console

    stream = file or sys.stdout
    width = None if stream.isatty() else WIDTH_IN_A_PIPE
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)


def print_json(value: object, *, lines: bool = False) -> None:
    """`lines`: on one line, for streams of objects."""
    import orjson

    option = orjson.OPT_APPEND_NEWLINE | (0 if lines else orjson.OPT_INDENT_2)
    sys.stdout.write(orjson.dumps(value, default=str, option=option).decode())
    sys.stdout.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table with numbers to the right. `headers` decide how many columns there are."""
    from rich import box
    from rich.table import Table

    shown = [[text(cell) for cell in row] for row in rows]
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for index, header in enumerate(headers):
        numbers = bool(shown) and all(_numeric(row[index]) for row in shown)
        result.add_column(header, justify="right" if numbers else "left", overflow="fold")
    for row in shown:
        result.add_row(*row)
    return result


def _numeric(cell: str) -> bool:
    return cell == EMPTY or cell.removesuffix("s").replace(",", "").replace(".", "", 1).isdigit()


def text(value: Any) -> str:
    """A value as people read it: thousands apart, nothing for None."""
    if value is None or value == "":
        return EMPTY
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return printable(str(value)).replace("\n", "?")


def printable(text: str) -> str:
    """Without what could steer a terminal: it may come from a file or from another machine."""
    return "".join(it if it.isprintable() or it == "\n" else "?" for it in text)


def when(epoch_seconds: Any) -> str:
    """Epoch seconds as ISO 8601 in UTC."""
    if not epoch_seconds:
        return EMPTY
    return datetime.fromtimestamp(float(epoch_seconds), UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def say(message: str) -> None:
    print(printable(message))


def note(message: str) -> None:
    """Something beside the data: to stderr, so that a pipe stays clean."""
    print(printable(message), file=sys.stderr, flush=True)


def fail(message: str) -> None:
    note(f"error: {message}")
