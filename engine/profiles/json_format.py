"""Where the records of a JSON or NDJSON body begin and end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

from engine.profiles.json_exact import RecordUnreadable, Unbalanced, decode_exact, members
from engine.profiles.parsed import BodyUnreadable

_MANY_COMMAS = 1_000_000
"""A body with more is cut up step by step: taken whole, 64 MiB of ``[0,0,0,…`` would cost gigabytes."""

_BOM = b"\xef\xbb\xbf"
_KEY = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_line = re.compile(rb"[^\s][^\n]*").finditer
_byte_of = re.compile(r"\(byte ([0-9]+)\)").search


class _Envelope(msgspec.Struct):
    profiles: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def ndjson_records(body: bytes) -> Iterator[bytes]:
    """The lines that are not blank."""
    for line in _line(body, len(_BOM) if body.startswith(_BOM) else 0):
        yield line.group().rstrip()


def json_records(body: bytes) -> Iterator[bytes]:
    """The elements of an array or of ``{"profiles": […]}``, or the one object. Raises BodyUnreadable, also later on.

    What stands beside ``profiles`` is ignored.
    """
    start = _first(body)
    if body.count(b",") > _MANY_COMMAS:
        return _exact_records(body, start)
    try:
        raws = _raws(body[start:] if start else body)
    except RecursionError:
        return _exact_records(body, start)
    except ValueError as error:
        return _exact_records(body, start, _place(error, start, len(body)))
    return map(bytes, raws)


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


def _raws(body: bytes) -> list[msgspec.Raw] | list[bytes]:
    if body[:1] == b"[":
        return _decode_array(body)
    envelope = _decode_envelope(body)
    if envelope.profiles is msgspec.UNSET:
        return [body]
    if body.count(b'"profiles"') > 1:
        raise ValueError  # perhaps as a key twice: only the exact way can tell
    return envelope.profiles


def _place(error: ValueError, start: int, length: int) -> str:
    found = _byte_of(str(error))
    return f"byte {start + int(found[1]) if found else length}"


def _exact_records(body: bytes, start: int, place: str = "") -> Iterator[bytes]:
    """The same to the letter, for what the fast decoder refuses; every record that comes out is JSON but for its text.

    A body that the exact decoder refuses too is unreadable at `place`.
    """
    try:
        for begin, end in _spans(body, start):
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


def _spans(body: bytes, start: int) -> Iterator[tuple[int, int]]:
    if body[start : start + 1] == b"[":
        return members(body, start, len(body))
    profiles = _profiles_span(body, start)
    return iter([(start, len(body))]) if profiles is None else members(body, *profiles)


def _profiles_span(body: bytes, start: int) -> tuple[int, int] | None:
    """Where the array under ``profiles`` stands; None when the object has no such key."""
    found: list[tuple[int, int]] = []
    for begin, end in members(body, start, len(body)):
        key = _KEY.match(body, begin, end)
        if key is None:
            raise Unbalanced(begin)
        if _is_profiles(key[1]):
            found.append((key.end(), end))
    if len(found) > 1:
        raise BodyUnreadable("the body holds `profiles` twice", f"byte {found[1][0]}")
    if found and body[found[0][0] : found[0][0] + 1] != b"[":
        raise BodyUnreadable("`profiles` is not an array", f"byte {found[0][0]}")
    return found[0] if found else None


def _is_profiles(key: bytes) -> bool:
    try:
        return bool(json.loads(key) == "profiles")
    except ValueError:
        return False
