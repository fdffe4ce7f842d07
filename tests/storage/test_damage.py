"""A file is cut off or has a bit turned at every byte: what is wrong is noticed, named and bounded, never delivered."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from engine.adapters.sqlite import SqliteJournal, files
from engine.adapters.sqlite.inspection import inspect_journal, salvage
from engine.adapters.sqlite.journal_sql import unpack
from engine.adapters.sqlite.wal import WalTail
from engine.core.reconcile import disagreements
from engine.errors import DataDirectoryError, NoSpace, StorageFailed
from engine.model import Append, Event, Trait
from engine.testing import SimulatedDisk
from engine.testing.contracts.harness import append_of
from engine.testing.contracts.state_data import consumer_state
from tests.storage.losses import journal_on, opened

FILES = ("journal.db", "journal.db-wal")
Say = Callable[[object], None]
FAST = 211
"""Every so many bytes are turned where all of them would take too long."""


class Original(msgspec.Struct):
    """The files of a journal that was killed, and what was acknowledged."""

    files: dict[str, bytes]
    events: list[Event]
    doubtful_from: int  # where the last two commits begin: damage to their ends looks as if they were never finished


async def make(directory: Path, groups: list[list[Append]]) -> Original:
    """The first half of the groups in the file, the other half in the WAL."""
    os.mkdir(directory)
    disk = SimulatedDisk(directory)
    half = len(groups) // 2
    async with opened(journal_on(disk)) as journal:
        for group in groups[:half]:
            await journal.append(group)
    async with opened(journal_on(disk)) as journal:
        firsts = [await journal.append(group) for group in groups[half:]]
        disk.image(directory / "killed", random.Random(0), "none")
    events = [event for group in groups for append in group for event in append.events]
    return Original({name: (directory / "killed" / name).read_bytes() for name in FILES}, events, firsts[-2])


@pytest.fixture
async def original(tmp_path: Path) -> Original:
    groups = [[append_of("ada", "bo"), append_of("cy")], [append_of("di", note="x" * 900)], [append_of("ed")]]
    return await make(tmp_path / "original", groups * 2)


@pytest.fixture
async def larger(tmp_path: Path) -> Original:
    """With a tree of pages, and rows that fill several."""
    dice = random.Random(5)
    sizes = [dice.choice([10, 10, 500, 9_000]) for _ in range(60)]
    return await make(tmp_path / "larger", [[append_of("ada", "bo", note="x" * size)] for size in sizes])


class Trial:
    """A copy of the files, changed, and how an engine gets on with it."""

    def __init__(self, original: Original, directory: Path, changed: dict[str, bytes]) -> None:
        self.original, self.directory = original, directory
        directory.mkdir()
        for name, content in (original.files | changed).items():
            (directory / name).write_bytes(content)
        self.reported = ""  # what the engine said
        self.is_refused = False
        self.lost = 0  # acknowledged events that it did not give back, without having refused

    async def start(self, witness: int = 0) -> None:
        """Raises AssertionError when something is delivered that was never accepted, or nothing is said of a loss.
        `witness`: the watermark that the state file knows."""
        journal = SqliteJournal(self.directory / "journal.db", max_bytes=1 << 30)
        try:
            tail = await journal.open()
            self.reported = "; ".join(disagreements([consumer_state(start=witness)], tail.first, tail.next))
            self.lost = len(self.original.events) - tail.next
            if tail.discarded_frames:
                self.reported += f"; {tail.discarded_frames} frames discarded"
            if tail.first == 0:
                self._compare(await journal.read(0, 1_000))
        except (DataDirectoryError, StorageFailed, NoSpace) as error:
            self.reported, self.lost, self.is_refused = str(error), 0, True
        finally:
            await journal.close()
        assert self.reported or not self.lost, "a loss that nobody was told of"

    def _compare(self, found: list[Append]) -> None:
        for append in found:
            wanted = self.original.events[append.first : append.first + len(append.events)]
            assert append.events == wanted, f"offset {append.first} is not what was accepted"

    def save(self) -> tuple[bool, int]:
        """(is the damage found, how many events are lost) in the eyes of `journal check`."""
        found = inspect_journal(self.directory / "journal.db", [consumer_state()])
        for row in found.rows.values():
            self._compare([unpack(row)])
        return bool(found.problems), sum(row[1] for row in found.rows.values()) - len(self.original.events)


def turned(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


Place = tuple[str, int]


def every_place(original: Original, every: int) -> list[Place]:
    return [(name, position) for name in FILES for position in range(0, len(original.files[name]), every)]


def some_places(original: Original, count: int) -> list[Place]:
    dice = random.Random(2)
    return [(name, dice.randrange(len(original.files[name]))) for name in dice.choices(FILES, k=count)]


async def turn_bits(original: Original, directory: Path, places: list[Place]) -> list[str]:
    """Judges one turned bit in each of these bytes; what the engine said of each."""
    said, dice = [], random.Random(1)
    for name, position in places:
        changed = {name: turned(original.files[name], position, dice.randrange(8))}
        trial = Trial(original, directory / "trial", changed)
        try:
            found, kept = trial.save()
            await trial.start()
            assert found or not trial.is_refused, "the check finds nothing"
            assert trial.lost <= len(original.events) - original.doubtful_from, "more is lost than two commits"
            assert kept >= -LARGEST_APPEND or (name, position) in VERSION, f"{-kept} events cannot be saved"
        except AssertionError as error:
            raise AssertionError(f"{name}, byte {position}: {error}; {trial.reported}") from error
        said.append(trial.reported)
        shutil.rmtree(directory / "trial")
    return said


LARGEST_APPEND = 2
"""Events of one row here: what a turned bit may cost once `journal check --salvage` was used."""
VERSION = {("journal.db", position) for position in range(60, 64)}
"""The format of the file: one that claims to be of a newer version is left alone."""


async def test_a_turned_bit_is_noticed_and_costs_one_append_at_most(original: Original, tmp_path: Path) -> None:
    said = await turn_bits(original, tmp_path, every_place(original, FAST))
    assert any("frames" in one for one in said)
    assert any("journal.db is damaged" in one for one in said)


async def test_a_turned_bit_in_a_larger_journal_costs_no_more(larger: Original, tmp_path: Path) -> None:
    await turn_bits(larger, tmp_path, some_places(larger, 100))


@pytest.mark.faults
@pytest.mark.timeout(1_200)
async def test_a_turned_bit_in_any_byte_is_noticed(original: Original, tmp_path: Path, say: Say) -> None:
    said = await turn_bits(original, tmp_path, every_place(original, 1))
    assert len(said) == sum(map(len, original.files.values()))
    say(f"{len(said)} bytes with a turned bit")


@pytest.mark.faults
@pytest.mark.timeout(1_200)
async def test_turned_bits_in_a_larger_journal_are_noticed(larger: Original, tmp_path: Path, say: Say) -> None:
    said = await turn_bits(larger, tmp_path, some_places(larger, 5_000))
    say(f"{len(said)} turned bits in a larger journal")


async def test_without_a_look_at_the_wal_a_turned_bit_would_hide_commits(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The break that the tests before it are there for: SQLite alone throws them away."""
    monkeypatch.setattr(files, "examine", lambda path: WalTail())
    with pytest.raises(AssertionError, match="a loss that nobody was told of"):
        await turn_bits(original, tmp_path, every_place(original, FAST))


