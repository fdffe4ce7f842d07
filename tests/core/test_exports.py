"""Rows of an export: every column in both formats, keys and never addresses."""

from __future__ import annotations

import csv
import io
import json

from engine.core.exports import COLUMNS, head, row_of_entry, row_of_letter, text
from engine.model import Held, HeldKind, Lane, LedgerEntry, Profile

KEY = bytes(range(32))
ENTRY = LedgerEntry(KEY, "delivered", "", 5, 5, b"d", 1_790_928_000.25, "1790000000000001QwEr")
LETTER = Held(
    HeldKind.EXPIRED,
    Profile(KEY, b'{"email":"lea@example.com"}', 1, Lane.LIVE, 1, 1, 1, 3, 0.0, tries=7),
    2.0,
    'response_code_"27",x',
    "lea@example.com was refused",
    id=9,
)


def rows() -> list[dict[str, object]]:
    return [row_of_entry("demo", ENTRY), row_of_letter("demo", LETTER)]


def test_both_kinds_of_rows_have_every_column() -> None:
    assert [tuple(row) for row in rows()] == [COLUMNS, COLUMNS]


def test_ndjson_is_one_object_a_line() -> None:
    first, second = [json.loads(line) for line in text(rows(), "ndjson").splitlines()]
    assert (first["record"], first["key"], first["at"]) == ("last_outcome", KEY.hex(), 1_790_928_000.25)
    assert (first["attendee_id"], first["reason"], first["code"]) == ("1790000000000001QwEr", None, None)
    assert (second["record"], second["outcome"], second["letter"]) == ("dead_letter", "expired", 9)
    assert (second["attempts"], second["events"], second["code"]) == (7, 3, "RFDEST-1402-422")


def test_csv_can_be_read_back() -> None:
    written = head("csv") + text(rows(), "csv")
    first, second = csv.DictReader(io.StringIO(written))
    assert first["at"] == "2026-10-02T08:00:00.250Z"
    assert (first["reason"], first["letter"]) == ("", "")
    assert second["reason"] == LETTER.reason
    assert head("ndjson") == ""


def test_nothing_of_a_person_is_written() -> None:
    for format in ("ndjson", "csv"):
        assert "@" not in text(rows(), format)
