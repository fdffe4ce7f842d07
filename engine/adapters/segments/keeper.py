"""What is done with segments beside committing to them: read, emptied, copied. All in one thread, the keeper's, so that
no reader meets a record that is being rewritten, and nothing is rewritten in a file that is being zeroed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from engine.adapters.segments.files import SegmentFile, SegmentFiles
from engine.adapters.segments.layout import DATA_START, Record, append_from, moved, record_of, rewritten
from engine.adapters.segments.rewriting import Rewrite, Rewriter
from engine.adapters.segments.scan import records_from
from engine.adapters.segments.segment import Segment
from engine.core.codec import erase_events
from engine.errors import StorageFailed
from engine.model import NOTHING, Append

ERASE_BYTES = 1 << 20
COPY_BYTES = 4 << 20
REMEMBERED_PLACES = 64
OPEN_FILES = 4


class Place(msgspec.Struct, frozen=True):
    """A record of this offset begins at this position of that segment (the nth of those that are looked at)."""

    nth: int
    position: int
    first: int


class Stretch(msgspec.Struct, frozen=True):
    """Segments one after the other, and the offset that the last of them ends before."""

    segments: Sequence[Segment]
    following: int

    def until(self, nth: int) -> int:
        return self.segments[nth + 1].base if nth + 1 < len(self.segments) else self.following

    def start(self) -> Place:
        return Place(0, DATA_START, self.segments[0].base)


class Copied(msgspec.Struct, frozen=True):
    """Records as bytes, where the next ones stand, and the offset of the first that was copied (NOTHING: none)."""

    following: Place | None
    data: bytes
    first: int


def missing(first: int, end: int) -> StorageFailed:
    return StorageFailed(f"offsets {first} to {end - 1} are missing or damaged")


class Keeper:
    def __init__(self, files: SegmentFiles) -> None:
        self._files, self._rewriter = files, Rewriter(files)
        self._open: OrderedDict[str, SegmentFile] = OrderedDict()
        self._places: OrderedDict[int, tuple[Segment, int]] = OrderedDict()  # where readers ended
        self._reached: tuple[Segment, Record] | None = None

    def read(self, stretch: Stretch, start: int, events: int) -> list[Append]:
        """Whole appends from `start` on, the first one cut. Raises StorageFailed when one is not there."""
        found: list[Append] = []
        nth = max(0, sum(one.base <= start for one in stretch.segments) - 1)
        for record, body in self._records(stretch, nth, start):
            if record.following <= start:
                continue
            append = append_from(record, body)
            if append.first < start:
                append.events, append.first = append.events[start - append.first :], start
            found.append(append)
            events -= len(append.events)
            if events <= 0:
                break
        self._remember()
        return found

    def _records(self, stretch: Stretch, nth: int, start: int) -> Iterator[tuple[Record, bytes]]:
        """From the record that holds `start` on, or one before it."""
        while nth < len(stretch.segments) and start < stretch.following:
            segment, until = stretch.segments[nth], stretch.until(nth)
            first, position = self._before(segment, start)
            for record, body in records_from(segment, self._file(segment), position, first, until):
                first = record.following
                if not segment.is_known and record.first > segment.marks[-1][0]:
                    segment.note(record.first, record.position)
                self._reached = (segment, record)
                yield record, body
            if first != until:
                raise missing(first, until)
            nth, start = nth + 1, until

    def _before(self, segment: Segment, start: int) -> tuple[int, int]:
        known, position = self._places.get(start, (None, 0))
        return (start, position) if known is segment else segment.before(start)

    def _remember(self) -> None:
        """Most readers go on where they ended."""
        if self._reached is not None:
            segment, record = self._reached
            self._places[record.following] = (segment, record.end)
            self._reached = None
        if len(self._places) > REMEMBERED_PLACES:
            self._places.popitem(last=False)

    def erase(self, stretch: Stretch, place: Place, below: Mapping[bytes, int]) -> tuple[Place | None, int]:
        """Empty what is to be emptied in one slice of a segment; where the next one begins, and how many were
        rewritten. What was released is looked at too: it stands in the file as long as something else of it is
        needed."""
        segment, until = stretch.segments[place.nth], stretch.until(place.nth)
        if segment.is_retired:
            return _next(stretch, place), 0
        rewrites, position, first = list[Rewrite](), place.position, place.first
        for record, body in records_from(segment, self._file(segment), position, first, until):
            events = erase_events(append_from(record, body).events, record.first, below)
            if events is not None:
                data = rewritten(record, body, events, segment.seed)
                rewrites.append(Rewrite(segment.header.sequence, record.position, data))
            position, first = record.end, record.following
            if position - place.position >= ERASE_BYTES:
                break
        else:
            if first != until:
                raise missing(first, until)
        if rewrites:
            self._rewriter.carry_out(rewrites, self._file(segment))
        return Place(place.nth, position, first) if first < until else _next(stretch, place), len(rewrites)

    def copy(self, stretch: Stretch, place: Place, start: int, seed: int, target: int) -> Copied:
        """About `COPY_BYTES` of the records from `place` on, as they look at the position `target` of a segment with
        this seed. What ends at or before the offset `start` is left out."""
        segment, until = stretch.segments[place.nth], stretch.until(place.nth)
        parts, begin, position, first = list[bytes](), NOTHING, place.position, place.first
        for record, body in records_from(segment, self._file(segment), position, first, until):
            position, first = record.end, record.following
            if first > start:
                begin = record.first if begin == NOTHING else begin
                parts += record_of(moved(record, body), record.first, 0, seed, target, ends=True)
                target += record.end - record.position
            if position - place.position >= COPY_BYTES:
                break
        else:
            if first != until:
                raise missing(first, until)
        following = Place(place.nth, position, first) if first < until else _next(stretch, place)
        return Copied(following, b"".join(parts), begin)

    def forget(self, segment: Segment) -> None:
        """It was retired: its file may become another segment."""
        file = self._open.pop(segment.name, None)
        if file is not None:
            file.close()
        for offset in [offset for offset, (known, _) in self._places.items() if known is segment]:
            del self._places[offset]

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _file(self, segment: Segment) -> SegmentFile:
        file = self._open.pop(segment.name, None) or self._files.open(segment.name)
        self._open[segment.name] = file
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file


def _next(stretch: Stretch, place: Place) -> Place | None:
    nth = place.nth + 1
    return Place(nth, DATA_START, stretch.segments[nth].base) if nth < len(stretch.segments) else None
