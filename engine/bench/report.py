"""A report as tables for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from engine.bench.results import Cell, Latency, Peer, Quantiles, Report
from engine.bench.targets import Target, targets

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

NOTHING = "-"
WIDTH_IN_A_PIPE = 160
LEDGER = {True: "on", False: "off", None: NOTHING}
MARKS = {True: "✔", False: "✘", None: NOTHING}


def console() -> Console:
    """On stdout; in a pipe wide enough for whole rows."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH_IN_A_PIPE)


def show(report: Report, console: Console) -> None:
    for part in rendered(report):
        console.print(part)


def rendered(report: Report) -> Iterable[RenderableType]:
    """The parts of a report, in the order they are read."""
    yield report.machine.line()
    yield f"rainfocus-engine {report.version} · {report.at} · took {report.seconds:.0f} s"
    yield cell_table(report)
    yield latency_table(report.cells)
    if report.peers:
        yield peer_table(report)
    yield _floor_table(report)
    yield target_table(targets(report))


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


def cell_table(report: Report) -> Table:
    headers = (
        *("encoding", "ledger", "n", "events/s", "CPU us/event", "x bare POST"),
        *("ack p50 ms", "ack p99 ms", "peak MiB", "refused", "failed"),
    )
    return plain_table("Closed loop: as fast as it goes", headers, [_cell_row(it, report) for it in report.cells])


def _cell_row(cell: Cell, report: Report) -> Sequence[str]:
    bare = report.floors.bare_post_us
    ratio = cell.cpu_us_per_event / bare if bare and cell.cpu_us_per_event is not None else None
    return (
        cell.encoding,
        LEDGER[cell.ledger],
        str(cell.events_per_request),
        _number(cell.events_per_second, 0),
        _number(cell.cpu_us_per_event, 1),
        _number(ratio, 2) if cell.encoding == "single" else NOTHING,
        *_quantiles(cell.ack),
        _number(cell.peak_memory_bytes / 2**20, 0) if cell.peak_memory_bytes else NOTHING,
        str(cell.refused),
        str(cell.failed),
    )


def latency_table(cells: Iterable[Cell]) -> Table:
    headers = (
        *("encoding", "ledger", "n", "load", "events/s", "ack p50 ms", "ack p99 ms"),
        *("delivered p50 ms", "delivered p99 ms", "late"),
    )
    rows = [_latency_row(cell, latency) for cell in cells for latency in cell.latencies]
    return plain_table("Open loop: from the moment a request was due", headers, rows)


def _latency_row(cell: Cell, latency: Latency) -> Sequence[str]:
    delivered = _quantiles(latency.delivered) if latency.delivered else (NOTHING, NOTHING)
    return (
        cell.encoding,
        LEDGER[cell.ledger],
        str(cell.events_per_request),
        latency.load,
        _number(latency.events_per_second, 0),
        *_quantiles(latency.ack),
        *delivered,
        str(latency.late),
    )


def peer_table(report: Report) -> Table:
    headers = ("peer", "n", "events/s", "CPU us/event", "engine CPU us/event", "peer / engine")
    return plain_table("Peers, in the same run", headers, [_peer_row(it, report) for it in report.peers])


def _peer_row(peer: Peer, report: Report) -> Sequence[str]:
    cell = report.cell("array", False, peer.events_per_request) or report.cell("array", True, peer.events_per_request)
    engine = cell.cpu_us_per_event if cell else None
    ratio = peer.cpu_us_per_event / engine if engine and peer.cpu_us_per_event is not None else None
    return (
        peer.name,
        str(peer.events_per_request),
        _number(peer.events_per_second, 0),
        _number(peer.cpu_us_per_event, 1),
        _number(engine, 1),
        _number(ratio, 1),
    )


def _floor_table(report: Report) -> Table:
    floors = report.floors
    rows = [
        ("fdatasync of 4 KiB appended", *_spread(floors.fdatasync)),
        ("one bare POST at a time", *_spread(floors.round_trip)),
        ("tuned aiohttp POST, CPU", f"{_number(floors.bare_post_us, 1)} us", NOTHING),
        ("raw socket POST, CPU", f"{_number(floors.raw_post_us, 1)} us", NOTHING),
    ]
    return plain_table("Floors, in the same run", ("floor", "p50", "p99"), rows)


def target_table(found: Iterable[Target]) -> Table:
    rows = [
        (MARKS[it.met], it.kind, it.what, f"<= {_number(it.limit, 2)} {it.unit}", f"{_number(it.found, 2)} {it.unit}")
        for it in found
    ]
    return plain_table(
        "Targets (this machine, this run; for information)", ("", "kind", "what", "limit", "found"), rows
    )


def _spread(quantiles: Quantiles | None) -> tuple[str, str]:
    if quantiles is None:
        return NOTHING, NOTHING
    p50, p99 = _quantiles(quantiles)
    return f"{p50} ms", f"{p99} ms"


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
