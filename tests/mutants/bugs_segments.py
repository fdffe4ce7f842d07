"""Bugs in the segment journal."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from bug import bug, swap

from engine.adapters.segments import keeper, layout, opening, scan
from engine.adapters.segments.files import SegmentFile
from engine.adapters.segments.journal import SegmentJournal
from engine.adapters.segments.keeper import Keeper
from engine.adapters.segments.pool import Pool
from engine.adapters.segments.rewriting import Rewrite, Rewriter, _apply
from engine.adapters.segments.worker import Trust
from engine.errors import StorageFailed

SEGMENTS = "tests/adapters/test_segments.py"
DAMAGE = "tests/storage/test_segment_damage.py"
POWER = "tests/storage/test_power_loss.py"


@bug(
    1,
    f"{SEGMENTS}::test_every_commit_is_one_write_and_one_sync",
    f"{POWER}::test_nothing_acknowledged_is_lost_of_segments_when_the_power_goes",
)
def segment_written_and_not_synced() -> None:
    """202 for what is in the page cache only"""
    swap(SegmentJournal, "_write", lambda original, journal, file, position, data: file.write(position, data))


@bug(1, f"{SEGMENTS}::test_an_io_error_of_a_commit_is_final_and_never_retried")
def segment_tries_again_after_a_failed_sync() -> None:
    """a sync that fails is followed by others, which the kernel lets pass"""
    swap(Trust, "fail", lambda original, trust, error: StorageFailed(str(error)))


@bug(1, f"{DAMAGE}::test_a_gap_with_a_later_commit_behind_it_is_damage")
def segment_takes_damage_for_a_torn_end() -> None:
    """acknowledged commits behind a turned bit are thrown away without a word"""
    scan._later = lambda content, end, seed: None


@bug(1, f"{DAMAGE}::test_sectors_of_the_last_commit_in_any_order_are_a_torn_end")
def segment_takes_a_torn_end_for_damage() -> None:
    """a power loss in a commit of several records keeps the engine from starting"""

    def later(content: bytes, end: int, seed: int) -> Any:
        position = content.find(layout.RECORD_MAGIC, end + 1)
        while position >= 0:
            if (record := layout.read_record(content, position, position, seed)) is not None:
                return record
            position = content.find(layout.RECORD_MAGIC, position + 1)
        return None

    scan._later = later


@bug(1, f"{DAMAGE}::test_a_commit_that_is_torn_at_any_byte_is_thrown_away_as_a_whole")
def segment_leaves_a_torn_end_where_it_is() -> None:
    """what was thrown away stands behind the end still, and a shorter commit is followed by the rest of it"""

    def end(original: Callable[..., Any], files: Any, found: Any) -> Any:
        last = found.live[-1]
        return scan.tail_of(last, files.open(last.name).read(0, last.size))

    swap(opening, "_end", end)


@bug(1, f"{DAMAGE}::test_records_of_an_earlier_use_are_never_taken_for_new_ones")
def segment_heads_are_not_seeded() -> None:
    """a file that is used again without being zeroed gives back what it held before"""
    layout.Header.seed = property(lambda header: 7)  # type: ignore[assignment]


@bug(1, f"{SEGMENTS}::test_half_a_header_does_not_stay")
def segment_leaves_half_a_header() -> None:
    """a segment that could not be begun hides what is appended to the one before it"""

    def write(original: Callable[..., Any], file: SegmentFile, header: layout.Header) -> None:
        file.write(0, header.packed())
        file.sync()

    swap(opening, "_write_header", write)


@bug(1, f"{POWER}::test_nothing_acknowledged_is_lost_of_segments_when_the_power_goes")
def segment_rewrites_without_a_plan() -> None:
    """a power loss while somebody is forgotten tears the events of others"""

    def carry_out(original: Callable[..., Any], rewriter: Rewriter, rewrites: Sequence[Rewrite], target: Any) -> None:
        _apply(rewrites, target)

    swap(Rewriter, "carry_out", carry_out)


@bug(1, f"{DAMAGE}::test_a_turned_bit_is_noticed_and_costs_the_last_commit_at_most")
def segment_body_not_checked() -> None:
    """a damaged event is taken for what was written"""
    scan.is_whole = lambda record, body: True


@bug(9, f"{SEGMENTS}::test_released_segments_are_zeroed_and_used_again")
def segment_not_zeroed_when_released() -> None:
    """what was released stands in files that are used again"""
    swap(Pool, "_write_slice", lambda original, pool, filling: setattr(filling, "position", filling.size))


@bug(9, f"{SEGMENTS}::test_what_was_released_and_stands_in_a_file_still_is_erased_too")
def segment_erases_what_is_needed_only() -> None:
    """a forgotten person stays in the part of a segment that was released"""

    def erase(original: Callable[..., Any], journal: SegmentJournal, below: Any) -> Any:
        journal._keeping.erase = _after(journal)  # type: ignore[method-assign]
        return original(journal, below)

    def _after(journal: SegmentJournal) -> Any:
        def slice(stretch: Any, place: Any, below: Any) -> Any:
            kept = keeper.erase_events
            keeper.erase_events = lambda events, first, below: (
                kept(events, first, below) if first >= journal._released else None
            )
            try:
                return Keeper.erase(journal._keeping, stretch, place, below)
            finally:
                keeper.erase_events = kept

        return slice

    swap(SegmentJournal, "erase", erase)


@bug(1, f"{DAMAGE}::test_a_turned_bit_in_a_header_costs_nothing")
def segment_header_stands_once() -> None:
    """one turned bit costs a segment"""
    packed = layout.Header.packed
    layout.Header.packed = lambda header: packed(header)[: layout.SECTOR_BYTES] + bytes(layout.SECTOR_BYTES)  # type: ignore[method-assign]


@bug(1, f"{DAMAGE}::test_records_of_an_earlier_use_are_never_taken_for_new_ones")
def segment_heads_may_stand_anywhere() -> None:
    """a record is taken for one wherever its bytes turn up"""
    layout._seed_at = lambda position, seed: zlib.crc32(b"")
