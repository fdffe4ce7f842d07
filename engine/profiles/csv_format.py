"""CSV after RFC 4180: a header line, comma, double quotes, UTF-8 with or without a byte order mark.

Columns are named as the fields of a record are. An empty cell is an absent field. A column that is not known is dropped
and listed once a body, under its first record.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from engine.profiles.parsed import BodyUnreadable, Parsed, TooManyEvents
from engine.profiles.records import HASH, RecordJudge


def read_csv(body: bytes, judge: RecordJudge, max_events: int) -> Parsed:
    """Raises BodyUnreadable and TooManyEvents. Rows of another length than the header are rejected."""
    rows = csv.reader(io.StringIO(_text(body), newline=""), strict=True)
    parsed = Parsed()
    columns = _columns(rows, judge)
    unknown = [name for name in columns if name and not judge.knows(name)]
    for row in _rows(rows, max_events):
        if parsed.records == 0:
            for name in unknown:
                parsed.unknown(0, name)
        if len(row) != len(columns):
            parsed.reject(parsed.records, "", "ragged_row")
        else:
            record = {name: cell for name, cell in zip(columns, row, strict=True) if cell and judge.knows(name)}
            judge.judge(record, parsed.records, parsed)
        parsed.records += 1
    return parsed


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BodyUnreadable("the body is not UTF-8", f"byte {error.start}") from None


def _columns(rows: Any, judge: RecordJudge) -> list[str]:
    columns = [name.strip() for name in _next(rows) or ()]
    if not columns:
        raise BodyUnreadable("the first line has to name the columns", "line 1")
    named = [name for name in columns if name]
    if len(set(named)) < len(named):
        raise BodyUnreadable("the header names a column twice", "line 1")
    if not judge.identifiable(named):
        raise BodyUnreadable(f"the header has no column for `email` or `{HASH}`", "line 1")
    return columns


def _rows(rows: Any, limit: int) -> Iterator[list[str]]:
    """Rows without the blank lines, at most `limit`; blank lines have the same limit, for what they cost to skip."""
    count = blank = 0
    while (row := _next(rows)) is not None:
        count, blank = (count + 1, blank) if row else (count, blank + 1)
        if max(count, blank) > limit:
            raise TooManyEvents(limit)
        if row:
            yield row


def _next(rows: Any) -> list[str] | None:
    """The next row, None at the end. What the csv module says of a fault quotes nothing of the body."""
    try:
        row: list[str] | None = next(rows, None)
    except csv.Error as error:
        raise BodyUnreadable(f"not CSV after RFC 4180: {error}", f"line {rows.line_num}") from None
    return row
