"""What RainFocus pushes: one record a change of an attendee, or of a session, exhibitor or lead around one.

RainFocus publishes the fields that its streaming source connector sends to Experience Platform (experience-platform.en,
`help/sources/connectors/analytics/rainfocus.md`); this reader takes them as they come::

    {"eventType": "SessionScheduled", "transmissionId": "…", "timestamp": "…", "event": {"name": "…"},
     "attendee": {"attendeeId": "…", "email": "…", "registered": "Yes", …}, "session": {"sessionId": "…", …}, …}

alone, in an array, one a line (NDJSON), in the envelopes of AEP's streaming ingestion (``{"header": …, "body": …}``, a
body that holds ``xdmEntity``, ``{"messages": […]}``), below a tenant's name (``{"_acme": {…}}``), or flat with dotted
names (``{"attendee.email": "…"}``).

Whose change it is: the attendee's by e-mail (or its SHA-256), so that it meets the profile events of that person. Where
no address is given the key is the SHA-256 of the first RainFocus id that there is (`ENTITIES`, in their order): no
ledger knows it, but what is forwarded of one entity stays in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b

import msgspec

from engine.model import Event, Kind, Trait
from engine.profiles.formats import CSV, JSON, NDJSON
from engine.profiles.identity import key_from_hex, key_of, normalise_email
from engine.profiles.json_exact import Ambiguous, RecordUnreadable, decode_exact
from engine.profiles.json_format import json_records, ndjson_records
from engine.profiles.parsed import BodyUnreadable, Parsed, TooManyEvents

ENTITIES = (
    *(("attendee", "attendeeId"), ("lead", "leadId"), ("sessiontime", "sessiontimeId")),
    *(("session", "sessionId"), ("exhibitor", "exhibitorId")),
)
"""Where RainFocus's ids stand; the first one that a record has is what it is about."""

_MARKS = frozenset({"attendee", "session", "sessiontime", "exhibitor", "lead", "eventType", "transmissionId"})
_RAINFOCUS_ID = re.compile(r"[0-9A-Za-z_-]{1,64}").fullmatch
_blank = re.compile(rb"[ \t\r\n]*").match


class _Batch(msgspec.Struct):
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Message(msgspec.Struct):
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Body(msgspec.Struct):
    entity: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="xdmEntity")


_batch = msgspec.json.Decoder(_Batch).decode
_message = msgspec.json.Decoder(_Message).decode
_body = msgspec.json.Decoder(_Body).decode


class ChangeReader:
    """Reads the bodies that RainFocus pushes, as `formats.Reader` reads those of producers."""

    def __init__(self, *, max_events: int) -> None:
        self._max_events = max_events

    def read(self, body: bytes, media_type: str) -> Parsed:
        """Each event's content is a JSON array of one ``{"id": …, "record": …}``, so that two of them can be joined
        (`join_changes`). Raises BodyUnreadable and TooManyEvents only."""
        if media_type == CSV or (media_type != JSON and media_type not in NDJSON):
            raise BodyUnreadable("changes come as JSON or NDJSON")
        parsed = Parsed()
        for raw in _records(body) if media_type == JSON else ndjson_records(body):
            if parsed.records == self._max_events:
                raise TooManyEvents(self._max_events)
            _judge(raw, parsed)
            parsed.records += 1
        return parsed


def join_changes(older: bytes, newer: bytes) -> tuple[bytes, int]:
    """(content, traits) of both, one after the other: of changes none replaces another (`fold.Merge`)."""
    return older[:-1] + b"," + newer[1:], 0


def _records(body: bytes) -> Iterator[bytes]:
    """The elements of an array, the messages of a batch, or the one object."""
    start = _blank(body.removeprefix(b"\xef\xbb\xbf"))
    if start is None or body[start.end() : start.end() + 1] != b"{":
        return json_records(body).records
    try:
        messages = _batch(body).messages
    except (ValueError, RecursionError):
        return json_records(body).records  # says what is wrong with it, and where
    if messages is msgspec.UNSET:
        return iter([body])
    if not bytes(messages).startswith(b"["):
        raise BodyUnreadable("`messages` is not an array")
    return json_records(bytes(messages)).records


