"""Where the values of a record came from: for people who try a mapping, not for the way of an event."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

import msgspec

from engine.profiles.aep_audiences import audience_of
from engine.profiles.formats import CSV, JSON, Parsed, Reader
from engine.profiles.json_exact import RecordUnreadable, decode_exact
from engine.profiles.json_format import Framed, json_records, ndjson_records
from engine.profiles.records import Refused

MAX_LEAVES = 500


class Explained(msgspec.Struct):
    """One record. `given`: path -> value of everything in it. `origins`: target field -> path or paths."""

    given: dict[str, object]
    origins: dict[str, str]


def explain(reader: Reader, body: bytes, media_type: str) -> tuple[Parsed, list[Explained]]:
    """What `Reader.read` makes of a body, and beside it where each value stood. Raises what `read` raises."""
    parsed = reader.read(body, media_type)
    if media_type == CSV:
        rows = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""))
        return parsed, [_explained(reader, {k: v for k, v in row.items() if k and v}, {}) for row in rows]
    framed = json_records(body) if media_type == JSON else Framed(ndjson_records(body))
    return parsed, [_explained(reader, _decoded(raw), framed.beside) for raw in framed.records]


def _decoded(raw: bytes) -> object:
    try:
        return decode_exact(raw)
    except RecordUnreadable:
        return None


def _explained(reader: Reader, record: object, beside: Mapping[str, object]) -> Explained:
    if not isinstance(record, Mapping):
        return Explained({}, {})
    try:
        plain, origins = reader.judge.plain(record, 0, Parsed(), audience_of(beside, lambda where, why: None))
    except Refused:
        plain, origins = {}, {}
    given: dict[str, object] = {}
    for path, value in _leaves(record, ""):
        if len(given) < MAX_LEAVES:
            given[path] = value
    return Explained(given, {name: origins.get(name, name) for name in plain})


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{number}")
    else:
        yield path, value
