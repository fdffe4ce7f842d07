"""What stands in a -wal file: which of its frames SQLite is going to take, and whether it is right about the others.

SQLite ends its recovery at the first frame whose checksum does not match, and throws away all that follows. That is
right for the last, unfinished commit. It is wrong for a flipped bit further ahead: whatever was committed behind it was
acknowledged, and would be gone without a word. With synchronous=FULL a commit is on disk before the next one begins, so
a commit with a whole frame behind it was acknowledged. (Layout: SQLite file format, section 4.)
"""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
MAGIC = (0x377F0682, 0x377F0683)  # the lowest bit says: checksums of big-endian words
PAGE_SIZE_AT = slice(16, 18)  # in the header of a database; 1 stands for the largest, which has no room there
SMALLEST_PAGE_BYTES, LARGEST_PAGE_BYTES = 512, 65_536
DAMAGED_BITS = 1  # salts are random: those of another log never differ in so few
_WORD = 0xFFFFFFFF


class Frame(msgspec.Struct, frozen=True):
    page: int
    ends_commit: bool
    position: int  # of its header, in the file
    belongs: bool  # to this log, not to an earlier one whose place was taken; its salts may have a flipped bit


BEFORE_THE_FIRST = Frame(0, False, 8, True)
"""The header, in the place of a frame before the first one: its checksum stands where a frame's would."""


class WalTail(msgspec.Struct, frozen=True):
    """`frames` belong to the log, `taken` of them SQLite takes. `acknowledged`: whole commits are among the others."""

    frames: int = 0
    taken: int = 0
    acknowledged: bool = False

    @property
    def discarded(self) -> int:
        return self.frames - self.taken


class Wal:
    """The bytes of one -wal file, and the frames in them."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        magic, _, page_size = struct.unpack_from(">III", content) if len(content) >= HEADER_BYTES else (0, 0, 0)
        self._order = "big" if magic == MAGIC[1] else "little"
        self.salts = content[16:24]
        self.page_size = page_size  # as the header says
        self.header_is_whole = magic in MAGIC and self._sum(content[:24], (0, 0)) == struct.unpack_from(
            ">II", content, 24
        )

    def frames(self) -> list[Frame]:
        """Every whole frame up to the last that belongs to this log; none if the header is not whole."""
        return self._up_to_the_last(self.page_size) if self.header_is_whole else []

    def frames_of_size(self, page_size: int) -> list[Frame]:
        """Those of this log even if its header is damaged, going by the page size of the database."""
        if not self.header_is_whole:
            self.salts = self.content[HEADER_BYTES + 8 : HEADER_BYTES + 16]
            self._order = sys.byteorder
        return [frame for frame in self._up_to_the_last(page_size) if frame.belongs]

    def _up_to_the_last(self, page_size: int) -> list[Frame]:
        found = list(self._frames(page_size))
        while found and not found[-1].belongs:
            found.pop()
        return found

    def _frames(self, page_size: int) -> Iterator[Frame]:
        step = FRAME_HEADER_BYTES + page_size
        for position in range(HEADER_BYTES, len(self.content) - step + 1, step):
            page, pages = struct.unpack_from(">II", self.content, position)
            yield Frame(page, pages > 0, position, self._salts_differ(position) <= DAMAGED_BITS)

    def stands(self, frames: Sequence[Frame], index: int, page_size: int) -> bool:
        """Is this frame as it was written, going by the frames before it? The checksum of the one before seeds its
        own; where that is damaged, the one it should have had does."""
        before = frames[index - 1] if index else BEFORE_THE_FIRST
        found = self._checksum(frames[index])
        if self._salts_differ(frames[index].position):
            return False
        if self._computed(frames[index], self._checksum(before), page_size) == found:
            return True
        seed = self._checksum(frames[index - 2] if index > 1 else BEFORE_THE_FIRST)
        return index > 0 and self._computed(frames[index], self._computed(before, seed, page_size), page_size) == found

    def page(self, frame: Frame, page_size: int) -> bytes:
        start = frame.position + FRAME_HEADER_BYTES
        return self.content[start : start + page_size]

    def _checksum(self, frame: Frame) -> tuple[int, ...]:
        return struct.unpack_from(">II", self.content, frame.position + 16)

    def _computed(self, frame: Frame, seed: tuple[int, ...], page_size: int) -> tuple[int, int]:
        head = self._sum(self.content[frame.position : frame.position + 8], seed)
        return self._sum(self.page(frame, page_size), head)

    def _salts_differ(self, position: int) -> int:
        """In how many bits the salts of the frame there differ from the header's."""
        salts = self.content[position + 8 : position + 16]
        return (int.from_bytes(salts, "big") ^ int.from_bytes(self.salts, "big")).bit_count()

    def _sum(self, data: bytes, seed: tuple[int, ...]) -> tuple[int, int]:
        first, second = seed
        words = struct.unpack(f"{'>' if self._order == 'big' else '<'}{len(data) // 4}I", data)
        for even, odd in zip(words[::2], words[1::2], strict=True):
            first = (first + even + second) & _WORD
            second = (second + odd + first) & _WORD
        return first, second


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def examine(path: Path) -> WalTail:
    """What SQLite will make of the -wal file of this database. Changes nothing, not even by closing it.

    Raises OSError, and `files.DAMAGE` when the database itself cannot be read."""
    if not wal_of(path).exists() or not wal_of(path).stat().st_size:  # cut, and nothing was written since
        return WalTail()
    wal = Wal(wal_of(path).read_bytes())
    if not wal.header_is_whole:
        has_frames = len(wal.content) > HEADER_BYTES + FRAME_HEADER_BYTES
        return WalTail(1, 0, acknowledged=has_frames and not _is_copied(wal, path))
    frames = wal.frames()
    if not frames:
        return WalTail()
    if not path.exists() or not path.stat().st_size:
        return WalTail(len(frames), 0, acknowledged=True)  # SQLite deletes the WAL of an empty file
    taken = _taken(path)
    return WalTail(len(frames), taken, _acknowledged(wal, frames, taken))


