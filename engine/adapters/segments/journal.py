"""The segment journal: `journal-000001.segment` and so on, one record an append, one write that syncs a commit.

A segment is zeroed ahead of time, since a commit into a file that already has its blocks costs the disk one write and
no change of the file system's own notes. Offsets that were released take nothing but a look at the segments that end
below: they are zeroed as a whole and used again. Until then what was released stands in its file, unless somebody it is
about was forgotten: `erase` looks at all that stands there.

Two threads: the committer writes and syncs, and the keeper does everything else (reads, empties, zeroes, makes files
ahead of time). What segments there are and where they end is changed on the event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from engine.adapters.segments.copying import write_copy
from engine.adapters.segments.files import DirectoryFiles, SegmentFile, SegmentFiles
from engine.adapters.segments.keeper import Keeper, Place, Stretch
from engine.adapters.segments.layout import DATA_START, Packed, commit_of, pack_append, pack_mark
from engine.adapters.segments.opening import Beginning, Opened, begin_segment, open_segments
from engine.adapters.segments.pool import Pool
from engine.adapters.segments.segment import Segment
from engine.adapters.segments.worker import Trust, Worker
from engine.errors import DataDirectoryError, NoSpace, StorageFailed
from engine.model import Append
from engine.ports import JournalSize, JournalTail

LARGEST_BYTES, SMALLEST_BYTES, TINIEST_BYTES = 64 << 20, 1 << 20, 64 << 10
"""Segments double from the smallest to the largest, and are smaller where `max_bytes` is."""
SEGMENTS = 16
"""At least so many segments make up a full journal."""
AHEAD = 8
"""The next segment is made from the moment on that this part of the one before it is in use."""
FULL_AT = 0.95
PROBE_BYTES = 1_024  # there is room when a small append would find it
MARK_ROOM = pack_mark(0).bytes
"""Kept free at the end of a segment for what a clean stop notes."""
SPACE_EVERY_SECONDS = 0.5


class SegmentJournal:
    """See `ports.Journal`. `files` stands for the directory, so that a test can bring its own disk; `beginning` is used
    when there is no journal in it yet."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        min_free_bytes: int = 0,
        files: SegmentFiles | None = None,
        beginning: Beginning | None = None,
    ) -> None:
        self._directory, self._max_bytes, self._min_free_bytes = directory, max_bytes, min_free_bytes
        self._files: SegmentFiles = files or DirectoryFiles(directory)
        self._beginning = beginning or Beginning()
        self._largest = max(TINIEST_BYTES, min(LARGEST_BYTES, max_bytes // SEGMENTS))
        self._trust = Trust("journal")
        self._keeping = Keeper(self._files)
        self._pool = Pool(self._files, min_free_bytes, self._keeping.forget)
        self._committer = Worker("journal commits", self._trust)
        self._keeper = Worker("journal keeper", self._trust, self._background)
        self._segments: list[Segment] = []
        self._file: SegmentFile | None = None  # of the last one, as the committer has it open
        self._next = self._released = 0
        self._sealed_bytes = 0  # of all segments but the last
        self._free = (0, float("-inf"))  # bytes of the disk, and when that was
        self._copies = 0  # backups under way: nothing is zeroed meanwhile
        self._is_free = asyncio.Event()  # no commit is under way
        self._is_free.set()

    def __repr__(self) -> str:
        return f"<SegmentJournal {self._directory.name} next {self._next}>"

    async def open(self) -> JournalTail:
        for worker in (self._committer, self._keeper):
            worker.start()
        try:
            opened = await self._keeper.run(self._open)
        except NoSpace as error:
            raise NoSpace("disk-full", f"no room on the disk to open the journal ({error})") from error
        except StorageFailed as error:
            raise DataDirectoryError(f"the journal cannot be read and written ({error.__cause__ or error})") from error
        self._segments, self._next, self._released = opened.segments, opened.tail.next, opened.tail.released
        self._released = max(self._released, self._segments[0].base)
        self._sealed_bytes = sum(one.size for one in self._segments[:-1])
        self._retire()
        return JournalTail(self._segments[0].header.id, self._released, self._next, int(opened.tail.torn > 0))

    async def append(self, appends: Sequence[Append], /) -> int:
        await self._turn()
        packed = [pack_append(append) for append in appends]
        await self._make_room(sum(one.bytes for one in packed))
        return await self._commit(packed)

    async def read(self, start: int, events: int, /) -> list[Append]:
        stretch, begin = self._stretch(), max(start, self._released)
        return await self._keeper.run(lambda: self._keeping.read(stretch, begin, events))

    def release(self, below: int, /) -> None:
        if below > self._released:
            self._released = min(below, self._next)
            self._retire()

    def size(self) -> JournalSize:
        used = self._sealed_bytes + (self._segments[-1].end if self._segments else 0)
        return JournalSize(used, self._max_bytes, self._free[0])

    async def probe(self) -> None:
        self._keeper.nudge()  # what found no room itself tries again
        await self._turn()
        self._free = (self._free[0], float("-inf"))
        await self._make_room(PROBE_BYTES)

    async def erase(self, below: Mapping[bytes, int], /) -> int:
        """In slices of the keeper's time. What was released as a whole is zeroed when this returns."""
        self._trust.check()
        stretch, rewritten = self._stretch(), 0
        if not below:
            return 0
        place: Place | None = stretch.start()
        while place is not None:
            place, count = await self._keeper.run(partial(self._keeping.erase, stretch, place, below))
            rewritten += count
        while await self._keeper.run(self._zero_a_slice):
            continue
        return rewritten

    async def backup(self, path: Path, /) -> None:
        """All in one segment, as full as it is. Nothing is zeroed meanwhile, however long it takes."""
        stretch, start = self._stretch(), self._released
        self._copies += 1
        try:
            await write_copy(path, self._keeper, self._keeping, stretch, start)
        finally:
            self._copies -= 1
            self._keeper.nudge()

    async def close(self) -> None:
        with suppress(NoSpace, StorageFailed):
            await self._mark()
        await self._committer.close()
        await self._keeper.close()
        self._drop()

    # -- on the event loop ----------------------------------------------------------------------------------------

    def _stretch(self) -> Stretch:
        return Stretch(tuple(self._segments), self._next)

    async def _turn(self) -> None:
        """Until nothing is under way: of a commit whose caller was cut off nobody else waits for the end."""
        while not self._is_free.is_set():
            await self._is_free.wait()
        self._trust.check()
        if self._file is None:
            raise StorageFailed("the journal is not open")

    async def _commit(self, packed: Sequence[Packed]) -> int:
        segment, file, first = self._segments[-1], self._file, self._next
        assert file is not None
        position, following = segment.end, first + sum(one.count for one in packed)
        data = commit_of(packed, first, segment.seed, position)

        def ended(result: Any, error: BaseException | None) -> None:
            self._is_free.set()
            if error is None:
                segment.note(first, position)
                segment.end, self._next = position + len(data), following
                self._look_ahead(segment)

        self._is_free.clear()
        await self._committer.run(lambda: self._write(file, position, data), ended)
        return first

    def _look_ahead(self, segment: Segment) -> None:
        """The next segment is made before it is needed."""
        if segment.end > segment.size // AHEAD and not segment.has_successor:
            segment.has_successor = True
            self._pool.want(self._following_size(segment))
            self._keeper.nudge()

    def _following_size(self, segment: Segment) -> int:
        return min(self._largest, max(2 * segment.size, SMALLEST_BYTES))

    def _retire(self) -> None:
        """Segments that end below what is needed are zeroed; the last one stays: it tells the next offset."""
        while len(self._segments) > 1 and self._segments[1].base <= self._released:
            segment = self._segments.pop(0)
            segment.is_retired = True
            self._sealed_bytes -= segment.size
            self._pool.retire(segment)
        self._keeper.nudge()

    async def _make_room(self, incoming: int) -> None:
        """Raises NoSpace. Mostly there is room already, and nothing is waited for."""
        segment = self._segments[-1]
        begins = segment.end + incoming + MARK_ROOM > segment.size
        refusal = self._no_room(incoming, begins)
        if refusal is not None:  # nobody is refused before the disk is asked again
            self._free = (await self._keeper.run(self._files.free_bytes), time.monotonic())
            refusal = self._no_room(incoming, begins)
        if refusal is not None:
            raise refusal
        if begins:
            await self._begin_another(segment, incoming + DATA_START + MARK_ROOM)

    def _no_room(self, incoming: int, begins: bool) -> NoSpace | None:
        segment = self._segments[-1]
        used = self._sealed_bytes + (segment.size + DATA_START if begins else segment.end)
        if used + incoming > self._max_bytes * FULL_AT:
            return NoSpace("journal-full", f"the journal holds {used} of at most {self._max_bytes} bytes")
        ours = segment.size - segment.end + self._pool.spare_bytes
        if self._free[0] + ours - incoming < self._min_free_bytes:
            return NoSpace("disk-full", f"{self._free[0]} bytes are free, {self._min_free_bytes} have to stay so")
        return None

    async def _begin_another(self, segment: Segment, needed: int) -> None:
        left = self._max_bytes - self._sealed_bytes - segment.size
        wanted = max(needed, min(self._following_size(segment), left))
        base, released, sequence = self._next, self._released, segment.header.sequence + 1

        def begin() -> tuple[Segment, SegmentFile]:
            self._pool.smallest_kept = wanted // 2
            made = begin_segment(self._files, self._pool, segment.header.id, sequence, base, released, needed, wanted)
            return made, self._files.open(made.name)

        def ended(result: Any, error: BaseException | None) -> None:
            self._is_free.set()
            if error is None:
                old, (made, self._file) = self._file, result
                if old is not None:
                    old.close()
                self._sealed_bytes += segment.size
                self._segments.append(made)
                self._retire()

        self._is_free.clear()
        await self._keeper.run(begin, ended)

    async def _mark(self) -> None:
        """What was released, and a commit behind the last one of events."""
        await self._turn()
        if self._segments[-1].end + MARK_ROOM <= self._segments[-1].size:
            await self._commit([pack_mark(self._released)])

    # -- in the committer's thread --------------------------------------------------------------------------------

    def _write(self, file: SegmentFile, position: int, data: bytes) -> None:
        self._trust.check()
        file.commit(position, data)
        now = time.monotonic()
        if now - self._free[1] > SPACE_EVERY_SECONDS:
            self._free = (self._files.free_bytes(), now)

    # -- in the keeper's thread -----------------------------------------------------------------------------------

    def _open(self) -> Opened:
        opened = open_segments(self._files, self._pool, self._beginning, min(self._largest, SMALLEST_BYTES))
        self._file = self._files.open(opened.segments[-1].name)
        self._free = (self._files.free_bytes(), time.monotonic())
        return opened

    def _background(self) -> bool:
        if self._copies or self._trust.failed is not None:
            return False
        return self._pool.slice()

    def _zero_a_slice(self) -> bool:
        """Is there more that was released and stands in a file still?"""
        if not self._pool.is_zeroing():
            return False
        if self._copies:
            raise NoSpace("busy", "what was released is being copied: it is zeroed after that")
        return self._pool.slice()

    def _drop(self) -> None:
        self._pool.drop()
        self._keeping.close()
        if self._file is not None:
            self._file.close()
            self._file = None
