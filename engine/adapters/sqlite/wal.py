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
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
MAGIC = (0x377F0682, 0x377F0683)  # the lowest bit says: checksums of big-endian words
DAMAGED_BITS = 1  # salts are random: those of another log never differ in so few
_WORD = 0xFFFFFFFF


class Frame(msgspec.Struct, frozen=True):
    page: int
    ends_commit: bool
    position: int  # of its header, in the file
    belongs: bool  # to this log, not to an earlier one whose place was taken; its salts may have a flipped bit


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
        self.page_size = page_size
        self.header_is_whole = magic in MAGIC and self._sum(content[:24], (0, 0)) == struct.unpack_from(
            ">II", content, 24
        )

    def frames(self) -> list[Frame]:
        """Every whole frame up to the last that belongs to this log; none if the header is not whole."""
        found = list(self._frames()) if self.header_is_whole else []
        while found and not found[-1].belongs:
            found.pop()
        return found

    def _frames(self) -> Iterator[Frame]:
        step = FRAME_HEADER_BYTES + self.page_size
        for position in range(HEADER_BYTES, len(self.content) - step + 1, step):
            page, pages = struct.unpack_from(">II", self.content, position)
            yield Frame(page, pages > 0, position, self._salts_differ(position) <= DAMAGED_BITS)

    def page(self, frame: Frame) -> bytes:
        start = frame.position + FRAME_HEADER_BYTES
        return self.content[start : start + self.page_size]

    def follows(self, frame: Frame, before: Frame) -> bool:
        """Is it as it was written, behind the frame before it, going by the checksum that stands there?"""
        seed = struct.unpack_from(">II", self.content, before.position + 16)
        expected = struct.unpack_from(">II", self.content, frame.position + 16)
        head = self.content[frame.position : frame.position + 8]
        return not self._salts_differ(frame.position) and self._sum(self.page(frame), self._sum(head, seed)) == expected

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

    Raises OSError, and sqlite3.Error when the database itself cannot be read."""
    if not wal_of(path).exists() or not wal_of(path).stat().st_size:  # cut, and nothing was written since
        return WalTail()
    wal = Wal(wal_of(path).read_bytes())
    if not wal.header_is_whole:
        return WalTail(1, 0, acknowledged=len(wal.content) > HEADER_BYTES + FRAME_HEADER_BYTES)
    frames = wal.frames()
    if not frames:
        return WalTail()
    if not path.exists() or not path.stat().st_size:
        return WalTail(len(frames), 0, acknowledged=True)  # SQLite deletes the WAL of an empty file
    taken = _taken(path)
    return WalTail(len(frames), taken, _acknowledged(wal, frames[taken:]))


def _acknowledged(wal: Wal, behind: list[Frame]) -> bool:
    """Does a commit end among these, with a whole frame of a later one behind it?"""
    ends = [index for index, frame in enumerate(behind) if frame.ends_commit and frame.belongs]
    return bool(ends) and any(
        wal.follows(behind[index], behind[index - 1]) for index in range(ends[0] + 1, len(behind))
    )


def _taken(path: Path) -> int:
    """How many frames SQLite takes (WAL-index format: mxFrame). A connection that cannot write leaves the WAL alone."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        with path.with_name(path.name + "-shm").open("rb") as index:
            return int.from_bytes(index.read(20)[16:20], sys.byteorder)
