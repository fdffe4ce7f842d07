"""What the files of a journal hold after whatever happened to it, and where it ends.

Torn or damaged? A commit is one write that is on disk before the next one is begun, so of all that was acknowledged
nothing can be missing, and of what was not, everything that is there belongs to the last commit. What the disk has of
that one may be any of its sectors, in any order, so a bad record may well be followed by a good one of the *same*
commit. Hence the rule: where a commit is not whole and no record of a *later* commit stands behind it, it is the torn
end, never acknowledged, and thrown away as a whole. With a record of a later one behind it, it was acknowledged, and is
damaged: nothing is thrown away and the start is refused. The same holds for anything bad in a segment that another one
follows, since a segment is begun only after the last commit before it is on disk.

(A sector that the last commit shares with the one before it holds the same bytes of that one, old or new.)

Records of an earlier use of a file cannot be taken for later ones: it was zeroed before, and its heads were seeded with
another number. What a commit without room has left behind begins where a commit that was acknowledged ended, at or
before the end that is found here, and so is never behind a bad commit with a later beginning; the rest of the file is
zeroed before the next append, so such a thing does not add up. A clean stop ends with a mark, which is a commit of its
own: after it, damage to the last events does not look like a torn end either.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from engine.adapters.segments.files import SegmentFile, SegmentFiles
from engine.adapters.segments.layout import (
    ACTIVE,
    DATA_START,
    ENDS,
    HEADER_BYTES,
    MARK,
    RECORD_BYTES,
    RECORD_MAGIC,
    RELEASED,
    SECTOR_BYTES,
    SEGMENT_MAGIC,
    VERSION,
    Header,
    Record,
    is_whole,
    read_header,
    read_record,
    released_below,
)
from engine.adapters.segments.segment import Segment
from engine.errors import DataDirectoryError

NAME = "journal-"
SUFFIX = ".segment"
SCAN_BYTES = 1 << 20
WAY_OUT = (
    "`rainfocus-engine journal check` says what is damaged and how to go on with the rest; or restore the journal and "
    "state.db from one backup"
)


class Sorted(msgspec.Struct):
    """The files of a journal by what they are: live ones in their order, (name, size) of those that were released and
    are still to be zeroed, and of empty ones. `problems` are sentences: a file of which nothing can be believed."""

    live: list[Segment] = msgspec.field(default_factory=list)
    released: list[tuple[str, int]] = msgspec.field(default_factory=list)
    spare: list[tuple[str, int]] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    newer: list[str] = msgspec.field(default_factory=list)


def file_name(number: int) -> str:
    return f"{NAME}{number:06}{SUFFIX}"


def is_segment(name: str) -> bool:
    return name.startswith(NAME) and name.endswith(SUFFIX) and name[len(NAME) : -len(SUFFIX)].isdigit()


def sort(files: SegmentFiles, *, is_looking: bool = False) -> Sorted:
    """`is_looking`: do not read the files that are no live segments."""
    found = Sorted()
    for name in sorted(filter(is_segment, files.names())):
        file = files.open(name, writing=False)
        try:
            _sort(name, file, found, is_looking)
        finally:
            file.close()
    found.live.sort(key=lambda one: one.header.sequence)
    found.problems += _gaps([one.header for one in found.live])
    return found


def _sort(name: str, file: SegmentFile, found: Sorted, is_looking: bool) -> None:
    size, header = file.size, read_header(file.read(0, HEADER_BYTES))
    if header is None:
        _sort_empty(name, size, file, found, is_looking)
    elif header.version != VERSION:
        found.newer.append(f"{name} has format {header.version}; this version of the engine knows format {VERSION}")
    elif header.state == RELEASED:
        found.released.append((name, size))
    elif header.state != ACTIVE:
        found.problems.append(f"{name}: what it is cannot be read")
    else:
        found.live.append(Segment(name, header))
        if size < header.size:
            found.problems.append(f"{name} is cut off: {size} of {header.size} bytes are there")


def _sort_empty(name: str, size: int, file: SegmentFile, found: Sorted, is_looking: bool) -> None:
    """Without a header. A turned bit where none was yet is no reason not to start; a file of somebody else is."""
    block = file.read(0, DATA_START)
    if is_looking or (is_begun_at_most(block) and _is_empty(file, size)):
        found.spare.append((name, size))
    elif size > DATA_START and _is_empty(file, size):
        found.released.append((name, size))
    else:
        found.problems.append(f"{name}: what it is cannot be read")


def _is_empty(file: SegmentFile, size: int) -> bool:
    """Without a header it was never begun, so there is nothing behind where that should stand."""
    return all(is_zero(file.read(at, SCAN_BYTES)) for at in range(DATA_START, size, SCAN_BYTES))


def is_begun_at_most(block: bytes) -> bool:
    """Is this nothing, or the beginning of a header?"""
    return is_zero(block) or block[:SECTOR_BYTES].rstrip(b"\0")[: len(SEGMENT_MAGIC)] in SEGMENT_MAGIC


def is_zero(data: bytes) -> bool:
    return not data.strip(b"\0")


def _gaps(headers: list[Header]) -> Iterator[str]:
    for one, following in pairwise(headers):
        if following.sequence != one.sequence + 1:
            yield f"segments {one.sequence + 1} to {following.sequence - 1} of the journal are missing"
        if following.id != one.id:
            yield f"segment {following.sequence} is of another journal"
        if following.base < one.base:
            yield f"segment {following.sequence} begins before the one in front of it"


class Tail(msgspec.Struct):
    """The end of the last segment: where the next record goes, its offset, what was noted as released, and how many
    bytes behind it have to be cleared. `damage` says what is wrong with what was acknowledged; "" nothing."""

    end: int
    next: int
    released: int
    appends: int = 0
    torn: int = 0  # bytes behind the end that are not zero any more, up to the last such
    damage: str = ""


def tail_of(segment: Segment, content: bytes) -> Tail:
    """Walks all of the segment, verifies every record, and notes where offsets stand."""
    tail = Tail(DATA_START, segment.base, segment.header.released)
    while (records := _commit_at(content, tail.end, tail.next, segment.seed)) is not None:
        for record in records:
            segment.note(record.first, record.position)
            if record.kind == MARK:
                tail.released = max(tail.released, released_below(content[record.body : record.end]))
            else:
                tail.appends += 1
        tail.end, tail.next = records[-1].end, records[-1].following
    rest = _used_behind(content, tail.end)
    later = _later(content, tail.end, segment.seed) if rest else None
    if later is not None:
        tail.damage = (
            f"{segment.name}: what follows offset {tail.next - 1} is damaged, and commits that were acknowledged stand "
            f"behind it, from offset {later.first} on"
        )
    tail.torn = rest
    segment.end, segment.is_known = tail.end, True
    return tail


def _used_behind(content: bytes, end: int) -> int:
    """How far behind `end` the last byte stands that is not zero; in pieces, since a segment is large."""
    for stop in range(len(content), end, -SCAN_BYTES):
        start = max(end, stop - SCAN_BYTES)
        if used := len(content[start:stop].rstrip(b"\0")):
            return start + used - end
    return 0


def _commit_at(content: bytes, start: int, first: int, seed: int) -> list[Record] | None:
    """The records of the commit that begins here, if all of them are as they were written."""
    records: list[Record] = []
    position = start
    while True:
        record = read_record(content, position, position, seed)
        if record is None or record.commit != start or record.first != first or record.end > len(content):
            return None
        if not is_whole(record, memoryview(content)[record.body : record.end]):
            return None
        records.append(record)
        if record.flags & ENDS:
            return records
        position, first = record.end, record.following


def _later(content: bytes, end: int, seed: int) -> Record | None:
    """The first head of a record behind `end` whose commit begins behind it too."""
    position = content.find(RECORD_MAGIC, end)
    while position >= 0:
        record = read_record(content, position, position, seed)
        if record is not None and record.commit > end:
            return record
        position = content.find(RECORD_MAGIC, position + 1)
    return None


def records_from(
    segment: Segment, file: SegmentFile, position: int, first: int, until: int
) -> Iterator[tuple[Record, bytes]]:
    """Every record of events with its body, from the one of offset `first` that stands at `position`, up to the offset
    `until`. Ends early where the next one is not as it was written."""
    buffer, start = b"", position
    while first < until:
        if len(buffer) - (position - start) < RECORD_BYTES:
            start, buffer = position, file.read(position, SCAN_BYTES)
        record = read_record(buffer, position - start, position, segment.seed)
        if record is None or record.first != first or record.end > segment.size:
            return
        if record.end - start > len(buffer):
            start, buffer = position, file.read(position, max(SCAN_BYTES, record.end - position))
        body = buffer[record.body - start : record.end - start]
        if not is_whole(record, body):
            return
        if record.kind != MARK:
            yield record, body
        position, first = record.end, record.following


def checked(found: Sorted) -> None:
    """Raises DataDirectoryError for what cannot be worked on."""
    if found.newer:
        raise DataDirectoryError(
            f"{found.newer[0]}: it was written by a newer version; run that version, or restore a backup of this one"
        )
    if found.problems:
        raise DataDirectoryError(f"the journal is damaged ({'; '.join(found.problems)}). {WAY_OUT}")
