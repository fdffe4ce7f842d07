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


async def fill(journal: Journal, note: str = NOTE) -> tuple[int, str]:
    """Append until nothing more fits; the next offset, and why."""
    following = 0
    for _ in range(10_000):
        try:
            following = await journal.append([append_of("lea", "bo", note=note)]) + 2
            await journal.probe()
        except NoSpace as error:
            return following, error.type
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
        following, why = await fill(journal)
        assert following > 0
        assert why == "journal-full"
        assert journal.size().bytes <= ROOM_BYTES

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
            following, _ = await fill(journal)
            with pytest.raises(NoSpace):
                await journal.append([append_of("lea", note="x" * ROOM_BYTES)])
            journal.release(following)
            await eventually(lambda: finds_room(journal))
            assert list(await trial.all(journal, following)) == [following]

    @promise
    async def test_a_probe_that_passes_is_followed_by_an_append_that_passes(self, trial: JournalTrial) -> None:
        """A small one; and a probe of a full journal says why."""
        journal = await trial.open(ROOM_BYTES)
        await fill(journal)
        await fill(journal, note="")
        for _ in range(10_000):
            try:
                await journal.probe()
            except NoSpace as error:
                why = error.type
                break
            await journal.append([append_of("lea")])
        assert why == "journal-full"


async def finds_room(journal: Journal) -> bool:
    try:
        await journal.probe()
        await journal.append([append_of("lea")])
    except NoSpace:
        return False
    return True
