"""Rows of an export: last outcomes and dead letters, as NDJSON or CSV. Keys are hexadecimal, never an address. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from engine.core.codes import code_of
from engine.model import Held, LedgerEntry

COLUMNS = (
    *("record", "destination", "key", "outcome", "reason", "code", "at", "attendee_id"),
    *("letter", "letter_state", "attempts", "events"),
)
FORMATS = {"ndjson": "application/x-ndjson", "csv": "text/csv"}

Row = dict[str, object]


def row_of_entry(destination: str, entry: LedgerEntry) -> Row:
    """The last outcome of one key at one destination."""
    return _row(
        record="last_outcome",
        destination=destination,
        key=entry.key.hex(),
        outcome=entry.outcome,
        reason=entry.reason,
        at=entry.at,
        attendee_id=entry.attendee_id or None,
    )


def row_of_letter(destination: str, held: Held) -> Row:
    """A dead letter, whatever happened to the key since."""
    return _row(
        record="dead_letter",
        destination=destination,
        key=held.profile.key.hex(),
        outcome=str(held.kind),
        reason=held.reason,
        at=held.at,
        letter=held.id,
        letter_state=str(held.state),
        attempts=held.profile.tries,
        events=held.profile.events,
    )


def _row(**values: object) -> Row:
    reason = str(values["reason"]) or None
    return dict.fromkeys(COLUMNS) | values | {"reason": reason, "code": code_of(reason)}


def head(format: str) -> str:
    """What comes before the first row."""
    return _line(COLUMNS) if format == "csv" else ""


def text(rows: Iterable[Mapping[str, object]], format: str) -> str:
    """Rows as lines. In NDJSON `at` is epoch seconds as everywhere in the API, in CSV ISO 8601 in UTC."""
    if format != "csv":
        return "".join(msgspec.json.encode(row).decode() + "\n" for row in rows)
    return "".join(_line([_cell(name, row[name]) for name in COLUMNS]) for row in rows)


def _cell(name: str, value: object) -> object:
    if name == "at":
        return datetime.fromtimestamp(float(str(value)), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return "" if value is None else value


def _line(cells: Iterable[object]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()
