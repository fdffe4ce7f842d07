"""Bugs in what is durable, and when it is said to be."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bug import bug, swap

from engine.adapters.sqlite import files, journal, journal_sql, state
from engine.adapters.sqlite.worker import SqliteWorker
from engine.assembly import build
from engine.core import codec
from engine.dispatcher.consumer import Consumer
from engine.errors import StorageFailed
from engine.model import Append
from engine.pipeline.commit import CommitStage, Told
from engine.pipeline.pipeline import Pipeline
from engine.pipeline.reader import Reader
from engine.pipeline.settler import Settler


@bug(1, "tests/assembly/test_storage_faults.py::test_everybody_who_waits_for_the_failed_commit_is_told")
def acknowledge_before_the_commit() -> None:
    """202 before the fsync: what is acknowledged may never reach the disk"""

    def hand_in(original: Callable[..., None], stage: CommitStage, append: Append, told: Told) -> None:
        original(stage, append, lambda result: None)  # it is in the queue, and nobody waits for it any more
        asyncio.get_running_loop().call_soon(told, stage.next_offset)

    swap(CommitStage, "hand_in", hand_in)


@bug(1, "tests/adapters/test_sqlite_durability.py::test_every_commit_is_synced")
def commit_without_fsync() -> None:
    """synchronous=OFF: a commit returns before its bytes are on the disk"""
    for module, name in ((journal, "WRITER_PRAGMAS"), (state, "PRAGMAS")):
        off = [pragma.replace("synchronous=FULL", "synchronous=OFF") for pragma in getattr(module, name)]
        setattr(module, name, tuple(off))


@bug(1, "tests/adapters/test_sqlite_durability.py::test_the_name_of_a_new_file_is_durable_once_it_is_open")
def directory_not_fsynced() -> None:
    """a new journal.db may be gone after a power loss, acknowledged events with it"""
    files.sync_directory.__code__ = (lambda directory: None).__code__  # it is a default of parameters as well


@bug(1, "tests/adapters/test_sqlite_faults.py::test_a_flipped_bit_in_the_tail_is_found_at_open")
def checksum_not_checked() -> None:
    """a damaged row is taken for what was written"""

    def unpack(row: journal_sql.Row) -> Append:
        first, _, source, lane, accepted_at, _, payload = row
        return Append(codec.unpack_events(payload), source, lane, accepted_at, first)  # type: ignore[arg-type]

    journal_sql.unpack = unpack


@bug(1, "tests/adapters/test_sqlite_faults.py::test_an_io_error_of_a_commit_is_final_and_never_retried")
def io_error_is_tried_again() -> None:
    """after a failed fsync the next one says that all is well, and the pages are gone"""

    def translate(original: Callable[..., Any], worker: SqliteWorker, error: Exception) -> StorageFailed:
        found = original(worker, error)
        worker.failed = None
        return found

    swap(SqliteWorker, "_translate", translate)


@bug(1, "tests/assembly/test_storage_faults.py::test_nothing_is_dispatched_after_a_storage_failure")
def dispatching_goes_on_after_a_storage_failure() -> None:
    """the commit stage ends quietly: what is sent from now on can never be written down"""

    async def run(original: Callable[..., Any], stage: CommitStage) -> None:
        try:
            await original(stage)
        except StorageFailed:
            return

    swap(CommitStage, "run", run)


@bug(1, "tests/contracts/test_journals.py::TestSqliteJournal::test_release_takes_nothing_at_or_above_its_offset")
def release_takes_the_row_that_the_watermark_is_in() -> None:
    """events above the watermark leave the journal with those below it"""

    def delete_some(original: Callable[..., bool], connection: Any, below: int, newest: int, *limits: Any) -> bool:
        return original(connection, below + 2, newest, *limits)

    swap(journal_sql, "delete_some", delete_some)


@bug(1, "tests/dispatcher/test_release.py::test_no_event_leaves_the_journal_before_its_outcome_is_on_disk")
def release_before_the_outcome_is_durable() -> None:
    """after a crash nobody knows the events any more, nor what became of them"""

    def take(original: Callable[..., Any], settler: Settler, consumer: Consumer, clean: bool) -> Any:
        settler._journal.release(consumer.coalescer.watermark(consumer.position))
        return original(settler, consumer, clean)

    swap(Settler, "_take", take)


@bug(2, "tests/dispatcher/test_release.py::test_nothing_is_sent_that_was_not_announced_as_read")
def dispatch_before_read_to_is_durable() -> None:
    """recovery does not read far enough: an older state overwrites one that was sent from beyond `read_to`"""

    def offer(original: Callable[..., None], reader: Reader, append: Append) -> None:
        reader.consumer.read_to = max(reader.consumer.read_to, append.first + len(append.events))
        original(reader, append)

    swap(Reader, "offer", offer)


@bug(8, "tests/engine/test_engine.py::test_a_drain_lets_attempts_finish_and_leaves_the_backlog_in_the_journal")
def drain_waits_for_nobody() -> None:
    """attempts under way are cut off, and their outcome is never known"""

    async def drain(pipeline: Pipeline, timeout_seconds: float) -> bool:
        pipeline.refuse()
        return True

    Pipeline.drain = drain  # type: ignore[method-assign]


@bug(2, "tests/dispatcher/test_outcomes.py::test_a_drain_that_left_an_unknown_attempt_is_not_clean")
def every_drain_is_clean() -> None:
    """the next process sends at once, while a request of this one may still be travelling"""

    def take(original: Callable[..., Any], settler: Settler, consumer: Consumer, clean: bool) -> Any:
        consumer.unknown = 0
        return original(settler, consumer, clean)

    swap(Settler, "_take", take)


@bug(
    6, "tests/contracts/test_journals.py::TestSqliteJournal::test_a_full_journal_refuses_before_it_grows_past_its_limit"
)
def the_journal_has_no_limit() -> None:
    """a laggard fills the disk"""
    journal.SqliteJournal._refuse_if_full = lambda *_: None  # type: ignore[method-assign,assignment]


@bug(1, "tests/engine/test_engine.py::test_one_process_owns_the_directory")
def two_processes_own_the_directory() -> None:
    """two writers hand out the same offsets"""

    @contextmanager
    def owned(directory: Path) -> Any:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory

    build.owned = owned


@bug(1, "tests/contracts/test_journals.py::TestSqliteJournal::test_a_group_of_appends_is_stored_in_order")
def a_group_commit_loses_its_order() -> None:
    """the offsets that requests were told are those of other events"""

    def rows_of(original: Callable[..., Any], appends: Sequence[Append], following: int) -> Any:
        return original(list(reversed(appends)), following)

    swap(journal_sql, "rows_of", rows_of)


@bug(6, "tests/adapters/test_sqlite_faults.py::test_a_disk_below_its_minimum_refuses_before_it_writes")
def a_full_disk_is_met_by_writing() -> None:
    """nothing is left for settling when the disk fills"""
    swap(shutil, "disk_usage", lambda original, path: original(path)._replace(free=1 << 62))
