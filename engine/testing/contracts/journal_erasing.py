"""Promises of `Journal.erase`: what has to go goes for good, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from engine.model import Append, Event, Kind, Trait
from engine.testing.contracts.harness import append_of, event, key_of, promise

if TYPE_CHECKING:
    from engine.testing.contracts.journal import JournalTrial

LEA = key_of("lea")


class Erasing:
    @promise
    async def test_erase_empties_the_events_of_the_key_below_its_offset_and_no_other(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        for names in (["lea", "bo", "lea"], ["cy"], ["lea"], ["lea", "bo"]):
            await journal.append([append_of(*names)])
        before = await trial.all(journal)
        await journal.erase({LEA: 5})
        for offset, after in (await trial.all(journal)).items():
            if offset in (0, 2, 4):
                assert (after.key, after.content, after.traits) == (LEA, b"{}", Trait.ERASED)
            else:
                assert after == before[offset]

    @promise
    async def test_every_key_has_an_offset_of_its_own(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo", "lea", "bo")])
        await journal.erase({LEA: 1, key_of("bo"): 4})
        erased = [bool(one.traits & Trait.ERASED) for one in (await trial.all(journal)).values()]
        assert erased == [True, True, False, True]

    @promise
    async def test_erase_returns_how_many_appends_it_rewrote(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "lea"), append_of("bo"), append_of("bo", "lea"), append_of("lea")])
        assert await journal.erase({LEA: 5}) == 2
        assert await journal.erase({LEA: 5}) == 0
        assert await journal.erase({key_of("nobody"): 100}) == 0
        assert await journal.erase({}) == 0

    @promise
    async def test_offsets_stay_taken_and_whole_after_reopening(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo")] * 5)
        await journal.erase({LEA: 10})
        erased = await trial.all(journal)
        journal = await trial.reopen(journal)
        assert trial.tail.next == 10
        assert await trial.all(journal) == erased
        assert await journal.append([append_of("lea")]) == 10
        assert (await trial.all(journal, 10))[10].content != b"{}"

    @promise
    async def test_an_emptied_event_stays_of_its_kind(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        replay = Event(LEA, event("lea").content, kind=Kind.REPLAY, destination="attendees", through=3, letter=7)
        await journal.append([Append([event("bo")] * 4)])
        await journal.append([Append([replay, event("lea")], "badge", accepted_at=5.0)])
        await journal.erase({LEA: 6})
        (append,) = await journal.read(4, 10)
        assert (append.source, append.accepted_at) == ("badge", 5.0)
        assert [(one.kind, one.destination) for one in append.events] == [
            (Kind.REPLAY, "attendees"),
            (Kind.PROFILE, ""),
        ]

    @promise
    async def test_a_replay_is_as_old_as_what_it_carries(self, trial: JournalTrial) -> None:
        """What came in again after the offset is erased with the rest, and nothing of the key that came between."""
        journal = await trial.open()
        replays = [Event(LEA, event("lea").content, kind=Kind.REPLAY, through=through) for through in (0, 4)]
        await journal.append([append_of("lea"), append_of("bo"), append_of("lea"), append_of("lea")])
        await journal.append([Append(replays)])
        assert await journal.erase({LEA: 2}) == 2
        erased = [offset for offset, one in (await trial.all(journal)).items() if one.content == b"{}"]
        assert erased == [0, 4]

    @promise
    async def test_erasing_beside_appends_leaves_the_appends_alone(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo") for _ in range(50)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.erase, {LEA: 100})
            for wanted in range(100, 130):
                assert await journal.append([append_of("lea")]) == wanted
        stored = await trial.all(journal)
        assert list(stored) == list(range(130))
        assert [offset for offset, one in stored.items() if one.content == b"{}"] == list(range(0, 100, 2))

    @promise
    async def test_erasing_what_was_released_meanwhile_brings_nothing_back(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea") for _ in range(20)])
        journal.release(10)
        await journal.erase({LEA: 20})
        journal = await trial.reopen(journal)
        assert trial.tail.next == 20
        assert all(one.content == b"{}" for one in (await trial.all(journal, 10)).values())
