"""Where the records of a JSON or NDJSON body begin and end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from engine.profiles.aep_audiences import AUDIENCE_KEYS
from engine.profiles.json_exact import RecordUnreadable, Unbalanced, decode_exact, members
from engine.profiles.parsed import BodyUnreadable

_MANY_COMMAS = 1_000_000
"""A body with more is cut up step by step: taken whole, 64 MiB of ``[0,0,0,…`` would cost gigabytes."""

_BOM = b"\xef\xbb\xbf"
_KEY = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_line = re.compile(rb"[^\s][^\n]*").finditer
_byte_of = re.compile(r"\(byte ([0-9]+)\)").search


class Framed(msgspec.Struct):
    """`records` of a body, one by one. `beside`: what an envelope says of all of them, of `AUDIENCE_KEYS`."""

    records: Iterator[bytes]
    beside: dict[str, object] = {}


_Envelope = msgspec.defstruct(
    "_Envelope",
    [
        ("profiles", list[msgspec.Raw] | msgspec.UnsetType, msgspec.UNSET),
        *((name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in AUDIENCE_KEYS),
    ],
)
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def ndjson_records(body: bytes) -> Iterator[bytes]:
    """The lines that are not blank."""
    for line in _line(body, len(_BOM) if body.startswith(_BOM) else 0):
        yield line.group().rstrip()


def json_records(body: bytes) -> Framed:
    """The elements of an array or of ``{"profiles": […]}``, or the one object. Raises BodyUnreadable, also later on.

    Of what stands beside ``profiles`` only the audience of the call is read.
    """
    start = _first(body)
    if body.count(b",") > _MANY_COMMAS:
        return _exact_records(body, start)
    try:
        return _raws(body[start:] if start else body)
    except RecursionError:
        return _exact_records(body, start)
    except ValueError as error:
        return _exact_records(body, start, _place(error, start, len(body)))


def _first(body: bytes) -> int:
    """Where the JSON begins."""
    start = len(_BOM) if body.startswith(_BOM) else 0
    while start < len(body) and body[start] in b" \t\r\n":
        start += 1
    if start == len(body):
        raise BodyUnreadable("the body is empty")
    if body[start] not in b"[{":
        raise BodyUnreadable("the body is not a JSON object or array", f"byte {start}")
    return start


def _raws(body: bytes) -> Framed:
    if body[:1] == b"[":
        return Framed(map(bytes, _decode_array(body)))
    envelope: Any = _decode_envelope(body)
    if envelope.profiles is msgspec.UNSET:
        return Framed(iter([body]))
    if body.count(b'"profiles"') > 1:
        raise ValueError  # perhaps as a key twice: only the exact way can tell
    beside = {name: getattr(envelope, name) for name in AUDIENCE_KEYS}
    return Framed(map(bytes, envelope.profiles), _beside(beside))


def _beside(raws: Mapping[str, bytes | msgspec.UnsetType]) -> dict[str, object]:
    """Decoded; what is no JSON after all is left out, since the profiles beside it are what counts."""
    beside: dict[str, object] = {}
    for name, raw in raws.items():
        with suppress(RecordUnreadable):
            if raw is not msgspec.UNSET:
                beside[name] = decode_exact(bytes(raw))
    return beside


def _place(error: ValueError, start: int, length: int) -> str:
    found = _byte_of(str(error))
    return f"byte {start + int(found[1]) if found else length}"


def _exact_records(body: bytes, start: int, place: str = "") -> Framed:
    """The same to the letter, for what the fast decoder refuses; every record that comes out is JSON but for its text.

    A body that the exact decoder refuses too is unreadable at `place`.
    """
    try:
        spans, beside = _spans(body, start)
    except Unbalanced as error:
        raise BodyUnreadable("the body is not JSON", place or f"byte {error.byte}") from None
    return Framed(_cut(body, spans, place), _beside(beside))


def _cut(body: bytes, spans: Iterator[tuple[int, int]], place: str) -> Iterator[bytes]:
    try:
        for begin, end in spans:
            raw = body[begin:end].strip()
            _check_grammar(raw, begin)
            yield raw
    except Unbalanced as error:
        raise BodyUnreadable("the body is not JSON", place or f"byte {error.byte}") from None


def _check_grammar(raw: bytes, begin: int) -> None:
    try:
        decode_exact(raw)
    except RecordUnreadable as error:
        if error.reason == "not_json":
            raise Unbalanced(begin + error.byte) from None


def _spans(body: bytes, start: int) -> tuple[Iterator[tuple[int, int]], dict[str, bytes]]:
    if body[start : start + 1] == b"[":
        return members(body, start, len(body)), {}
    profiles, beside = _profiles_span(body, start)
    if profiles is None:
        return iter([(start, len(body))]), {}
    return members(body, *profiles), beside


def _profiles_span(body: bytes, start: int) -> tuple[tuple[int, int] | None, dict[str, bytes]]:
    """Where the array under ``profiles`` stands, None when the object has no such key; and what names an audience."""
    found: list[tuple[int, int]] = []
    beside: dict[str, bytes] = {}
    for begin, end in members(body, start, len(body)):
        key = _KEY.match(body, begin, end)
        if key is None:
            raise Unbalanced(begin)
        name = _name(key[1])
        if name == "profiles":
            found.append((key.end(), end))
        elif name in AUDIENCE_KEYS:
            beside[name] = body[key.end() : end]
    if len(found) > 1:
        raise BodyUnreadable("the body holds `profiles` twice", f"byte {found[1][0]}")
    if found and body[found[0][0] : found[0][0] + 1] != b"[":
        raise BodyUnreadable("`profiles` is not an array", f"byte {found[0][0]}")
    return (found[0] if found else None), beside


def _name(key: bytes) -> str:
    try:
        return str(json.loads(key))
    except ValueError:
        return ""
