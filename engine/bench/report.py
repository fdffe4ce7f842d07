"""Tables for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from engine.bench.results import Cell, Quantiles

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NOTHING = "-"
WIDTH_IN_A_PIPE = 160


def console() -> Console:
    """On stdout; in a pipe wide enough for whole rows."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH_IN_A_PIPE)


def running_tables(cells: Sequence[Cell]) -> Iterable[Table]:
    """What a bench of a running engine found, one row a destination."""
    headers = (
        *("destination", "n", "events", "delivered/s", "refused", "failed", "accepted/s"),
        *("ack p50 ms", "ack p99 ms", "delivered p50 ms", "delivered p99 ms"),
    )
    yield plain_table("Load on a running engine", headers, [_running_row(cell) for cell in cells])


def _running_row(cell: Cell) -> Sequence[str]:
    latency = cell.latencies[0]
    return (
        cell.encoding,
        str(cell.events_per_request),
        f"{cell.events:,}",
        _number(cell.events_per_second, 0),
        str(cell.refused),
        str(cell.failed),
        _number(latency.events_per_second, 0),
        *_quantiles(latency.ack),
        *(_quantiles(latency.delivered) if latency.delivered else (NOTHING, NOTHING)),
    )


def _quantiles(quantiles: Quantiles) -> tuple[str, str]:
    return _number(quantiles.p50, 2), _number(quantiles.p99, 2)


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def plain_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    shown = [list(row) for row in rows]
    for index, header in enumerate(headers):
        numeric = bool(shown) and all(_is_number(row[index]) for row in shown)
        table.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        table.add_row(*row)
    return table


def _is_number(cell: str) -> bool:
    return cell == NOTHING or cell.replace(",", "").replace(".", "", 1).isdigit()
