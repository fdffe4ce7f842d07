"""What has to be done with the files of a journal before the first append: found, finished, checked, made."""

from __future__ import annotations

import secrets

import msgspec

from engine.adapters.segments.files import SegmentFile, SegmentFiles, no_way_back
from engine.adapters.segments.layout import DATA_START, HEADER_BYTES, SALT_BYTES, Header
from engine.adapters.segments.pool import Pool, whole_blocks
from engine.adapters.segments.rewriting import Rewriter
from engine.adapters.segments.scan import WAY_OUT, Sorted, Tail, checked, sort, tail_of
from engine.adapters.segments.segment import Segment
from engine.errors import DataDirectoryError


class Beginning(msgspec.Struct, frozen=True):
    """Of a journal that is made anew: who it is, and its first offset. It may go on where another one has ended."""

    id: str = ""
    base: int = 0


class Opened(msgspec.Struct):
    segments: list[Segment]
    tail: Tail


def open_segments(files: SegmentFiles, pool: Pool, beginning: Beginning, first_size: int) -> Opened:
    """Raises DataDirectoryError for a damaged or newer journal: nothing was changed then. NoSpace, OSError."""
    found = sort(files)
    checked(found)
    if found.live:
        tail = _end(files, found)
    else:
        found.live = [_first(files, pool, found, beginning, first_size)]
        tail = Tail(DATA_START, beginning.base, beginning.base)
    pool.adopt(found.released, found.spare)
    files.sync_directory()
    return Opened(found.live, tail)


def _end(files: SegmentFiles, found: Sorted) -> Tail:
    """Of the last segment, once what a crash has cut off is finished; behind it there are zeros."""
    Rewriter(files).finish(found.live)
    last = found.live[-1]
    file = files.open(last.name)
    try:
        tail = tail_of(last, file.read(0, last.size))
        if tail.damage:
            raise DataDirectoryError(f"{tail.damage}. Nothing was changed. {WAY_OUT}")
        if tail.torn:
            file.write(tail.end, bytes(tail.torn))
            file.sync()
    finally:
        file.close()
    return tail


def _first(files: SegmentFiles, pool: Pool, found: Sorted, beginning: Beginning, size: int) -> Segment:
    if found.released:
        raise DataDirectoryError(f"the last segment of the journal is missing. {WAY_OUT}")
    pool.adopt([], found.spare)
    found.spare = []
    return begin_segment(
        files, pool, beginning.id or secrets.token_hex(8), 1, beginning.base, beginning.base, size, size
    )


def begin_segment(
    files: SegmentFiles, pool: Pool, id: str, sequence: int, base: int, released: int, needed: int, wanted: int
) -> Segment:
    """An empty file becomes a segment; durable on return. Raises NoSpace, OSError."""
    name, size = pool.take(whole_blocks(needed), whole_blocks(max(needed, wanted)))
    header = Header(id, secrets.token_bytes(SALT_BYTES), sequence, base, released, size)
    file = files.open(name)
    try:
        _write_header(file, header)
    except OSError:
        pool.give_back(name, size)
        raise
    finally:
        file.close()
    return Segment(name, header, is_known=True)


def _write_header(file: SegmentFile, header: Header) -> None:
    """Half of one must not stay: it would say that the segment before it ends where that goes on."""
    try:
        file.write(0, header.packed())
    except OSError:
        with no_way_back():
            file.write(0, bytes(HEADER_BYTES))
            file.sync()
        raise
    with no_way_back():
        file.sync()
