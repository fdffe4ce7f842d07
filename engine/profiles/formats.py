"""From a request body, or from a program's own mappings, to events: each record is judged alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from engine.config import MappingRule
from engine.model import Event
from engine.profiles.aep_audiences import CallAudience, audience_of
from engine.profiles.csv_format import read_csv
from engine.profiles.json_exact import RecordUnreadable, decode_once
from engine.profiles.json_format import Framed, json_records, ndjson_records
from engine.profiles.parsed import BodyUnreadable as BodyUnreadable
from engine.profiles.parsed import Parsed as Parsed
from engine.profiles.parsed import TooManyEvents as TooManyEvents
from engine.profiles.phones import e164
from engine.profiles.records import RecordJudge
from engine.profiles.short_ways import ShortWays
from engine.profiles.typed import TypedPath
from engine.profiles.typed_aep import Unused

JSON = "application/json"
NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
CSV = "text/csv"
MEDIA_TYPES = frozenset({JSON, CSV, *NDJSON})
"""What `Reader.read` takes; anything else is the caller's 415."""

TOGETHER = 256
"""Records that are read together where nothing is odd about any of them."""

TOGETHER_BYTES = 262_144
"""An array up to this size is decoded whole."""


class Reader:
    """Reads the bodies of one source. Holds no state between them.

    `mapping`: target field -> where its value is, looked up before the plain name. `extra_fields`: names beside the 12
    that are kept. `order`: only "timestamp" keeps a record's `timestamp`. `max_events`: most records a body. `format`:
    "auto" knows AEP's shapes when it sees them, "aep" takes every record for one, "profile" none. `now`: epoch
    seconds, asked for memberships that AEP sends without a time. `phone_e164`: phone numbers are brought to E.164, see
    `profiles.phones`. `consents`: the consent paths that are kept.
    """

    def __init__(
        self,
        *,
        mapping: Mapping[str, str | MappingRule],
        extra_fields: frozenset[str],
        order: str,
        max_events: int,
        format: str = "auto",
        now: Callable[[], float] = lambda: 0.0,
        phone_e164: bool = False,
        consents: frozenset[str] = frozenset(),
    ) -> None:
        check_phone = e164() if phone_e164 else None
        self.judge = RecordJudge(mapping, extra_fields, order, format, now, check_phone=check_phone, consents=consents)
        self._unfolds = format != "profile"
        ways = ShortWays(self.judge, format, now) if not phone_e164 else None
        self._typed, self._typed_aep = (ways.typed, ways.typed_aep) if ways else (None, None)
        self._single_is_a_record = not self.judge.knows("profiles")  # else an object may be an envelope
        self._max_events = max_events

    def read(self, body: bytes, media_type: str) -> Parsed:
        """`media_type` is one of `MEDIA_TYPES`, without parameters. Raises BodyUnreadable and TooManyEvents only.

        JSON (an object, an array, ``{"profiles": […]}``) and CSV stand or fall as a whole where their grammar is
        broken; a broken line of NDJSON is one rejected record.
        """
        if media_type == CSV:
            return read_csv(body, self.judge, self._max_events)
        if media_type == JSON:
            return self._json(body)
        if media_type in NDJSON:
            return self._records(Framed(ndjson_records(body)))
        raise BodyUnreadable("the media type is not one of JSON, NDJSON and CSV")

    def read_mappings(self, items: Iterable[Mapping[str, Any] | msgspec.Struct]) -> Parsed:
        """Records as a program has them; a `timestamp` may be a datetime. Raises TooManyEvents only."""
        parsed = Parsed()
        for item in items:
            self._count(parsed)
            self.judge.judge(_builtins(item) if isinstance(item, msgspec.Struct) else item, parsed.records, parsed)
            parsed.records += 1
        return parsed

    def _json(self, body: bytes) -> Parsed:
        """The usual bodies are taken whole; all others record by record."""
        if self._typed is not None and len(body) <= TOGETHER_BYTES:
            events = self._usual(self._typed, body)
            if events is not None and len(events) <= self._max_events:
                return Parsed.of(events)
        return self._records(json_records(body))

    def _usual(self, typed: TypedPath, body: bytes) -> list[Event] | None:
        """Of an array, or of one record; None where that takes a closer look."""
        if body[:1] == b"[":
            return typed.read_array(body)
        event = typed.read(body) if self._single_is_a_record and body[:1] == b"{" else None
        return None if event is None else [event]

    def _records(self, framed: Framed) -> Parsed:
        parsed = Parsed()
        call = self._call(framed.beside, parsed)
        typed = None if call else self._typed
        records = iter(framed.records)
        while raws := list(islice(records, TOGETHER)):
            if parsed.records + len(raws) > self._max_events:
                raise TooManyEvents(self._max_events)
            if not self._in_short(raws, parsed, typed, call):
                typed = self._one_by_one(raws, parsed, typed, call)
        return parsed

    def _in_short(self, raws: list[bytes], parsed: Parsed, typed: TypedPath | None, call: CallAudience | None) -> bool:
        """Whether these records could be read together, in one of the short ways."""
        events = typed.read_all(raws) if typed else None
        if events is None:
            if self._read_aep(raws, parsed, call):
                return True
            events = typed.read_spoken(raws) if typed else None
        if events is not None:
            parsed.add_all(events)
        return events is not None

    def _read_aep(self, raws: list[bytes], parsed: Parsed, call: CallAudience | None) -> bool:
        """Whether these profiles are AEP's, and could be read in the short way."""
        unused: list[Unused] = []
        events = self._typed_aep.read_all(raws, call, unused) if self._typed_aep else None
        if events is None:
            return False
        for index, path in unused:
            parsed.unused(parsed.records + index, path, "unknown_field")
        parsed.add_all(events)
        return True

    def _one_by_one(
        self, raws: list[bytes], parsed: Parsed, typed: TypedPath | None, call: CallAudience | None
    ) -> TypedPath | None:
        """What to read the rest of the body with: where one record is AEP's all will be."""
        for raw in raws:
            if len(raws) == 1 or not self._in_short([raw], parsed, typed, call):
                typed = None if self._read_exactly(raw, parsed, call) else typed
                parsed.records += 1
        return typed

    def _call(self, beside: Mapping[str, object], parsed: Parsed) -> CallAudience | None:
        """What an envelope says of all its profiles; what is wrong with it is listed under the first."""
        if not beside or not self._unfolds:
            return None
        return audience_of(beside, lambda where, why: parsed.drop(0, where, why))

    def _count(self, parsed: Parsed) -> None:
        if parsed.records == self._max_events:
            raise TooManyEvents(self._max_events)

    def _read_exactly(self, raw: bytes, parsed: Parsed, call: CallAudience | None) -> bool:
        """Whether the record is in one of AEP's shapes."""
        try:
            record = decode_once(raw)
        except RecordUnreadable as error:
            parsed.reject(parsed.records, "", error.reason)
            return False
        self.judge.judge(record, parsed.records, parsed, call)
        return isinstance(record, dict) and self.judge.unfolds(record, call)


def _builtins(item: msgspec.Struct) -> object:
    """The struct as a mapping, under its encoded names; None when it holds what no record can hold."""
    try:
        return msgspec.to_builtins(item)
    except (TypeError, ValueError, RecursionError):
        return None
