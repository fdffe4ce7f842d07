"""From a request body, or from a program's own mappings, to events: each record is judged alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from engine.profiles.csv_format import read_csv
from engine.profiles.json_exact import RecordUnreadable, decode_exact
from engine.profiles.json_format import json_records, ndjson_records
from engine.profiles.parsed import BodyUnreadable as BodyUnreadable
from engine.profiles.parsed import Parsed as Parsed
from engine.profiles.parsed import TooManyEvents as TooManyEvents
from engine.profiles.records import RecordJudge
from engine.profiles.typed import TypedPath

JSON = "application/json"
NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
CSV = "text/csv"
MEDIA_TYPES = frozenset({JSON, CSV, *NDJSON})
"""What `Reader.read` takes; anything else is the caller's 415."""


class Reader:
    """Reads the bodies of one source. Holds no state between them.

    `mapping`: target field -> dotted path in the record, looked up before the plain name. `extra_fields`: names beside
    the 12 that are kept. `order`: only "timestamp" keeps a record's `timestamp`. `max_events`: most records a body.
    `consents`: the consent paths that are kept.
    """

    def __init__(
        self,
        *,
        mapping: dict[str, str],
        extra_fields: frozenset[str],
        order: str,
        max_events: int,
        consents: frozenset[str] = frozenset(),
    ) -> None:
        self._judge = RecordJudge(mapping, extra_fields, order, consents)
        self._typed = None if mapping else TypedPath(self._judge.extra, self._judge.by_time)
        self._max_events = max_events

    def read(self, body: bytes, media_type: str) -> Parsed:
        """`media_type` is one of `MEDIA_TYPES`, without parameters. Raises BodyUnreadable and TooManyEvents only.

        JSON (an object, an array, ``{"profiles": […]}``) and CSV stand or fall as a whole where their grammar is
        broken; a broken line of NDJSON is one rejected record.
        """
        if media_type == CSV:
            return read_csv(body, self._judge, self._max_events)
        if media_type == JSON:
            return self._records(json_records(body))
        if media_type in NDJSON:
            return self._records(ndjson_records(body))
        raise BodyUnreadable("the media type is not one of JSON, NDJSON and CSV")

    def read_mappings(self, items: Iterable[Mapping[str, Any] | msgspec.Struct]) -> Parsed:
        """Records as a program has them; a `timestamp` may be a datetime. Raises TooManyEvents only."""
        parsed = Parsed()
        for item in items:
            self._count(parsed)
            self._judge.judge(_builtins(item) if isinstance(item, msgspec.Struct) else item, parsed.records, parsed)
            parsed.records += 1
        return parsed

    def _records(self, raws: Iterator[bytes]) -> Parsed:
        parsed = Parsed()
        for raw in raws:
            self._count(parsed)
            event = self._typed.read(raw) if self._typed else None
            if event is None:
                self._read_exactly(raw, parsed)
            else:
                parsed.add(parsed.records, event)
            parsed.records += 1
        return parsed

    def _count(self, parsed: Parsed) -> None:
        if parsed.records == self._max_events:
            raise TooManyEvents(self._max_events)

    def _read_exactly(self, raw: bytes, parsed: Parsed) -> None:
        try:
            record = decode_exact(raw)
        except RecordUnreadable as error:
            parsed.reject(parsed.records, "", error.reason)
        else:
            self._judge.judge(record, parsed.records, parsed)


def _builtins(item: msgspec.Struct) -> object:
    """The struct as a mapping, under its encoded names; None when it holds what no record can hold."""
    try:
        return msgspec.to_builtins(item)
    except (TypeError, ValueError, RecursionError):
        return None
