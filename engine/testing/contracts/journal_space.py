"""Promises of `Journal.size` and `probe`, and of NoSpace: refused, nothing written, open again once there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.errors import NoSpace
from engine.ports import Journal
from engine.testing.contracts.harness import append_of, eventually, promise

if TYPE_CHECKING:
    from engine.testing.contracts.journal import JournalTrial

ROOM_BYTES = 1 << 20
NOTE = "x" * 2_000


async def fill(journal: Journal) -> int:
    """Append until nothing more fits; the next offset."""
    following = 0
    for _ in range(10_000):
        try:
            following = await journal.append([append_of("lea", "bo", note=NOTE)]) + 2
        except NoSpace as error:
            assert error.type == "journal-full"
            return following
    raise AssertionError("max_bytes was passed without a refusal")


class Space:
    @promise
    async def test_size_says_what_is_used_and_what_is_left(self, trial: JournalTrial) -> None:
        journal = await trial.open(ROOM_BYTES)
        before = journal.size()
        assert before.max_bytes == ROOM_BYTES
        assert before.disk_free_bytes > 0
        for _ in range(20):
            await journal.append([append_of("lea", "bo", note=NOTE)])
        assert journal.size().bytes - before.bytes >= 20 * 2 * len(NOTE)

    @promise
    async def test_there_is_room_in_an_empty_journal(self, trial: JournalTrial) -> None:
        journal = await trial.open(ROOM_BYTES)
        await journal.probe()

    @promise
    async def test_a_full_journal_refuses_before_it_grows_past_its_limit(self, trial: JournalTrial) -> None:
        journal = await trial.open(ROOM_BYTES)
        assert await fill(journal) > 0
        assert journal.size().bytes <= ROOM_BYTES
        with pytest.raises(NoSpace) as refused:
            for _ in range(100):
                await journal.append([append_of("lea", note="x" * ROOM_BYTES)])
        assert refused.value.type == "journal-full"

    @promise
    async def test_a_refused_append_has_written_nothing(self, trial: JournalTrial) -> None:
        """Not even the first appends of a group that would have found room by themselves."""
        journal = await trial.open(ROOM_BYTES)
        await journal.append([append_of("lea")])
        with pytest.raises(NoSpace):
            await journal.append([append_of("bo"), append_of("cy", note="x" * ROOM_BYTES)])
        assert list(await trial.all(journal)) == [0]
        assert await journal.append([append_of("di")]) == 1
        journal = await trial.reopen(journal)
        assert list(await trial.all(journal)) == [0, 1]

    @promise
    async def test_a_full_disk_writes_nothing_and_can_be_passed_later(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea")])
        trial.contract.fail_next_append(journal, NoSpace)
        with pytest.raises(NoSpace) as refused:
            await journal.append([append_of("bo"), append_of("cy")])
        assert refused.value.type in ("disk-full", "journal-full")
        assert list(await trial.all(journal)) == [0]
        await journal.probe()
        assert await journal.append([append_of("di")]) == 1
        journal = await trial.reopen(journal)
        assert list(await trial.all(journal)) == [0, 1]

    @promise
    async def test_a_full_journal_has_room_again_after_a_release(self, trial: JournalTrial) -> None:
        journal = await trial.open(ROOM_BYTES)
        for _ in range(3):
            following = await fill(journal)
            with pytest.raises(NoSpace) as full:
                await journal.append([append_of("lea", note="x" * ROOM_BYTES)])
            assert full.value.type == "journal-full"
            journal.release(following)
            await eventually(lambda: has_room(journal))
            assert await journal.append([append_of("lea")]) == following

    @promise
    async def test_a_probe_of_a_full_journal_says_why(self, trial: JournalTrial) -> None:
        journal = await trial.open(ROOM_BYTES)
        await fill(journal)
        with pytest.raises(NoSpace) as full:
            for _ in range(10_000):  # smaller ones, until not even an empty append would fit
                await journal.append([append_of("lea", note="x" * 200)])
                await journal.probe()
        assert full.value.type == "journal-full"


async def has_room(journal: Journal) -> bool:
    try:
        await journal.probe()
    except NoSpace:
        return False
    return True
