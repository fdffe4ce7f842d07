"""Lives of the journal and of the state file on a simulated disk, and what must be true of every image of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.adapters.segments import SegmentJournal
from engine.adapters.sqlite import SqliteJournal, SqliteState
from engine.errors import NoSpace
from engine.model import NOTHING, Append, Event, Trait
from engine.ports import Journal, Transition
from engine.testing import SimulatedDisk
from engine.testing.contracts.harness import append_of, key_of
from engine.testing.contracts.state_data import consumer_of, consumer_state, letter, verdict, waiting
from engine.testing.power import Loss, Operation
from engine.testing.simulated_files import SimulatedFiles

LOSSES: list[Loss] = ["all", "none", "prefix", "random"]
PEOPLE = ["ada", "bo", "cy", "di", "ed"]


def journal_on(disk: SimulatedDisk) -> SqliteJournal:
    path = disk.directory / "journal.db"
    return SqliteJournal(path, max_bytes=1 << 30, connect=disk.connect, sync_directory=disk.sync_directory)


def segments_on(disk: SimulatedDisk) -> SegmentJournal:
    return SegmentJournal(disk.directory, max_bytes=1 << 30, files=SimulatedFiles(disk))


KINDS: dict[str, Callable[[SimulatedDisk], SqliteJournal | SegmentJournal]] = {
    "sqlite": journal_on,
    "segments": segments_on,
}


def state_on(disk: SimulatedDisk) -> SqliteState:
    path = disk.directory / "state.db"
    return SqliteState(path, connect=disk.connect, sync_directory=disk.sync_directory)


@asynccontextmanager
async def opened(port: Any) -> AsyncIterator[Any]:
    """The port, with what its `open` has found as `tail`."""
    try:
        port.tail = await port.open()
        yield port
    finally:
        await port.close()


class Life(Protocol):
    """`live` works on the disk; `judge` says what is wrong with an image. What it may lose is fixed by `promised`,
    taken before the image; what it may hold beyond that by what was asked for until then."""

    async def live(self, disk: SimulatedDisk) -> None: ...

    def promised(self) -> Any: ...

    async def judge(self, disk: SimulatedDisk, promised: Any) -> list[str]: ...


class JournalLife:
    """Group commits of all sizes, releases, erasures, checkpoints, and an orderly restart in between."""

    class Promise(msgspec.Struct, frozen=True):
        next: int = 0
        erased: int = 0  # of `PEOPLE[0]`, below this offset

    def __init__(self, seed: int = 0, turns: int = 24, kind: str = "sqlite") -> None:
        self._random, self._turns, self._on = random.Random(seed), turns, KINDS[kind]
        self.asked: list[Event] = []  # at its offset, if its commit is carried out
        self.ends: set[int] = {0}  # where a commit ends
        self.released = 0
        self._promise = self.Promise()
        self._erasing = 0

    async def live(self, disk: SimulatedDisk) -> None:
        turns = iter(range(self._turns))
        for stretch in (self._turns // 2, self._turns):
            async with opened(self._on(disk)) as journal:
                for turn in itertools.takewhile(lambda turn, end=stretch: turn < end - 1, turns):  # type: ignore[misc]
                    await self._turn(journal, turn)

    async def _turn(self, journal: Journal, turn: int) -> None:
        await self._append(journal)
        if turn % 4 == 2:
            self.released = self._random.randint(self.released, self._promise.next)
            journal.release(self.released)
        if turn % 9 == 7:
            self._erasing = self._promise.next
            with suppress(NoSpace):  # its WAL is in use while the images of a step are judged
                await journal.erase({key_of(PEOPLE[0]): self._erasing})
                self._promise = msgspec.structs.replace(self._promise, erased=self._erasing)

    async def _append(self, journal: Journal) -> None:
        group = [self._one() for _ in range(self._random.randint(1, 4))]
        self.asked += [event for append in group for event in append.events]
        self.ends.add(len(self.asked))
        await journal.append(group)
        self._promise = msgspec.structs.replace(self._promise, next=len(self.asked))

    def _one(self) -> Append:
        names = self._random.choices(PEOPLE, k=self._random.randint(1, 5))
        return append_of(*names, note=self._random.randbytes(self._random.choice([5, 300, 2_500])).hex())

    def promised(self) -> Promise:
        return self._promise

    async def judge(self, disk: SimulatedDisk, promised: Promise) -> list[str]:
        async with opened(self._on(disk)) as journal:
            first, following = journal.tail.first, journal.tail.next
            problems = self._judge_ends(first, following, promised)
            position = first
            while position < following:
                for append in await journal.read(position, 1_000):
                    problems += self._judge_append(append, position, promised)
                    position = append.first + len(append.events)
            if await journal.append([append_of("new")]) != following:
                problems.append("offsets do not go on where they ended")
        return problems

    def _judge_ends(self, first: int, following: int, promised: Promise) -> list[str]:
        problems = []
        if following < promised.next:
            problems.append(f"offsets {following} to {promised.next - 1} were acknowledged and are gone")
        if following not in self.ends:
            problems.append(f"it ends inside a commit, at {following}")
        if first > self.released:
            problems.append(f"offsets {self.released} to {first - 1} were not released and are gone")
        return problems

    def _judge_append(self, append: Append, position: int, promised: Promise) -> list[str]:
        if append.first != position:
            return [f"a gap at {position}"]
        return [
            f"offset {offset} is not what was appended"
            for offset, event in enumerate(append.events, append.first)
            if not self._is_right(event, offset, promised)
        ]

    def _is_right(self, event: Event, offset: int, promised: Promise) -> bool:
        erasable = event.key == key_of(PEOPLE[0]) and offset < self._erasing
        erased = Event(event.key, b"{}", Trait.ERASED)
        if erasable and event == erased:
            return True
        return offset < len(self.asked) and event == self.asked[offset] and not (erasable and offset < promised.erased)


class StateLife:
    """Transaction number n sets everything to n, so that half of one shows."""

    def __init__(self, turns: int = 24) -> None:
        self._turns = turns
        self.asked = self.settled = 0
        self.exists = False

    async def live(self, disk: SimulatedDisk) -> None:
        for stretch in (self._turns // 2, self._turns):
            async with opened(state_on(disk)) as state:
                if not self.exists:
                    await state.add_consumer(consumer_state())
                    self.exists = True
                while self.asked < stretch:
                    await self._settle(state)

    async def _settle(self, state: SqliteState) -> None:
        self.asked += 1
        number = self.asked
        change = Transition(
            "plain",
            verdicts=[verdict(_person(number), number, number, attendee_id=str(number))],
            hold=[letter(_person(number), number, excerpt="x" * 2_000), waiting("held", number)],
            drop=[(key_of("held"), number - 1)],
            counts={"n": 1},
            watermark=max(0, number - 6),
            read_to=number,
        )
        await state.settle([change], {"account": float(number)})
        self.settled = number

    def promised(self) -> tuple[bool, int]:
        return self.exists, self.settled

    async def judge(self, disk: SimulatedDisk, promised: tuple[bool, int]) -> list[str]:
        async with opened(state_on(disk)) as state:
            if not await state.consumers():
                return ["the consumer is gone"] if promised[0] else []
            books = await consumer_of(state)
            number = books.counts.get("n", 0)
            if not promised[1] <= number <= self.asked:
                return [f"{promised[1]} transactions were settled, and {number} are there"]
            found = {
                "watermark": books.watermark,
                "read_to": books.read_to,
                "letters": books.letters,
                "held": books.held_profiles,
                "pause": await state.pauses(),
                "settled": await self._last_settled(state),
                "accounted": max((await state.accounted("plain")).values(), default=NOTHING),
            }
            return [] if found == _whole(number) else [f"of transaction {number}: {found}"]

    async def _last_settled(self, state: SqliteState) -> int:
        known = await state.keys("plain", [key_of(_person(number)) for number in range(8)])
        return max((one.entry.settled_through for one in known.values() if one.entry), default=NOTHING)


def _person(number: int) -> str:
    return f"person {number % 8}"


def _whole(number: int) -> dict[str, object]:
    """All of transaction `number`, and of nothing after it."""
    return {
        "watermark": max(0, number - 6),
        "read_to": number,
        "letters": number,
        "held": min(number, 1),
        "pause": {"account": float(number)} if number else {},
        "settled": number or NOTHING,
        "accounted": number or NOTHING,
    }


class Enumeration:
    """Judges an image for each kind of loss at every step (or every so many) of a life."""

    def __init__(self, directory: Path, losses: list[Loss], seed: int = 0, every: int = 1) -> None:
        self._directory, self._losses = directory, losses
        self._random, self._every = random.Random(seed), every
        self.images = 0
        self.seen: Counter[tuple[Operation, str]] = Counter()  # steps by what they do to which file
        self.problems: list[str] = []

    async def run(self, life: Life, change: Callable[[SimulatedDisk], None] = lambda disk: None) -> list[str]:
        """The problems that were found; after a few it looks no further. `change`: of the disk, before it begins."""
        (self._directory / "life").mkdir()
        disk = SimulatedDisk(self._directory / "life")
        change(disk)
        disk.on_step = lambda operation, name: self._look(life, disk, operation, name)
        await life.live(disk)
        return self.problems

    def _look(self, life: Life, disk: SimulatedDisk, operation: Operation, name: str) -> None:
        """In the thread of the step, which waits. (Every step is made in a thread of SQLite's, so a loop may run.)"""
        self.seen[operation, name] += 1
        if self.seen.total() % self._every:
            return
        for lose in self._losses:
            if len(self.problems) < 3:
                where = f"step {disk.steps + 1}, {operation} {name}, losing {lose}"
                self.problems += [f"{where}: {one}" for one in asyncio.run(self._judge(life, disk, lose))]

    async def _judge(self, life: Life, disk: SimulatedDisk, lose: Loss) -> list[str]:
        self.images += 1
        promised = life.promised()
        directory = self._directory / f"image{self.images}"
        disk.image(directory, self._random, lose)
        try:
            return await life.judge(SimulatedDisk(directory), promised)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(directory)
