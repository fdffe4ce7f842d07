"""Promises of `Journal.open`, `append`, `close` and `backup`: offsets, groups, and what is there afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from engine.errors import EngineError, StorageFailed
from engine.model import Lane
from engine.testing.contracts.harness import append_of, key_of, promise

if TYPE_CHECKING:
    from engine.testing.contracts.journal import JournalTrial


class Offsets:
    @promise
    async def test_a_new_journal_is_empty_and_begins_at_offset_0(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        assert (trial.tail.first, trial.tail.next, trial.tail.discarded_frames) == (0, 0, 0)
        assert trial.tail.id
        assert await journal.append([append_of("lea")]) == 0

    @promise
    async def test_offsets_grow_without_gaps(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        assert await journal.append([append_of("lea", "bo")]) == 0
        assert await journal.append([append_of("cy"), append_of("di", "ed", "flo")]) == 2
        assert await journal.append([append_of("gus")]) == 6
        assert list(await trial.all(journal)) == [0, 1, 2, 3, 4, 5, 6]

    @promise
    async def test_a_group_of_appends_is_stored_in_order(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        group = [append_of("lea", "bo"), append_of("cy", source="badge"), append_of("di", lane=Lane.BACKFILL)]
        await journal.append(group)
        wanted = [event for append in group for event in append.events]
        assert list((await trial.all(journal)).values()) == wanted

    @promise
    async def test_an_append_comes_back_as_it_was_written(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        written = append_of("lea", "bo", source="badge", lane=Lane.BACKFILL, note="Zoë, 東京")
        await journal.append([written])
        (read,) = await journal.read(0, 10)
        assert (read.events, read.source, read.lane, read.accepted_at, read.first) == (
            written.events,
            "badge",
            Lane.BACKFILL,
            written.accepted_at,
            0,
        )

    @promise
    async def test_what_was_appended_is_on_disk_when_append_returns(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo")])
        await journal.append([append_of("cy"), append_of("di")])
        survivor = await trial.after_crash(journal)
        assert list(await trial.all(survivor)) == [0, 1, 2, 3]
        assert await survivor.append([append_of("ed")]) == 4

    @promise
    async def test_the_next_process_goes_on_where_this_one_ended(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        id = trial.tail.id
        await journal.append([append_of("lea", "bo"), append_of("cy")])
        before = await trial.all(journal)
        journal = await trial.reopen(journal)
        assert (trial.tail.id, trial.tail.first, trial.tail.next) == (id, 0, 3)
        assert await trial.all(journal) == before
        assert await journal.append([append_of("di")]) == 3

    @promise
    async def test_a_cancelled_append_is_there_as_a_whole_or_not_at_all(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea")])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.append, [append_of("bo", "cy"), append_of("di")])
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        following = await journal.append([append_of("ed")])
        assert following in (1, 4)
        assert list(await trial.all(journal)) == list(range(following + 1))

    @promise
    async def test_however_many_appends_are_cut_off_the_others_keep_their_place(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        kept: list[int] = []
        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(journal.append, [append_of("bo", "cy")])
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            kept.append(await journal.append([append_of("lea")]))
        stored = await trial.all(journal)
        assert list(stored) == list(range(len(stored)))
        assert [offset for offset, one in stored.items() if one.key == key_of("lea")] == kept

    @promise
    async def test_after_a_storage_failure_nothing_is_appended_any_more(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea")])
        trial.contract.fail_next_append(journal, StorageFailed)
        for _ in range(3):
            with pytest.raises(StorageFailed):
                await journal.append([append_of("bo")])

    @promise
    async def test_a_storage_failure_takes_nothing_with_it_that_was_acknowledged(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo")])
        trial.contract.fail_next_append(journal, StorageFailed)
        with pytest.raises(StorageFailed):
            await journal.append([append_of("cy")])
        survivor = await trial.after_crash(journal)
        assert list(await trial.all(survivor))[:2] == [0, 1]

    @promise
    async def test_closing_twice_does_no_harm(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea")])
        await journal.close()
        await journal.close()
        journal = await trial.reopen(journal)
        assert list(await trial.all(journal)) == [0]

    @promise
    async def test_a_backup_of_a_running_journal_is_a_journal(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        id = trial.tail.id
        path, name = trial.directory / "copy", trial.contract.backup_name
        if name is None:
            with pytest.raises(EngineError):
                await journal.backup(path)
            return
        await journal.append([append_of("lea", "bo")])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.backup, path)
            for _ in range(20):
                await journal.append([append_of("cy", "di")])
        original = await trial.all(journal)
        restored = await trial.restore(path, name)
        copied = await trial.all(restored)
        assert trial.tail.id == id
        assert len(copied) >= 2
        assert copied == {offset: original[offset] for offset in range(len(copied))}
        assert await restored.append([append_of("ed")]) == len(copied)
