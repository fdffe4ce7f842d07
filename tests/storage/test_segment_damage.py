"""A segment has a bit turned, is torn or cut off at every byte: it is noticed, named and bounded, never delivered."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from engine.adapters.segments import SegmentJournal, files, scan
from engine.adapters.segments.files import DirectoryFiles
from engine.adapters.segments.inspection import inspect_journal, salvage
from engine.adapters.segments.layout import DATA_START, HEADER_BYTES, SECTOR_BYTES, commit_of, pack_append, read_header
from engine.core.reconcile import disagreements
from engine.errors import DataDirectoryError, NoSpace, StorageFailed
from engine.model import Append, Event, Trait
from engine.testing import SimulatedDisk
from engine.testing.contracts.harness import append_of
from engine.testing.contracts.state_data import consumer_state
from tests.storage.losses import opened, segments_on

pytestmark = pytest.mark.usefixtures("small_segments")
Say = Callable[[object], None]
FAST = 211
"""Every so many bytes are turned where all of them would take too long."""
LARGEST_APPEND = 3
"""Events of one record here: what a turned bit may cost once `journal check --salvage` was used."""


@pytest.fixture(autouse=True)
def _quick_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sync does is shown elsewhere; here are thousands of them."""
    monkeypatch.setattr(files, "_SYNCED", 0)
    monkeypatch.setattr(files, "_sync_data", lambda descriptor: None)
    monkeypatch.setattr(DirectoryFiles, "sync_directory", lambda files: None)


class Original(msgspec.Struct):
    """The files of a journal that was killed or stopped, and what was acknowledged."""

    files: dict[str, bytes]
    events: list[Event]
    last_commit: int  # how many events it has

    def used(self, name: str) -> int:
        """Up to where something stands in it."""
        return len(self.files[name].rstrip(b"\0"))

    @property
    def last(self) -> str:
        return max(self.files, key=lambda name: getattr(read_header(self.files[name][:HEADER_BYTES]), "sequence", 0))


async def make(directory: Path, *, killed: bool) -> Original:
    os.mkdir(directory)
    dice, disk = random.Random(3), SimulatedDisk(directory)
    groups = [
        [append_of("ada", "bo", "cy", note="x" * dice.choice([5, 400, 3_000])) for _ in range(dice.randint(1, 3))]
        for _ in range(13)
    ]
    groups.append(
        [append_of("ada", "bo", "cy", note="x" * 400) for _ in range(3)]
    )  # the last one is of several records
    async with opened(segments_on(disk)) as journal:
        for group in groups:
            await journal.append(group)
        if killed:
            disk.image(directory / "left", random.Random(0), "none")
    if not killed:
        disk.image(directory / "left", random.Random(0), "none")
    files = {path.name: path.read_bytes() for path in sorted((directory / "left").iterdir())}
    events = [event for group in groups for append in group for event in append.events]
    return Original(files, events, sum(len(append.events) for append in groups[-1]))


@pytest.fixture
async def killed(tmp_path: Path) -> Original:
    return await make(tmp_path / "killed", killed=True)


@pytest.fixture
async def stopped(tmp_path: Path) -> Original:
    return await make(tmp_path / "stopped", killed=False)


class Trial:
    """A copy of the files, changed, and how an engine gets on with it."""

    def __init__(self, original: Original, directory: Path, changed: dict[str, bytes]) -> None:
        self.original, self.directory = original, directory
        directory.mkdir()
        for name, content in (original.files | changed).items():
            (directory / name).write_bytes(content)
        self.reported = ""
        self.is_refused = False
        self.lost = 0  # acknowledged events that it did not give back, without having refused

    async def start(self, witness: int = 0) -> None:
        """Raises AssertionError when something is delivered that was never accepted, or nothing is said of a loss."""
        journal = SegmentJournal(self.directory, max_bytes=1 << 30)
        try:
            tail = await journal.open()
            self.reported = "; ".join(disagreements([consumer_state(start=witness)], tail.first, tail.next))
            self.reported += "; discarded" if tail.discarded_frames else ""
            self._compare(await journal.read(0, 1_000))
            self.lost = len(self.original.events) - tail.next
        except (DataDirectoryError, StorageFailed, NoSpace) as error:
            self.reported, self.is_refused = str(error), True
        finally:
            await journal.close()
        assert self.reported or not self.lost, "a loss that nobody was told of"

    def _compare(self, found: list[Append]) -> None:
        for append in found:
            wanted = self.original.events[append.first : append.first + len(append.events)]
            assert append.events == wanted, f"offset {append.first} is not what was accepted"

    async def save(self) -> tuple[bool, int]:
        """(is the damage found, how many events are lost) in the eyes of `journal check`; what it saves is right."""
        found = inspect_journal(self.directory, [consumer_state()])
        target = self.directory.with_name("saved")
        target.mkdir()
        salvage(found, target)
        async with opened(SegmentJournal(target, max_bytes=1 << 30)) as journal:
            saved = [event for append in await journal.read(0, 1_000) for event in append.events]
        shutil.rmtree(target)
        pairs = zip(saved, self.original.events, strict=False)
        assert all(event == wanted or event.traits == Trait.LOST for event, wanted in pairs)
        lost = sum(event.traits == Trait.LOST for event in saved) + max(0, len(self.original.events) - len(saved))
        return bool(found.problems), lost


