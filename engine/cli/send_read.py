"""Reading files to send: records one by one, in chunks that become one request each. JSON alone is read whole."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import msgspec

from engine.errors import EngineError

STDIN = "-"
LONGEST_ROW_BYTES = 1_048_576
SUFFIXES = {".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Whatever may name a person, in any format. Bounded, so that a long text without an @ stays cheap.
IDENTITY = re.compile(
    rb"""([^\s"',;:<>(){}\[\]\\]{1,128}@[^\s"',;:<>(){}\[\]\\]{1,255})|(?<![0-9a-f])([0-9a-f]{64})(?![0-9a-f])"""
)


class Format(StrEnum):
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


class Frame(msgspec.Struct, frozen=True):
    """How records become a body: `before`, the records with `between`, `after`."""

    content_type: str
    before: bytes
    between: bytes
    after: bytes


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as it stands in the file. `line` counts from 1, 0 where lines mean nothing; `position`: bytes read
    up to its end."""

    line: int
    data: bytes
    position: int


class Chunk(msgspec.Struct, frozen=True):
    """The records of one request. `first` is the first one's number in the file, from 0."""

    first: int
    records: list[Record]
    frame: Frame

    @property
    def body(self) -> bytes:
        return self.frame.before + self.frame.between.join(it.data for it in self.records) + self.frame.after

    @property
    def people(self) -> set[bytes]:
        """A digest of everybody named in it; two chunks without one in common may be sent in any order."""
        return {_digest(*match.groups()) for it in self.records for match in IDENTITY.finditer(_lower(it.data))}

    def halves(self) -> list[Chunk]:
        middle = len(self.records) // 2
        parts = ((self.first, self.records[:middle]), (self.first + middle, self.records[middle:]))
        return [Chunk(first, records, self.frame) for first, records in parts]


class Source(msgspec.Struct):
    """An open file. `size` in bytes, None for stdin."""

    name: str
    size: int | None
    frame: Frame
    records: Iterator[Record]

    def chunks(self, max_records: int, max_bytes: int, skip: int = 0) -> Iterator[Chunk]:
        """Everything after the first `skip` records."""
        number, waiting, size = skip, list[Record](), 0
        for index, record in enumerate(self.records):
            if index < skip:
                continue
            if waiting and (len(waiting) >= max_records or size + len(record.data) > max_bytes):
                yield Chunk(number, waiting, self.frame)
                number, waiting, size = index, [], 0
            waiting.append(record)
            size += len(record.data) + 1
        if waiting:
            yield Chunk(number, waiting, self.frame)


def format_of(name: str, given: Format | None) -> Format:
    """Raises EngineError when the name does not tell."""
    if given is not None:
        return given
    found = SUFFIXES.get(Path(name).suffix.lower())
    if found is None:
        raise EngineError(f"{name}: say which format it has with --format json, ndjson or csv")
    return Format(found)


@contextmanager
def opened(name: str, format: Format) -> Iterator[Source]:
    """The file `name`, or stdin for "-". Raises EngineError for what cannot be read in this format, and OSError."""
    if name == STDIN:
        yield _source(name, None, sys.stdin.buffer, format)
        return
    path = Path(name)
    with path.open("rb") as stream:
        yield _source(name, path.stat().st_size, stream, format)


def _source(name: str, size: int | None, stream: BinaryIO, format: Format) -> Source:
    if format is Format.JSON:
        frame, records = _json(name, stream.read())
        return Source(name, size, frame, records)
    lines = _lines(name, stream)
    if format is Format.NDJSON:
        return Source(name, size, Frame("application/x-ndjson", b"", b"\n", b"\n"), lines)
    rows = _rows(name, lines)
    header = next(rows, None)
    before = header.data + b"\n" if header else b""
    return Source(name, size, Frame("text/csv; charset=utf-8", before, b"\n", b"\n"), rows)


def _lines(name: str, stream: Iterable[bytes]) -> Iterator[Record]:
    """Lines that are not empty, without their ends."""
    position = 0
    for number, line in enumerate(stream, 1):
        position += len(line)
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise EngineError(f"{name}: is UTF-16; save it as UTF-8")
            line = line.removeprefix(BYTE_ORDER_MARK)
        if data := line.rstrip(b"\r\n"):
            yield Record(number, data, position)


def _rows(name: str, lines: Iterator[Record]) -> Iterator[Record]:
    """CSV rows: a row goes on over the end of a line while a quote is open. Blank lines inside a quoted value go."""
    first, parts, size, quotes = 0, list[bytes](), 0, 0
    for record in lines:
        first = first or record.line
        parts.append(record.data)
        size += len(record.data)
        quotes += record.data.count(b'"')
        if quotes % 2 == 0:
            if b"".join(parts).strip():
                yield Record(first, b"\n".join(parts), record.position)
            first, parts, size, quotes = 0, [], 0, 0
        elif size > LONGEST_ROW_BYTES:
            raise EngineError(f"{name}: the quote that opens in line {first} is not closed")
    if parts:
        raise EngineError(f"{name}: the quote that opens in line {first} is not closed")


def _json(name: str, data: bytes) -> tuple[Frame, Iterator[Record]]:
    """A list, an object with a list under "profiles" (what stands beside it goes along), or one record."""
    import orjson

    try:
        value = orjson.loads(data.removeprefix(BYTE_ORDER_MARK))
    except orjson.JSONDecodeError as error:
        hint = "with one object a line, use --format ndjson"
        raise EngineError(f"{name}: not JSON at line {error.lineno}, column {error.colno}; {hint}") from None
    before, after = b"[", b"]"
    if isinstance(value, dict) and isinstance(value.get("profiles"), list):
        beside = orjson.dumps({key: it for key, it in value.items() if key != "profiles"})[:-1]
        before, after = beside + (b"," if len(beside) > 1 else b"") + b'"profiles":[', b"]}"
        value = value["profiles"]
    elif isinstance(value, dict):
        before, after, value = b"", b"", [value]
    elif not isinstance(value, list):
        raise EngineError(f"{name}: holds neither a record nor a list of records")
    return Frame("application/json", before, b",", after), _values(value, len(data))


def _values(values: list[object], size: int) -> Iterator[Record]:
    import orjson

    for index, value in enumerate(values, 1):
        yield Record(0, orjson.dumps(value), size * index // len(values))


def _lower(data: bytes) -> bytes:
    return data.lower() if data.isascii() else data.decode("utf-8", "replace").lower().encode()


def _digest(address: bytes | None, key: bytes | None) -> bytes:
    """The same for an address and for its SHA-256, as both may name one person."""
    return bytes.fromhex(key.decode()) if key else hashlib.sha256(address or b"").digest()
