"""Records are rewritten where they stand, and a crash in the middle of it costs nothing.

What a record is to become is written to a file of its own first, with a checksum, and made durable; then it goes to its
place; then that file is zeroed. A start that finds it whole does it all again, one that finds it torn knows that it was
not begun. Every step is durable before the next.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import msgspec

from engine.adapters.segments.files import SegmentFile, SegmentFiles, no_way_back
from engine.adapters.segments.segment import Segment

NAME = "journal-rewriting"
_MAGIC = b"RFREWRIT"
_HEAD = struct.Struct("<8sQI")
_ENTRY = struct.Struct("<QQI")


class Rewrite(msgspec.Struct, frozen=True):
    """What is to stand at `position` of the segment with this sequence."""

    sequence: int
    position: int
    data: bytes


def _packed(rewrites: Sequence[Rewrite]) -> bytes:
    entries = b"".join(_ENTRY.pack(one.sequence, one.position, len(one.data)) + one.data for one in rewrites)
    return _HEAD.pack(_MAGIC, len(entries), zlib.crc32(entries)) + entries


def _unpacked(content: bytes) -> list[Rewrite]:
    """[] when it is not whole: nothing was begun then."""
    if len(content) < _HEAD.size:
        return []
    magic, length, checksum = _HEAD.unpack_from(content)
    entries = content[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or len(entries) != length or zlib.crc32(entries) != checksum:
        return []
    found, position = [], 0
    while position < length:
        sequence, place, size = _ENTRY.unpack_from(entries, position)
        position += _ENTRY.size + size
        found.append(Rewrite(sequence, place, entries[position - size : position]))
    return found


class Rewriter:
    def __init__(self, files: SegmentFiles) -> None:
        self._files = files

    def carry_out(self, rewrites: Sequence[Rewrite], target: SegmentFile) -> None:
        """All of one segment, whose file is `target`."""
        file = self._open()
        try:
            plan = _packed(rewrites)
            file.write(0, plan)
            with no_way_back():
                file.sync()
                _apply(rewrites, target)
                file.write(0, bytes(file.size))
                file.sync()
        finally:
            file.close()

    def finish(self, segments: Sequence[Segment]) -> int:
        """What a crash has cut off; how many records were put in their place."""
        if NAME not in self._files.names():
            return 0
        file = self._files.open(NAME)
        try:
            content = file.read(0, file.size)
            done = self._again(_unpacked(content), {one.header.sequence: one for one in segments})
            if content.strip(b"\0"):
                file.write(0, bytes(len(content)))
                file.sync()
        finally:
            file.close()
        return done

    def _again(self, rewrites: Sequence[Rewrite], segments: Mapping[int, Segment]) -> int:
        """A segment that was released since is gone, with what was to be rewritten in it."""
        for sequence in {one.sequence for one in rewrites} & segments.keys():
            target = self._files.open(segments[sequence].name)
            try:
                _apply([one for one in rewrites if one.sequence == sequence], target)
            finally:
                target.close()
        return len(rewrites)

    def _open(self) -> SegmentFile:
        if NAME in self._files.names():
            return self._files.open(NAME)
        file = self._files.create(NAME)
        self._files.sync_directory()
        return file


def _apply(rewrites: Sequence[Rewrite], target: SegmentFile) -> None:
    for one in rewrites:
        target.write(one.position, one.data)
    target.sync()
