"""The rows of a damaged journal, read from its pages without the tree above them: one bad page hides no other.

A row is taken when its own checksum says that it is what was written. (Layout: SQLite file format, sections 1 and 2.)
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import msgspec

from engine.adapters.sqlite.journal_sql import Row, unpack
from engine.adapters.sqlite.wal import Wal, wal_of
from engine.errors import StorageFailed

USUAL_PAGE_BYTES = 4_096
FILE_HEADER_BYTES = 100
LEAF, LEAF_HEADER_BYTES = 0x0D, 8
SMALLEST_CELL_BYTES = 4
INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
REAL, ZERO, ONE, FIRST_BLOB, FIRST_TEXT = 7, 8, 9, 12, 13
COLUMNS = 7


class Pages:
    """The pages of a database and its WAL: as they are now, and `spare`: frames of the WAL that are not as written."""

    def __init__(self, path: Path) -> None:
        self._file = _mapped(path)
        self._wal = Wal(wal_of(path).read_bytes() if wal_of(path).exists() else b"")
        self.size = self._page_bytes()
        self._newer, self.spare = self._overlay()

    def _page_bytes(self) -> int:
        (found,) = struct.unpack_from(">H", self._file, 16) if len(self._file) > FILE_HEADER_BYTES else (0,)
        found = 65_536 if found == 1 else found
        return found if found >= 512 and found.bit_count() == 1 else USUAL_PAGE_BYTES

    def _overlay(self) -> tuple[dict[int, bytes], list[bytes]]:
        frames = self._wal.frames_of_size(self.size)
        while frames and not frames[-1].ends_commit:
            frames.pop()
        newer, spare = {}, []
        for index, frame in enumerate(frames):
            content = self._wal.page(frame, self.size)
            if self._wal.stands(frames, index, self.size):
                newer[frame.page] = content
            else:
                spare.append(content)
        return newer, spare

    def __iter__(self) -> Iterator[bytes]:
        count = max(len(self._file) // self.size, max(self._newer, default=0))
        return (self.page(number) for number in range(1, count + 1))

    def page(self, number: int) -> bytes:
        """Its content, filled up with zeros where the file ends before it."""
        start = (number - 1) * self.size
        return self._newer.get(number, self._file[start : start + self.size].ljust(self.size, b"\0"))


def _mapped(path: Path) -> bytes | mmap.mmap:
    if not path.exists() or not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def good_rows(path: Path) -> tuple[dict[int, Row], dict[int, Row]]:
    """first offset -> row: those that stand where they should, and those that were found elsewhere beside them."""
    pages = Pages(path)
    live: dict[int, Row] = {}
    spare: dict[int, Row] = {}
    for content in chain(pages.spare, pages):
        count = struct.unpack_from(">H", content, 3)[0] if content[0] == LEAF else 0
        for index, row in _rows(pages, content):
            (live if index < count else spare)[row[0]] = row
    return live, spare


def _rows(pages: Pages, content: bytes) -> Iterator[tuple[int, Row]]:
    """The good rows a page points to, whatever it says that it is and however many it says it has."""
    for index in range((len(content) - LEAF_HEADER_BYTES) // (SMALLEST_CELL_BYTES + 2)):
        (pointer,) = struct.unpack_from(">H", content, LEAF_HEADER_BYTES + 2 * index)
        if not LEAF_HEADER_BYTES < pointer <= len(content) - SMALLEST_CELL_BYTES:
            if index >= struct.unpack_from(">H", content, 3)[0]:
                return
            continue
        with suppress(StorageFailed, ValueError, IndexError, struct.error, OverflowError):
            yield index, _row(pages, content, pointer)


def _row(pages: Pages, content: bytes, pointer: int) -> Row:
    """Raises one of several errors when there is none, or none that is as it was written."""
    length, pointer = _varint(content, pointer)
    first, pointer = _varint(content, pointer)
    if not 0 < length <= 1 << 31:
        raise ValueError("no such length")
    values = _values(_payload(pages, content, pointer, length))
    if len(values) != COLUMNS:
        raise ValueError("no row of the journal")
    row: Row = msgspec.convert((first, *values[1:]), Row)  # SQLite stores a REAL without a fraction as an integer
    unpack(row)
    return row


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count in range(8):
        byte = content[position + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + count + 1
    return value << 8 | content[position + 8], position + 9


def _payload(pages: Pages, content: bytes, position: int, length: int) -> bytes:
    """What a cell holds, its overflow pages followed."""
    usable = pages.size
    if length <= usable - 35:
        return content[position : position + length]
    least = (usable - 12) * 32 // 255 - 23
    local = least + (length - least) % (usable - 4)
    local = local if local <= usable - 35 else least
    found = [content[position : position + local]]
    (following,) = struct.unpack_from(">I", content, position + local)
    missing = length - local
    while missing > 0:
        if not following:
            raise ValueError("its overflow pages end early")
        page = pages.page(following)
        found.append(page[4 : 4 + missing])
        missing -= usable - 4
        (following,) = struct.unpack_from(">I", page)
    return b"".join(found)


def _values(record: bytes) -> list[object]:
    """The columns of a record."""
    header, position = _varint(record, 0)
    kinds = []
    while position < header:
        kind, position = _varint(record, position)
        kinds.append(kind)
    values = []
    for kind in kinds:
        value, position = _value(record, kind, position)
        values.append(value)
    return values


def _value(record: bytes, kind: int, position: int) -> tuple[object, int]:
    if kind in INTEGER_BYTES:
        end = position + INTEGER_BYTES[kind]
        return int.from_bytes(record[position:end], "big", signed=True), end
    if kind == REAL:
        return struct.unpack_from(">d", record, position)[0], position + 8
    if kind in (ZERO, ONE):
        return kind - ZERO, position
    if kind >= FIRST_BLOB:
        end = position + (kind - FIRST_BLOB) // 2
        data = record[position:end]
        return (data.decode() if kind % 2 else data), end
    return None, position