def _judge(raw: bytes, parsed: Parsed) -> None:
    index = parsed.records
    raw = _opened(raw)
    try:
        record = decode_exact(raw)
    except RecordUnreadable as error:
        parsed.reject(index, "", error.reason)
        return
    if not isinstance(record, Mapping):
        parsed.reject(index, "", "not_an_object")
    elif isinstance(record, Ambiguous):
        parsed.reject(index, "", "duplicate_key")
    else:
        try:
            event = _event(_below_tenant(record), raw, parsed)
        except ValueError:
            parsed.reject(index, "", "not_json")
        else:
            if event is not None:
                parsed.add(index, event)


def _opened(raw: bytes) -> bytes:
    """What is in the envelope, or the record itself."""
    try:
        body = _message(raw).body
        if body is msgspec.UNSET:
            return raw
        entity = _body(body).entity
    except (ValueError, RecursionError):
        return raw  # not an envelope; what it is else is judged next
    return bytes(body if entity is msgspec.UNSET else entity)


def _below_tenant(record: Mapping[str, object]) -> Mapping[str, object]:
    """XDM keeps a tenant's own fields in an object that is named after it, with an underscore."""
    if not any(name.partition(".")[0] in _MARKS for name in record):
        for name, inner in record.items():
            if name.startswith("_") and isinstance(inner, Mapping) and not _MARKS.isdisjoint(inner):
                return inner
    return record


def _event(record: Mapping[str, object], raw: bytes, parsed: Parsed) -> Event | None:
    index = parsed.records
    attendee_id = _id_of(record, "attendee", "attendeeId")
    if not attendee_id and _value(record, "attendee", "attendeeId") not in (None, ""):
        parsed.drop(index, "attendee.attendeeId", "not_an_id")
    key = _person(record, parsed)
    traits = int(Trait.NONE)
    if key is None:
        key, traits = _entity(record), int(Trait.ENTITY)
    if key is None:
        parsed.reject(index, "attendee.email", "missing")
        return None
    return Event(key, _content(raw), traits, kind=Kind.CHANGE, attendee_id=attendee_id)


def _person(record: Mapping[str, object], parsed: Parsed) -> bytes | None:
    """The key of the attendee's address, or None."""
    given = _value(record, "attendee", "email")
    if given is None or given == "":
        return None
    address = normalise_email(given) if isinstance(given, str) else None
    if address is not None:
        return key_of(address)
    key = key_from_hex(given) if isinstance(given, str) else None
    if key is None:
        parsed.drop(parsed.records, "attendee.email", "not_an_email")
    return key


def _entity(record: Mapping[str, object]) -> bytes | None:
    for kind, name in ENTITIES:
        if id := _id_of(record, kind, name):
            return key_of(f"rainfocus:{kind}:{id}")
    return None


def _id_of(record: Mapping[str, object], kind: str, name: str) -> str:
    """A RainFocus id, or "" when there is none that could be one."""
    value = _value(record, kind, name)
    return value if isinstance(value, str) and _RAINFOCUS_ID(value) else ""


def _value(record: Mapping[str, object], kind: str, name: str) -> object:
    """Nested, or under the dotted name."""
    inner = record.get(kind)
    return inner.get(name) if isinstance(inner, Mapping) else record.get(f"{kind}.{name}")


def _content(raw: bytes) -> bytes:
    """The record as it came, without blanks, under an id made of it, by which a receiver knows it again. RainFocus's
    `transmissionId` is part of the record; whether one transmission can carry several records is not published.
    Raises ValueError for what only a lenient reader takes: NaN, half a surrogate pair."""
    compact = msgspec.json.format(raw, indent=-1)
    id = blake2b(compact, digest_size=16).hexdigest()
    return b'[{"id":"%s","record":%s}]' % (id.encode(), compact)


__all__ = ["ENTITIES", "ChangeReader", "join_changes"]
