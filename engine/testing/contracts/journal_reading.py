"""Promises of `Journal.read` and `release`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from engine.core.codec import pack_events
from engine.testing.contracts.harness import append_of, eventually, promise

if TYPE_CHECKING:
    from engine.testing.contracts.journal import JournalTrial


class Reading:
    @promise
    async def test_reading_past_the_end_gives_nothing(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        assert await journal.read(0, 10) == []
        await journal.append([append_of("lea", "bo")])
        assert await journal.read(2, 10) == []
        assert await journal.read(1_000, 10) == []

    @promise
    async def test_an_append_that_begins_earlier_comes_cut(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        written = append_of("lea", "bo", "cy")
        await journal.append([append_of("zoe"), written, append_of("di")])
        for start in (1, 2, 3):
            cut, following = await journal.read(start, 10)
            assert cut.first == start
            assert cut.events == written.events[start - 1 :]
            assert following.first == 4
        assert list(await trial.all(journal)) == [0, 1, 2, 3, 4], "reading a part changes nothing"

    @promise
    async def test_events_that_came_packed_are_events_like_others(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        packed, plain = append_of("lea", "bo"), append_of("lea", "cy")
        packed.packed = pack_events(packed.events)
        written = [list(packed.events), list(plain.events)]
        await journal.append([packed, plain])
        assert [append.events for append in await journal.read(0, 10)] == written
        await journal.erase({written[0][0].key: 4})
        found = await trial.all(journal)
        assert [event.content == b"{}" for event in found.values()] == [True, False, True, False]
        assert list((await trial.all(await trial.reopen(journal))).values()) == list(found.values())

    @promise
    async def test_about_as_many_events_come_as_were_asked_for(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo") for _ in range(50)])
        found = await journal.read(0, 10)
        assert [append.first for append in found] == [0, 2, 4, 6, 8]

    @promise
    async def test_at_least_one_append_comes_however_few_events_are_asked_for(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo", "cy"), append_of("di")])
        for events in (0, 1, 2):
            (append,) = await journal.read(0, events)
            assert len(append.events) == 3

    @promise
    async def test_reading_beside_appends_misses_nothing(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        seen: list[int] = []

        async def follow() -> None:
            while len(seen) < 120:
                for append in await journal.read(len(seen), 7):
                    assert append.first == len(seen)
                    seen.extend(range(append.first, append.first + len(append.events)))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            for _ in range(30):
                await journal.append([append_of("lea"), append_of("bo", "cy", "di")])
        assert seen == list(range(120))

    @promise
    async def test_release_takes_nothing_at_or_above_its_offset(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        for _ in range(10):
            await journal.append([append_of("lea", "bo", "cy")])
        for below in (1, 5, 15, 29):
            journal.release(below)
            journal = await trial.reopen(journal)
            assert trial.tail.first <= below
            assert list(await trial.all(journal, below)) == list(range(below, 30))

    @promise
    async def test_a_lower_release_than_before_is_ignored(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea")] * 10)
        journal.release(6)
        journal.release(2)
        journal.release(-1)
        assert list(await trial.all(journal, 6)) == [6, 7, 8, 9]
        assert await journal.append([append_of("bo")]) == 10

    @promise
    async def test_what_was_released_is_deleted_in_the_background(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea") for _ in range(20)])
        journal.release(15)

        async def is_gone() -> bool:
            return (await journal.read(0, 1))[0].first == 15

        await eventually(is_gone)
        await trial.reopen(journal)
        assert trial.tail.first == 15

    @promise
    async def test_the_next_offset_survives_the_release_of_everything(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        await journal.append([append_of("lea", "bo")])
        await journal.append([append_of("cy", "di")])
        journal.release(4)

        async def is_small() -> bool:
            return all(append.first >= 2 for append in await journal.read(0, 10))

        await eventually(is_small)
        journal = await trial.reopen(journal)
        assert trial.tail.next == 4
        assert 2 <= trial.tail.first <= 4
        assert await journal.append([append_of("ed")]) == 4
        assert list(await trial.all(journal, 4)) == [4]

    @promise
    async def test_offsets_go_on_while_released_ones_are_deleted(self, trial: JournalTrial) -> None:
        journal = await trial.open()
        for wanted in range(0, 60, 2):
            assert await journal.append([append_of("lea", "bo")]) == wanted
            journal.release(wanted + 1)
        assert list(await trial.all(journal, 59)) == [59]