def _is_copied(wal: Wal, path: Path) -> bool:
    """Is all that was committed behind a damaged header in the database as well? Then the damage is no more than a
    header that was being written when the power went: a log is begun anew only after a checkpoint of all of it."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        size = _page_bytes(file.read(PAGE_SIZE_AT.stop)[PAGE_SIZE_AT])
        frames = wal.frames_of_size(size) if size else []
        end = max((index for index, frame in enumerate(frames, 1) if frame.ends_commit), default=0)
        newest = {frame.page: wal.page(frame, size) for frame in frames[:end]}
        return bool(newest) and all(_page_of(file, page, size) == content for page, content in newest.items())


def _page_bytes(found: bytes) -> int:
    """0 when it is none."""
    size = int.from_bytes(found, "big")
    size = LARGEST_PAGE_BYTES if size == 1 else size
    return size if size >= SMALLEST_PAGE_BYTES and size.bit_count() == 1 else 0


def _page_of(file: BinaryIO, page: int, size: int) -> bytes:
    file.seek((page - 1) * size)
    return file.read(size)


def _acknowledged(wal: Wal, frames: Sequence[Frame], taken: int) -> bool:
    """Does a whole commit end behind those that are taken, with a whole frame of a later one behind it?

    The frame that ends it has to be as it was written: a torn header may have the mark of an earlier log."""
    whole = [index for index in range(taken, len(frames)) if wal.stands(frames, index, wal.page_size)]
    return any(frames[index].ends_commit for index in whole[:-1])


def _taken(path: Path) -> int:
    """How many frames SQLite takes (WAL-index format: mxFrame). A connection that cannot write leaves the WAL alone."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        with path.with_name(path.name + "-shm").open("rb") as index:
            return int.from_bytes(index.read(20)[16:20], sys.byteorder)
