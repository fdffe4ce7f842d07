"""Looking at the segments of a stopped engine without changing them, and saving what is whole of a damaged journal."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from heapq import merge
from operator import itemgetter
from pathlib import Path

import msgspec

from engine.adapters.segments.copying import SegmentWriter
from engine.adapters.segments.files import DirectoryFiles
from engine.adapters.segments.layout import (
    MARK,
    RECORD_MAGIC,
    Packed,
    Record,
    is_whole,
    moved,
    pack_append,
    read_record,
)
from engine.adapters.segments.opening import Beginning, open_segments
from engine.adapters.segments.pool import Pool
from engine.adapters.segments.scan import file_name, is_segment, sort, tail_of
from engine.adapters.segments.segment import Segment
from engine.errors import DataDirectoryError
from engine.model import Append, Event, Lane, Trait
from engine.ports import ConsumerState

FILE = file_name(1)
"""What a backup, and a journal that was saved, is called."""
NOBODY = bytes(32)
"""The key of what was lost: no address has it."""
FILLED_EVENTS = 1_000
SHOWN_PROBLEMS = 10
MOST_LOST = 100_000_000
"""A number that is damaged itself may ask for any number of offsets."""


class Found(msgspec.Struct, frozen=True):
    """A whole record, and the segment that it stands in."""

    record: Record
    segment: Segment


class FoundJournal(msgspec.Struct):
    """What is whole of it. `lost`: [from, to) of offsets that should be there, and are not or not as they were."""

    directory: Path
    exists: bool = False
    id: str = ""
    found: dict[int, Found] = msgspec.field(default_factory=dict)
    first: int = 0
    next: int = 0
    lost: list[tuple[int, int]] = msgspec.field(default_factory=list)
    discarded_frames: int = 0
    problems: list[str] = msgspec.field(default_factory=list)
    foreign: bool = False  # of a newer version: nothing of it is understood here

    @property
    def appends(self) -> int:
        return len(self.found)

    @property
    def events(self) -> int:
        return sum(one.record.count for one in self.found.values())


def holds_segments(directory: Path) -> bool:
    """Is there a segment, of whatever kind, in this directory?"""
    return directory.is_dir() and any(map(is_segment, DirectoryFiles(directory).names()))


def glance_journal(directory: Path) -> tuple[str, int, int]:
    """(id, first offset, next offset) of a journal, whoever works on it: as they are at the moment. Raises
    DataDirectoryError when there is none that can be read."""
    try:
        live = sort(DirectoryFiles(directory), is_looking=True).live
        if not live:
            return "", 0, 0
        tail = tail_of(live[-1], _content(directory, live[-1]))
    except OSError as error:
        raise DataDirectoryError(f"{directory} cannot be read: {error}") from error
    return live[0].header.id, max(live[0].base, tail.released), tail.next


def go_on_from(directory: Path, id: str, following: int) -> None:
    """Make a journal that goes on where another one ended. Raises DataDirectoryError, NoSpace, OSError."""
    files = DirectoryFiles(directory)
    pool = Pool(files, 0, lambda segment: None)
    open_segments(files, pool, Beginning(id, following), 1 << 20)


def _content(directory: Path, segment: Segment) -> bytes:
    file = DirectoryFiles(directory).open(segment.name, writing=False)
    try:
        return file.read(0, segment.size)
    finally:
        file.close()


def inspect_journal(directory: Path, consumers: Sequence[ConsumerState]) -> FoundJournal:
    """`consumers`: what the state knows tells which offsets have to be there. Everything is read once."""
    journal = FoundJournal(directory, holds_segments(directory))
    if not journal.exists and not consumers:
        return journal
    files = sort(DirectoryFiles(directory))
    journal.problems += [*files.newer, *files.problems]
    if not files.live and not journal.problems:
        journal.problems.append("the journal is missing: no segment is there that tells which offsets were given")
    journal.foreign = bool(files.newer)
    journal.id = files.live[0].header.id if files.live else ""
    if not journal.foreign:
        needed_from = min((one.watermark for one in consumers), default=None)
        known = max((max(one.watermark, one.settled_through + 1) for one in consumers), default=0)
        _read(journal, files.live, needed_from, known)
    return journal


def _read(journal: FoundJournal, live: Sequence[Segment], needed_from: int | None, known: int) -> None:
    whole: dict[int, Found] = {}
    end = max([known, *(one.base for one in live)])
    for segment in live:
        content = _content(journal.directory, segment)
        limit = len(content)
        if segment is live[-1]:
            tail = tail_of(segment, content)
            journal.problems += [tail.damage] if tail.damage else []
            if not tail.damage:
                limit, journal.discarded_frames = tail.end, int(tail.torn > 0)
            end = max(end, tail.next)
        for record in _whole_records(segment, content, limit):
            whole[record.first] = Found(record, segment)
            end = max(end, record.following)
    if needed_from is not None:  # what lies before it is released
        whole = {first: one for first, one in whole.items() if one.record.following > needed_from}
    start = min(whole, default=end)
    journal.first = start if needed_from is None else min(start, needed_from)
    if needed_from is None and live:
        journal.first = min(start, max(live[0].base, live[-1].header.released))
    journal.next = end
    journal.found, journal.lost = _in_order(whole, journal.first, end)
    journal.problems += [
        f"the journal: offsets {a} to {b - 1} cannot be read" for a, b in journal.lost[:SHOWN_PROBLEMS]
    ]
    if len(journal.lost) > SHOWN_PROBLEMS:
        journal.problems.append(f"the journal: and {len(journal.lost) - SHOWN_PROBLEMS} more such gaps")


def _whole_records(segment: Segment, content: bytes, limit: int) -> Iterator[Record]:
    """Every record of events whose head and body are as they were written, wherever it stands."""
    position = content.find(RECORD_MAGIC, 0, limit)
    while position >= 0:
        record = read_record(content, position, position, segment.seed)
        step = position + 1
        if record is not None:
            whole = record.end <= limit and is_whole(record, memoryview(content)[record.body : record.end])
            if whole and record.kind != MARK:
                yield record
            step = record.end if record.end <= limit else step
        position = content.find(RECORD_MAGIC, step, limit)


def _in_order(whole: dict[int, Found], start: int, end: int) -> tuple[dict[int, Found], list[tuple[int, int]]]:
    """The records of [start, end) that follow each other, and the gaps between them."""
    kept: dict[int, Found] = {}
    lost = []
    position = start
    for first in sorted(whole):
        if first < position or first >= end:
            continue
        if first > position:
            lost.append((position, first))
        kept[first] = whole[first]
        position = whole[first].record.following
    if position < end:
        lost.append((position, end))
    return kept, lost


# -- saving what is whole ---------------------------------------------------------------------------------------------


def salvage(journal: FoundJournal, directory: Path) -> None:
    """Write a new journal with every record that is whole at its offset. Lost offsets stay taken: each holds an event
    of nobody (`Trait.LOST`), which ends excluded with the reason `lost`. Raises DataDirectoryError, NoSpace."""
    lost = sum(end - begin for begin, end in journal.lost)
    if lost > MOST_LOST:
        raise DataDirectoryError(f"{lost} offsets would be lost: restore a backup, or start anew")
    if (directory / FILE).exists():
        raise DataDirectoryError(f"{directory / FILE} is there already: name an empty folder")
    writer = SegmentWriter(directory / FILE, journal.id or secrets.token_hex(8), journal.next)
    writer.create()
    try:
        for first, packed in merge(_fillings(journal), _records(journal), key=itemgetter(0)):
            writer.add_record(packed, first)
        writer.finish()
    finally:
        writer.close()


def _records(journal: FoundJournal) -> Iterator[tuple[int, Packed]]:
    name, content = "", b""
    for first, one in journal.found.items():
        if one.segment.name != name:
            name, content = one.segment.name, _content(journal.directory, one.segment)
        yield first, moved(one.record, content[one.record.body : one.record.end])


def _fillings(journal: FoundJournal) -> Iterator[tuple[int, Packed]]:
    event = Event(NOBODY, b"{}", Trait.LOST)
    at = max((one.record.accepted_at for one in journal.found.values()), default=0.0)  # or it might expire instead
    for begin, end in journal.lost:
        for first in range(begin, end, FILLED_EVENTS):
            yield first, pack_append(Append([event] * min(FILLED_EVENTS, end - first), "", Lane.LIVE, at))
