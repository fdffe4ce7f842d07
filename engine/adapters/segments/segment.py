"""A segment in memory: which file it is, what it holds, and where in it an offset is to be looked for."""

from __future__ import annotations

from bisect import bisect_right

from engine.adapters.segments.layout import DATA_START, Header

MARK_BYTES = 256 << 10
"""An offset in about so many bytes is remembered with its place."""


class Segment:
    """`end`: where the next record goes, in the one that is written to. Of a full one only the next one's base tells
    where it ends. `marks`: (offset, position) of some records; `is_known`: they cover all of it."""

    def __init__(self, name: str, header: Header, *, is_known: bool = False) -> None:
        self.name, self.header, self.is_known = name, header, is_known
        self.seed, self.base, self.size = header.seed, header.base, header.size
        self.end = DATA_START
        self.has_successor = False  # the next one was asked for
        self.is_retired = False  # released as a whole: nothing may be written to it any more
        self.marks: list[tuple[int, int]] = [(header.base, DATA_START)]

    def __repr__(self) -> str:
        return f"<Segment {self.header.sequence} from {self.base} in {self.name}>"

    def note(self, offset: int, position: int) -> None:
        """A record of this offset begins here; kept when the last one that is kept is far enough away."""
        if position - self.marks[-1][1] >= MARK_BYTES:
            self.marks.append((offset, position))

    def before(self, offset: int) -> tuple[int, int]:
        """The nearest place that is known at or before this offset."""
        return self.marks[bisect_right(self.marks, (offset, self.size)) - 1]