HEADER_BYTES = 32


async def test_a_header_that_was_being_written_when_the_power_went_is_no_damage(
    original: Original, tmp_path: Path
) -> None:
    """SQLite begins a log anew when all of it is in the file: there is nothing behind that header to be lost."""
    for length in range(1, HEADER_BYTES):
        torn = bytes(length) + original.files["journal.db-wal"][length:]
        refused = Trial(original, tmp_path / f"refused {length}", {"journal.db-wal": torn})
        await refused.start()
        assert refused.is_refused, "what is behind it is nowhere else"
        in_the_file = {"journal.db": checkpointed(original, tmp_path), "journal.db-wal": torn}
        copied = Trial(original, tmp_path / f"copied {length}", in_the_file)
        await copied.start()
        assert (copied.is_refused, copied.lost) == (False, 0)


def checkpointed(original: Original, directory: Path) -> bytes:
    """journal.db once all of the WAL was copied into it."""
    copy = directory / "checkpointed"
    copy.mkdir(exist_ok=True)
    for name, content in original.files.items():
        (copy / name).write_bytes(content)
    with closing(sqlite3.connect(copy / "journal.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (copy / "journal.db").read_bytes()


# -- cut off --------------------------------------------------------------------------------------------------------

TAIL_BYTES = 64 << 10


async def cut(original: Original, directory: Path, name: str, lengths: Iterable[int]) -> Counter[str]:
    """Cuts the file off after each of these lengths; how often the engine refused, opened, and had lost something."""
    seen: Counter[str] = Counter()
    for length in lengths:
        trial = Trial(original, directory / "trial", {name: original.files[name][:length]})
        try:
            await trial.start(witness=len(original.events))
        except AssertionError as error:
            raise AssertionError(f"{name} of {length} bytes: {error}; {trial.reported}") from error
        seen["refused" if trial.is_refused else "opened"] += 1
        seen["lost"] += trial.lost > 0
        shutil.rmtree(directory / "trial")
    return seen


def tail_of(content: bytes, every: int) -> Iterable[int]:
    return range(max(0, len(content) - TAIL_BYTES), len(content), every)


async def test_a_wal_that_is_cut_off_opens_without_the_end_and_says_so(larger: Original, tmp_path: Path) -> None:
    """A commit that is not whole, and those that are gone without a trace: the state knows of offsets behind them."""
    wal = larger.files["journal.db-wal"]
    assert len(wal) > TAIL_BYTES
    seen = await cut(larger, tmp_path, "journal.db-wal", tail_of(wal, 1_021))
    assert seen["opened"] == seen["lost"] > 50


@pytest.mark.faults
@pytest.mark.timeout(1_200)
async def test_a_wal_that_is_cut_off_anywhere_opens_and_says_so(larger: Original, tmp_path: Path, say: Say) -> None:
    seen = await cut(larger, tmp_path, "journal.db-wal", tail_of(larger.files["journal.db-wal"], 1))
    assert seen["opened"] == seen["lost"] == TAIL_BYTES
    say(f"a WAL cut off at {seen['opened']} places")


async def test_a_file_that_is_cut_off_is_refused(larger: Original, tmp_path: Path) -> None:
    seen = await cut(without_wal(larger), tmp_path, "journal.db", tail_of(larger.files["journal.db"], 509))
    assert seen["lost"] == 0
    assert seen["refused"] > 100


@pytest.mark.faults
@pytest.mark.timeout(1_200)
async def test_a_file_that_is_cut_off_anywhere_is_refused(larger: Original, tmp_path: Path, say: Say) -> None:
    seen = await cut(without_wal(larger), tmp_path, "journal.db", tail_of(larger.files["journal.db"], 1))
    assert seen["lost"] == 0
    say(f"a journal cut off at {seen.total()} places")


def without_wal(original: Original) -> Original:
    """As an orderly stop after the first half left it."""
    return Original(original.files | {"journal.db-wal": b""}, original.events[: len(original.events) // 2], 0)


# -- saved ----------------------------------------------------------------------------------------------------------


async def test_what_is_saved_goes_on_at_the_same_offsets_and_what_is_lost_is_marked(
    larger: Original, tmp_path: Path
) -> None:
    name, position = "journal.db", larger.files["journal.db"].index(b"ada@example.com")
    trial = Trial(larger, tmp_path / "trial", {name: turned(larger.files[name], position, 0)})
    found = inspect_journal(trial.directory / name, [consumer_state()])
    ((begin, end),) = found.lost
    assert end - begin == LARGEST_APPEND
    assert f"offsets {begin} to {end - 1} cannot be read" in "; ".join(found.problems)
    os.mkdir(tmp_path / "saved")
    salvage(found, tmp_path / "saved")
    async with opened(journal_on(SimulatedDisk(tmp_path / "saved"))) as journal:
        events = [event for append in await journal.read(0, 1_000) for event in append.events]
        assert await journal.append([append_of("new")]) == len(larger.events)
    for offset, (event, wanted) in enumerate(zip(events, larger.events, strict=True)):
        assert event == wanted or (begin <= offset < end and event.traits == Trait.LOST)
    assert inspect_journal(tmp_path / "saved" / name, [consumer_state()]).problems == []


def test_a_saved_journal_never_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"precious")
    with pytest.raises(DataDirectoryError, match="there already"):
        salvage(inspect_journal(tmp_path / "nothing.db", []), tmp_path)
    assert (tmp_path / "journal.db").read_bytes() == b"precious"
