"""JSON read to the letter: duplicate keys are seen, one bad record does not hide the others, sizes are bounded.

This is the slow reader, for what the fast one (msgspec) refuses. It takes what Python's json takes, so half a surrogate
pair or NaN spoils one field and not ten thousand profiles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

MAX_RECORD_BYTES = 1_048_576
"""Of one record: AEP's own limit of a streamed record. Bounds what decoding one can cost."""

_MAX_DIGITS = 400  # of an integer; Python refuses to convert 4,300


class Ambiguous(dict[str, Any]):
    """A JSON object in which some key stands twice."""


class RecordUnreadable(ValueError):
    """`reason`: ``not_json``, ``not_utf_8``, ``nested_too_deeply``, ``record_too_large``. `byte`: where, if known."""

    def __init__(self, reason: str, byte: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.byte = byte


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Ambiguous(members)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float("inf")


_fast = msgspec.json.Decoder().decode
_written = msgspec.json.Encoder().encode
_decode = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer).decode


def decode_exact(raw: bytes) -> object:
    """The value that `raw` holds. Raises RecordUnreadable and nothing else."""
    if len(raw) > MAX_RECORD_BYTES:
        raise RecordUnreadable("record_too_large")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise RecordUnreadable("not_utf_8", error.start) from None
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        raise RecordUnreadable("not_json", len(text[: error.pos].encode())) from None
    except RecursionError:
        raise RecordUnreadable("nested_too_deeply") from None


def decode_once(raw: bytes) -> object:
    """The same in about 60 % of the time, where a look at the whole shows that no key stands twice in any object:
    written again, the value then has as many quotes as before. Raises RecordUnreadable and nothing else.
    """
    if len(raw) > MAX_RECORD_BYTES or (b"\\" in raw and (b'\\"' in raw or b"\\u0022" in raw)):
        return decode_exact(raw)
    try:
        value = _fast(raw)
        if _written(value).count(b'"') == raw.count(b'"'):
            return value
    except (ValueError, OverflowError, RecursionError):
        pass
    return decode_exact(raw)


class Unbalanced(ValueError):
    """The brackets of a body do not pair up, or something follows it. `byte`: where it was noticed."""

    def __init__(self, byte: int) -> None:
        super().__init__(f"byte {byte}")
        self.byte = byte


_tokens = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL).finditer
_CLOSES = {b"]": b"[", b"}": b"{"}


def members(body: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each member between the brackets that open at `start`; for an object of each ``"key": value``.

    Looks at brackets, strings and commas alone and holds nothing, so that a caller may stop after any number of
    members. Raises Unbalanced, also when the brackets close before `stop` and more than blanks follow.
    """
    open_brackets: list[bytes] = []
    begin = start + 1
    for token in _tokens(body, start, stop):
        mark = token.group()
        if mark in (b"[", b"{"):
            open_brackets.append(mark)
        elif mark == b"," and len(open_brackets) == 1:
            yield begin, token.start()
            begin = token.end()
        elif mark in _CLOSES:
            if open_brackets.pop() != _CLOSES[mark]:
                raise Unbalanced(token.start())
            if not open_brackets:
                if begin > start + 1 or body[begin : token.start()].strip():
                    yield begin, token.start()
                if body[token.end() : stop].strip():
                    raise Unbalanced(token.end())
                return
        elif mark == b'"':
            break
    raise Unbalanced(stop)
