"""The files that hold nothing: zeroed ahead of time, so that a commit never waits for a file system to find room.

A segment that was released is zeroed before anything else may become of its file: first its header says that it was
released, then the records go, and the header last, so that a crash in between is seen and finished. All of this happens
in the keeper's thread, one slice at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from engine.adapters.segments.files import SegmentFile, SegmentFiles
from engine.adapters.segments.layout import DATA_START, RELEASED, Header
from engine.adapters.segments.scan import file_name, is_segment
from engine.adapters.segments.segment import Segment
from engine.errors import NoSpace

SLICE_BYTES = 1 << 20
KEPT_SPARES = 2
BLOCK_BYTES = 4_096
_ZEROS = bytes(SLICE_BYTES)


def whole_blocks(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


class _Filling:
    """A file that is being filled with zeros, from `position` on."""

    def __init__(self, name: str, file: SegmentFile, size: int, *, is_new: bool) -> None:
        self.name, self.file, self.size, self.is_new = name, file, size, is_new
        self.position = 0 if is_new else DATA_START


class Pool:
    """`spare_bytes`: what can be used without asking the file system."""

    def __init__(self, files: SegmentFiles, min_free_bytes: int, forget: Callable[[Segment], None]) -> None:
        self._files, self._min_free_bytes, self._forget = files, min_free_bytes, forget
        self._spare: list[tuple[str, int]] = []
        self._released: deque[tuple[str, int]] = deque()
        self._retired: deque[Segment] = deque()
        self._filling: _Filling | None = None
        self._wanted = 0
        self.smallest_kept = 0

    @property
    def spare_bytes(self) -> int:
        return sum(size for _, size in self._spare)

    def adopt(self, released: list[tuple[str, int]], spare: list[tuple[str, int]]) -> None:
        """What was found when the journal was opened."""
        self._released.extend(released)
        self._spare.extend(spare)

    def retire(self, segment: Segment) -> None:
        self._retired.append(segment)

    def want(self, size: int) -> None:
        """Have a file of at least this size ready."""
        self._wanted = size

    def take(self, needed: int, wanted: int) -> tuple[str, int]:
        """An empty file of at least `needed` bytes; `wanted` if one has to be made. Raises NoSpace."""
        if self._filling is not None and self._filling.is_new and self._filling.size >= needed:
            self._finish()
        for one in sorted(self._spare, key=lambda it: it[1]):
            if one[1] >= needed:
                self._spare.remove(one)
                return one
        if self._filling is not None:
            self._finish()
        self._begin(wanted if self._fits(wanted) else needed)
        self._finish(keep=True)
        return self._spare.pop()

    def give_back(self, name: str, size: int) -> None:
        """It was taken, and could not be used."""
        self._released.append((name, size))

    def slice(self) -> bool:
        """One slice of background work; is there more?"""
        if self._filling is None and not self._next():
            return False
        self._step()
        return True

    def drop(self) -> None:
        """Close what is open; whatever was not finished is found as such by the next open."""
        if self._filling is not None:
            self._filling.file.close()
            self._filling = None

    def _next(self) -> bool:
        """What is to be filled next, if anything."""
        if self._retired:
            self._released.append(self._mark_released(self._retired[0]))
            self._retired.popleft()
        if self._released:
            name, size = self._released[0]
            self._filling = _Filling(name, self._files.open(name), size, is_new=False)
            self._released.popleft()
            return True
        wanted, self._wanted = self._wanted, 0
        if wanted and not any(size >= wanted for _, size in self._spare) and self._fits(wanted):
            self._begin(wanted)
            return True
        return False

    def is_zeroing(self) -> bool:
        """Does anything that was released stand in a file still?"""
        return bool(self._retired or self._released) or (self._filling is not None and not self._filling.is_new)

    def _mark_released(self, segment: Segment) -> tuple[str, int]:
        self._forget(segment)
        old = segment.header
        header = Header(old.id, old.salt, old.sequence, old.base, old.released, old.size, RELEASED)
        file = self._files.open(segment.name)
        try:
            file.write(0, header.packed())
            file.sync()
        finally:
            file.close()
        return segment.name, segment.size

    def _fits(self, size: int) -> bool:
        return self._files.free_bytes() - size >= self._min_free_bytes

    def _begin(self, size: int) -> None:
        if not self._fits(size):
            free = self._files.free_bytes()
            raise NoSpace("disk-full", f"{free} bytes are free, {self._min_free_bytes} have to stay so")
        numbers = [int(name[8:-8]) for name in self._files.names() if is_segment(name)]
        name = file_name(max(numbers, default=0) + 1)
        self._filling = _Filling(name, self._files.create(name), size, is_new=True)

    def _finish(self, *, keep: bool = False) -> None:
        while self._filling is not None:
            self._step(keep=keep)

    def _step(self, *, keep: bool = False) -> None:
        """Another slice of zeros; the file is a spare once it is full of them."""
        filling = self._filling
        assert filling is not None
        try:
            self._write_slice(filling)
            if filling.position < filling.size:
                return
            if filling.is_new:
                self._files.sync_directory()
            else:
                filling.file.write(0, bytes(DATA_START))
                filling.file.sync()
        except OSError:
            self._give_up(filling)
            raise
        filling.file.close()
        self._filling = None
        self._keep(filling, always=keep or filling.is_new)

    def _write_slice(self, filling: _Filling) -> None:
        length = min(SLICE_BYTES, filling.size - filling.position)
        filling.file.write(filling.position, _ZEROS[:length])
        filling.file.sync()
        filling.position += length

    def _keep(self, filling: _Filling, *, always: bool) -> None:
        if always or (len(self._spare) < KEPT_SPARES and filling.size >= self.smallest_kept):
            self._spare.append((filling.name, filling.size))
        else:
            self._files.remove(filling.name)

    def _give_up(self, filling: _Filling) -> None:
        """A new file without room takes none; one that was being zeroed is tried again."""
        self._filling = None
        filling.file.close()
        if filling.is_new:
            with suppress(OSError):
                self._files.remove(filling.name)
        else:
            self._released.append((filling.name, filling.size))
