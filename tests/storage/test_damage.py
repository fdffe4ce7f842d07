"""A file is cut off or has a bit turned at every byte: what is wrong is noticed, named and bounded, never delivered."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.adapters.sqlite import SqliteJournal
from engine.adapters.sqlite.inspection import inspect_journal
from engine.adapters.sqlite.journal_sql import unpack
from engine.core.reconcile import disagreements
from engine.errors import DataDirectoryError, NoSpace, StorageFailed
from engine.model import Append, Event
from engine.testing import SimulatedDisk
from engine.testing.contracts.harness import append_of
from engine.testing.contracts.state_data import consumer_state
from tests.storage.losses import journal_on, opened

FILES = ("journal.db", "journal.db-wal")
FAST = 131
"""Every so many bytes are turned where all of them would take too long."""


class Original(msgspec.Struct):
    """The files of a journal that was killed, and what was acknowledged."""

    files: dict[str, bytes]
    events: list[Event]
    last_commit: int  # where the last commit begins: it cannot be told from one that was never finished


@pytest.fixture
async def original(tmp_path: Path) -> Original:
    """A few rows in the file, a few in the WAL."""
    directory = tmp_path / "original"
    directory.mkdir()
    disk = SimulatedDisk(directory)
    groups = [[append_of("ada", "bo"), append_of("cy")], [append_of("di", note="x" * 900)], [append_of("ed")]]
    async with opened(journal_on(disk)) as journal:
        for group in groups:
            await journal.append(group)
    async with opened(journal_on(disk)) as journal:
        for group in groups:
            last = await journal.append(group)
        disk.image(tmp_path / "killed", random.Random(0), "none")
    events = [event for group in groups * 2 for append in group for event in append.events]
    return Original({name: (tmp_path / "killed" / name).read_bytes() for name in FILES}, events, last)


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

    async def start(self) -> None:
        """Raises AssertionError when something is delivered that was never accepted, or nothing is said of a loss."""
        journal = SqliteJournal(self.directory / "journal.db", max_bytes=1 << 30)
        try:
            tail = await journal.open()
            self.reported = "; ".join(disagreements([consumer_state()], tail.first, tail.next))
            self.lost = len(self.original.events) - tail.next
            if tail.discarded_frames:
                self.reported = f"{tail.discarded_frames} frames discarded"
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


def places(original: Original, every: int) -> Iterator[tuple[str, int]]:
    for name in FILES:
        for position in range(0, len(original.files[name]), every):
            yield name, position


async def turn_bits(original: Original, directory: Path, every: int) -> list[str]:
    """Judges one turned bit at every so many bytes; what the engine said of each."""
    said = []
    bits = random.Random(1)
    for name, position in places(original, every):
        changed = {name: turned(original.files[name], position, bits.randrange(8))}
        trial = Trial(original, directory / "trial", changed)
        try:
            found, kept = trial.save()
            await trial.start()
            assert found or not trial.is_refused, "the check finds nothing"
        except AssertionError as error:
            raise AssertionError(f"{name} byte {position}: {error}") from error
        assert trial.lost <= len(original.events) - original.last_commit, f"{name} byte {position}: too much is lost"
        assert kept >= -LARGEST_PAGE_EVENTS, f"{name} byte {position}: {-kept} events cannot be saved"
        said.append(trial.reported)
        shutil.rmtree(directory / "trial")
    return said


LARGEST_PAGE_EVENTS = 10
"""Events of one page here: what a single bit may cost once `journal check --salvage` was used."""


async def test_a_turned_bit_is_noticed_and_costs_one_page_at_most(original: Original, tmp_path: Path) -> None:
    said = await turn_bits(original, tmp_path, FAST)
    assert any("frames" in one for one in said)
    assert any("journal.db is damaged" in one for one in said)


@pytest.mark.faults
@pytest.mark.timeout(1_200)
async def test_a_turned_bit_anywhere_is_noticed_and_costs_one_page_at_most(original: Original, tmp_path: Path) -> None:
    said = await turn_bits(original, tmp_path, 1)
    assert len(said) == sum(map(len, original.files.values()))