def turned(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def places(original: Original, every: int) -> list[tuple[str, int]]:
    """Bytes of headers and records, and some of what stands behind them."""
    found = []
    for name in original.files:
        size = len(original.files[name])  # one that was just being made is shorter than it will be
        found += [(name, position) for position in range(0, min(HEADER_BYTES, size), every)]
        found += [(name, position) for position in range(DATA_START, min(original.used(name) + 64, size), every)]
    return found


async def turn_bits(original: Original, directory: Path, every: int, most_lost: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    dice = random.Random(1)
    for name, position in places(original, every):
        changed = {name: turned(original.files[name], position, dice.randrange(8))}
        trial = Trial(original, directory / "trial", changed)
        try:
            found, lost = await trial.save()
            await trial.start()
            assert found or not trial.is_refused, "the check finds nothing"
            assert trial.lost <= most_lost, "more is lost than one commit"
            assert lost <= max(LARGEST_APPEND, trial.lost), f"{lost} events cannot be saved"
        except AssertionError as error:
            raise AssertionError(f"{name}, byte {position}: {error}; {trial.reported}") from error
        seen["refused" if trial.is_refused else "lost" if trial.lost else "harmless"] += 1
        shutil.rmtree(directory / "trial")
    return seen


async def test_a_turned_bit_is_noticed_and_costs_the_last_commit_at_most(killed: Original, tmp_path: Path) -> None:
    """Damage to the last commit of a journal that was killed looks as if that was never finished."""
    assert len(killed.files) >= 3
    seen = await turn_bits(killed, tmp_path, FAST, killed.last_commit)
    assert seen["refused"] > 30
    assert seen["lost"] > 0


async def test_after_a_clean_stop_a_turned_bit_costs_nothing_silently(stopped: Original, tmp_path: Path) -> None:
    """The mark behind the last events is a commit of its own: they were acknowledged."""
    seen = await turn_bits(stopped, tmp_path, FAST, 0)
    assert seen["refused"] > 30
    assert seen["lost"] == 0


@pytest.mark.faults
@pytest.mark.timeout(2_400)
async def test_a_turned_bit_in_any_byte_is_noticed(killed: Original, tmp_path: Path, say: Say) -> None:
    seen = await turn_bits(killed, tmp_path, 3, killed.last_commit)
    say(f"{seen.total()} bytes of segments with a turned bit")


async def test_a_turned_bit_in_a_header_costs_nothing(killed: Original, tmp_path: Path) -> None:
    for name in killed.files:
        for position in range(0, min(HEADER_BYTES, len(killed.files[name])), 37):  # it may be just being made
            trial = Trial(killed, tmp_path / "trial", {name: turned(killed.files[name], position, 1)})
            await trial.start()
            assert (trial.is_refused, trial.lost) == (False, 0)
            shutil.rmtree(tmp_path / "trial")


async def test_both_headers_damaged_are_refused(killed: Original, tmp_path: Path) -> None:
    for nth, name in enumerate(killed.files):
        if killed.used(name) <= DATA_START:
            continue
        once = turned(killed.files[name], 20, 1)
        trial = Trial(killed, tmp_path / f"trial {nth}", {name: turned(once, SECTOR_BYTES + 20, 1)})
        await trial.start()
        assert trial.is_refused
        assert "journal check" in trial.reported


# -- torn and cut off ------------------------------------------------------------------------------------------------


def begin_of_last_commit(original: Original) -> int:
    """Of a journal that was killed."""
    content, name = original.files[original.last], original.last
    header = read_header(content[:HEADER_BYTES])
    assert header is not None
    segment, position, first = scan.Segment(name, header), DATA_START, header.base
    while (records := scan._commit_at(content, position, first, segment.seed)) is not None:
        begin, position, first = position, records[-1].end, records[-1].following
    return begin


@pytest.mark.parametrize("behind", ["zeros", "another record", "noise"])
async def test_a_commit_that_is_torn_at_any_byte_is_thrown_away_as_a_whole(
    behind: str, killed: Original, tmp_path: Path
) -> None:
    content, begin, dice = killed.files[killed.last], begin_of_last_commit(killed), random.Random(7)
    end = killed.used(killed.last)
    rest = {"zeros": bytes(end - begin), "another record": content[DATA_START:end], "noise": dice.randbytes(end)}
    for at in range(begin, end, 13):
        torn = content[:at] + rest[behind][: end - at] + content[end:]
        trial = Trial(killed, tmp_path / "trial", {killed.last: torn.ljust(len(content), b"\0")})
        await trial.start(witness=len(killed.events))
        assert (trial.is_refused, trial.lost) == (False, killed.last_commit), f"torn at {at}: {trial.reported}"
        async with opened(SegmentJournal(trial.directory, max_bytes=1 << 30)) as journal:
            assert journal.tail.discarded_frames == 0, "what was thrown away is gone for good"
        shutil.rmtree(tmp_path / "trial")


async def test_sectors_of_the_last_commit_in_any_order_are_a_torn_end(killed: Original, tmp_path: Path) -> None:
    """A good record behind a bad one, both of one commit, is no damage."""
    content, begin, end = killed.files[killed.last], begin_of_last_commit(killed), killed.used(killed.last)
    sectors = range(begin // SECTOR_BYTES, end // SECTOR_BYTES + 1)
    for missing in sectors:
        torn = bytearray(content)
        start = max(begin, missing * SECTOR_BYTES)
        stop = min(end, (missing + 1) * SECTOR_BYTES)
        torn[start:stop] = bytes(stop - start)
        if bytes(torn) == content:
            continue
        trial = Trial(killed, tmp_path / "trial", {killed.last: bytes(torn)})
        await trial.start()
        assert (trial.is_refused, trial.lost) == (False, killed.last_commit)
        shutil.rmtree(tmp_path / "trial")


async def test_a_gap_with_a_later_commit_behind_it_is_damage(killed: Original, tmp_path: Path) -> None:
    content = killed.files[killed.last]
    begin = begin_of_last_commit(killed)
    torn = content[: begin - SECTOR_BYTES] + bytes(SECTOR_BYTES) + content[begin:]
    trial = Trial(killed, tmp_path / "trial", {killed.last: torn})
    await trial.start()
    assert trial.is_refused
    assert "acknowledged" in trial.reported


def test_records_of_an_earlier_use_are_never_taken_for_new_ones() -> None:
    """Even if the file was not zeroed: of another segment, or of this one at another place."""
    old, new = (scan.Header("id", salt, nth, 0, 0, 64 << 10) for nth, salt in ((1, b"saltsalt"), (2, b"pepper!!")))
    commits = commit_of([pack_append(append_of("ada", "bo"))] * 2, 0, old.seed, DATA_START)
    for header, begin in ((new, DATA_START), (old, DATA_START + 64)):
        content = (header.packed() + bytes(begin - HEADER_BYTES) + commits).ljust(header.size, b"\0")
        tail = scan.tail_of(scan.Segment("it", header), content)
        assert (tail.appends, tail.next, tail.damage) == (0, 0, "")
        assert tail.torn > 0
    whole = (old.packed() + bytes(DATA_START - HEADER_BYTES) + commits).ljust(old.size, b"\0")
    assert scan.tail_of(scan.Segment("it", old), whole).next == 4


async def test_without_a_look_behind_the_end_damage_would_pass_for_a_torn_end(
    stopped: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The break that the tests before it are there for."""
    monkeypatch.setattr(scan, "_later", lambda content, end, seed: None)
    with pytest.raises(AssertionError, match="more is lost"):
        await turn_bits(stopped, tmp_path, FAST, 0)


async def cut(original: Original, directory: Path, lengths: Iterable[int]) -> Counter[str]:
    seen: Counter[str] = Counter()
    for length in lengths:
        trial = Trial(original, directory / "trial", {original.last: original.files[original.last][:length]})
        await trial.start(witness=len(original.events))
        seen["refused" if trial.is_refused else "opened"] += 1
        shutil.rmtree(directory / "trial")
    return seen


async def test_a_segment_that_is_cut_off_is_refused(killed: Original, tmp_path: Path) -> None:
    """It had its whole length before anything was written to it."""
    size = len(killed.files[killed.last])
    seen = await cut(killed, tmp_path, range(SECTOR_BYTES, size, 331))
    assert seen.keys() == {"refused"}


async def test_a_segment_that_is_missing_is_noticed(killed: Original, tmp_path: Path) -> None:
    live = [name for name, content in killed.files.items() if read_header(content[:HEADER_BYTES]) is not None]
    for nth, name in enumerate(live):
        trial = Trial(killed, tmp_path / f"trial {nth}", {})
        (trial.directory / name).unlink()
        await trial.start(witness=0 if nth == 0 else len(killed.events))
        assert trial.is_refused or trial.reported, name


def test_a_saved_journal_never_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "journal-000001.segment").write_bytes(b"precious")
    found = inspect_journal(tmp_path / "nothing", [])
    with pytest.raises(DataDirectoryError, match="there already"):
        salvage(found, tmp_path)
    assert (tmp_path / "journal-000001.segment").read_bytes() == b"precious"


async def test_a_newer_version_is_left_alone(killed: Original, tmp_path: Path) -> None:
    header = read_header(killed.files[killed.last][:HEADER_BYTES])
    assert header is not None
    newer = msgspec.structs.replace(header, version=header.version + 1)
    content = newer.packed() + killed.files[killed.last][HEADER_BYTES:]
    trial = Trial(killed, tmp_path / "trial", {killed.last: content})
    await trial.start()
    assert "newer version" in trial.reported
    assert {name: (trial.directory / name).read_bytes() for name in killed.files} == killed.files | {
        killed.last: content
    }
    assert inspect_journal(trial.directory, []).foreign


def test_looking_needs_no_file_to_be_there(tmp_path: Path) -> None:
    assert not inspect_journal(tmp_path, []).exists
    assert DirectoryFiles(tmp_path).names() == []
