"""What is durable before what: nothing leaves the journal or is sent ahead of what a restart needs to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import pytest
from stage import Stage, event, key, on_virtual_time

from engine.adapters.memory_journal import MemoryJournal
from engine.dispatcher import consumer as module
from engine.model import Batch, Lane
from engine.ports import Transition
from engine.testing.destination import FakeDestination, Step, ok
from engine.testing.lasting import LastingState


class SlowDisk(LastingState):
    """Takes a second for each transaction; `watermark` and `read_to` are the durable ones of its one consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.watermark = self.read_to = 0

    async def settle(self, transitions: Sequence[Transition], pauses: Mapping[str, float] | None = None, /) -> None:
        await anyio.sleep(1.0)
        await super().settle(transitions, pauses or {})
        for one in transitions:
            self.watermark = self.watermark if one.watermark is None else one.watermark
            self.read_to = self.read_to if one.read_to is None else one.read_to


class Watched(MemoryJournal):
    """Notes each release, and what was durable then."""

    def __init__(self, state: SlowDisk) -> None:
        super().__init__()
        self.state, self.releases = state, list[tuple[int, int]]()

    def release(self, below: int, /) -> None:
        self.releases.append((below, self.state.watermark))
        super().release(below)


@on_virtual_time
async def test_no_event_leaves_the_journal_before_its_outcome_is_on_disk() -> None:
    stage = Stage()
    stage.state = disk = SlowDisk()
    stage.journal = journal = Watched(disk)
    stage.destination("demo", FakeDestination())
    async with stage.running():
        for person in range(10):
            await stage.submit(event(person))
            await anyio.sleep(0.3)
        await stage.settled()
        await anyio.sleep(2.0)
    assert journal.releases[-1][0] == 10
    assert [below for below, durable in journal.releases if below > durable] == []


@on_virtual_time
async def test_nothing_is_sent_that_was_not_announced_as_read() -> None:
    """Recovery reads up to `read_to`: what was sent from beyond it, an older state could overwrite after a crash."""
    disk, unannounced = SlowDisk(), list[int]()

    def answer(batch: Batch) -> Step:
        unannounced.extend(profile.last for profile in batch.profiles if profile.last >= disk.read_to)
        return Step(ok())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "READ_AHEAD_EVENTS", 4)
        stage = Stage()
        stage.state = disk
        stage.destination("demo", FakeDestination(answer=answer))
        async with stage.running():
            for person in range(20):
                await stage.submit(event(person))
            await stage.settled()
    assert stage.counts("demo") == {"delivered": 20}
    assert unannounced == []


@on_virtual_time
async def test_a_full_buffer_leaves_events_in_the_journal_and_loses_none() -> None:
    """Memory for three profiles, and ten people at once: the others are read when there is room."""
    destination = FakeDestination(answer=lambda batch: Step(ok(), seconds=1.0))
    stage = Stage()
    stage.account(concurrency=1)
    stage.destination("demo", destination, max_profiles=3)
    async with stage.running():
        for person in range(10):
            await stage.submit(event(person))
        assert len(stage.consumers["demo"].coalescer) <= 3
        assert stage.pending("demo") == 10
        await stage.settled()
    assert len(destination.stored) == 10
    assert stage.counts("demo") == {"delivered": 10}


@on_virtual_time
async def test_a_copy_of_a_predecessor_is_sent_never_suppressed() -> None:
    """Held on disk as backfill beyond its share; whether it was taken back and sent since, nobody can know."""
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination, max_profiles=10)
    async with stage.running():
        await stage.submit(event(1, city="Lille"))
        await stage.settled()
        stage.consumers["demo"].set_paused(True)
        for person in [*range(2, 12), 1]:
            await stage.submit(event(person, city="Lille"), lane=Lane.BACKFILL)
        await anyio.sleep(5.0)
        found = await stage.state.keys("demo", [key(1)])
        assert found[key(1)].held is not None
    async with stage.running():
        stage.consumers["demo"].set_paused(False)
        await stage.settled()
    assert stage.counts("demo") == {"delivered": 12}
