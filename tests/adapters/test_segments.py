"""What the segment journal does beside the promises of the port: files that are used again, disks that fail."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.adapters.segments import SegmentJournal, files
from engine.adapters.segments import journal as module
from engine.adapters.segments import pool as pool_module
from engine.adapters.segments.files import DirectoryFiles
from engine.adapters.segments.layout import HEADER_BYTES, Header, read_header
from engine.adapters.segments.rewriting import NAME, Rewrite, _packed
from engine.core.codec import pack_events
from engine.errors import DataDirectoryError, NoSpace, StorageFailed
from engine.model import Append, Event, Kind, Membership, Trait
from engine.testing.contracts.harness import append_of, eventually, key_of
from engine.testing.faulty_files import FaultyFiles

LEA = key_of("lea")
NOTE = "n" * 3_000


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALLEST_BYTES", 64 << 10)
    monkeypatch.setattr(module, "LARGEST_BYTES", 128 << 10)
    monkeypatch.setattr(pool_module, "SLICE_BYTES", 32 << 10)


@asynccontextmanager
async def opened(directory: Path, faulty: FaultyFiles | None = None, **more: int) -> AsyncIterator[SegmentJournal]:
    most, free = more.get("max_bytes", 1 << 30), more.get("min_free_bytes", 0)
    journal = SegmentJournal(directory, max_bytes=most, min_free_bytes=free, files=faulty)
    try:
        await journal.open()
        yield journal
    finally:
        await journal.close()


async def fill(journal: SegmentJournal, appends: int, name: str = "lea") -> int:
    """The next offset."""
    following = 0
    for _ in range(appends):
        following = await journal.append([append_of(name, note=NOTE)]) + 1
    return following


def bytes_in(directory: Path, text: bytes) -> int:
    """How often it stands in any file of the directory."""
    return sum(path.read_bytes().count(text) for path in directory.iterdir() if path.is_file())


def segments_in(directory: Path) -> list[Path]:
    return list(directory.glob("*.segment"))


def live_in(directory: Path) -> list[str]:
    headers = {path.name: read_header(path.read_bytes()[:HEADER_BYTES]) for path in segments_in(directory)}
    return sorted(name for name, header in headers.items() if header is not None)


# -- durable ----------------------------------------------------------------------------------------------------------


async def test_every_commit_is_one_write_and_one_sync(tmp_path: Path) -> None:
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty) as journal:
        for n in range(5):
            before = len(faulty.operations)
            await journal.append([append_of(f"p{n}"), append_of("bo"), append_of("cy")])
            assert faulty.operations[before:] == ["write", "sync"]


async def test_the_name_of_a_new_file_is_durable_before_it_is_used(tmp_path: Path) -> None:
    """And its zeros are: a file that was cut off by a power loss would be refused."""
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty):
        created, named = faulty.operations.index("create"), faulty.operations.index("directory")
        assert created < named
        assert faulty.operations[created:named] == ["create", "write", "sync", "write", "sync"], "zeros come first"


async def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.pwrite
    monkeypatch.setattr(files.os, "pwrite", lambda descriptor, data, at: original(descriptor, bytes(data)[:700], at))
    async with opened(tmp_path) as journal:
        await fill(journal, 3)
    monkeypatch.undo()
    async with opened(tmp_path) as journal:
        assert len(await journal.read(0, 10)) == 3


# -- one call a commit ------------------------------------------------------------------------------------------------

Outcome = int | OSError | None
"""Of a write that syncs: an error; or bytes that are written, None for all."""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What becomes of the next writes that sync, the last of it for good."""
    if not hasattr(os, "RWF_DSYNC"):
        pytest.skip("this system cannot sync while it writes")
    outcomes, original = list[Outcome](), os.pwritev

    def pwritev(descriptor: int, parts: list[bytes], offset: int, flags: int) -> int:
        assert flags == os.RWF_DSYNC
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        if isinstance(outcome, OSError):
            raise outcome
        return original(descriptor, [b"".join(parts)[:outcome]], offset, flags)

    monkeypatch.setattr(files.os, "pwritev", pwritev)
    return outcomes


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Writes and syncs that are calls of their own."""
    taken, write, sync = list[str](), os.pwrite, files._sync_data

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        taken.append("write")
        return write(descriptor, data, offset)

    def sync_data(descriptor: int) -> None:
        taken.append("sync")
        sync(descriptor)

    monkeypatch.setattr(files.os, "pwrite", pwrite)
    monkeypatch.setattr(files, "_sync_data", sync_data)
    return taken


async def test_a_commit_is_written_and_synced_in_one_call(
    tmp_path: Path, at_once: list[Outcome], steps: list[str]
) -> None:
    at_once += [None]
    async with opened(tmp_path) as journal:
        steps.clear()
        assert await journal.append([append_of("lea"), append_of("bo")]) == 0
        assert steps == []
        assert len(await journal.read(0, 10)) == 2


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
async def test_where_that_is_not_known_a_commit_takes_two(
    code: int, tmp_path: Path, at_once: list[Outcome], steps: list[str]
) -> None:
    at_once += [OSError(code, "not here"), OSError(errno.EIO, "nobody asks again")]
    async with opened(tmp_path) as journal:
        steps.clear()
        await journal.append([append_of("lea")])
        await journal.append([append_of("bo")])
        assert steps == ["write", "sync"] * 2
        assert len(await journal.read(0, 10)) == 2


async def test_a_commit_that_is_cut_short_is_written_to_its_end_and_synced(
    tmp_path: Path, at_once: list[Outcome], steps: list[str]
) -> None:
    at_once += [700]
    async with opened(tmp_path) as journal:
        steps.clear()
        await journal.append([append_of("lea", note=NOTE)])
        assert steps == ["write", "sync"]
    async with opened(tmp_path) as journal:
        assert len(await journal.read(0, 10)) == 1


async def test_a_write_without_space_refuses_and_the_next_one_takes_its_place(
    tmp_path: Path, at_once: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once += [OSError(errno.ENOSPC, "full"), None]

    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    async with opened(tmp_path) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(files.os, "pwrite", full)
            with pytest.raises(NoSpace, match="nothing was written"):
                await journal.append([append_of("lea")])
        assert await journal.append([append_of("bo")]) == 0


async def test_no_space_that_only_the_sync_had_met_is_the_end(tmp_path: Path, at_once: list[Outcome]) -> None:
    """There is room for the bytes: so it was not they that had found none."""
    at_once += [OSError(errno.ENOSPC, "full"), None]
    async with opened(tmp_path) as journal:
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await journal.append([append_of("lea")])


async def test_an_io_error_in_one_call_is_final_and_never_retried(
    tmp_path: Path, at_once: list[Outcome], steps: list[str]
) -> None:
    at_once += [OSError(errno.EIO, "broken"), None]
    async with opened(tmp_path) as journal:
        steps.clear()
        for _ in range(3):
            with pytest.raises(StorageFailed, match=r"journal: .*restart"):
                await journal.append([append_of("lea")])
        assert steps == []
        assert len(at_once) == 1, "one try"


# -- used again -------------------------------------------------------------------------------------------------------


async def test_released_segments_are_zeroed_and_used_again(tmp_path: Path) -> None:
    """However much goes through, the files stay as few, and what was released stands in the one in use at most."""
    async with opened(tmp_path) as journal:
        for nth in range(12):
            following = await fill(journal, 40, f"person{nth}")
            journal.release(following)
        while await journal._keeper.run(journal._zero_a_slice):
            continue
        assert len(live_in(tmp_path)) == 1
        assert len(segments_in(tmp_path)) <= 2 + pool_module.KEPT_SPARES
        spare = [path for path in segments_in(tmp_path) if path.name not in live_in(tmp_path)]
        assert spare
        assert all(not path.read_bytes().strip(b"\0") for path in spare)
        assert bytes_in(tmp_path, b"person1@") == 0
        assert await journal.append([append_of("bo")]) == following


async def test_zeroing_that_was_cut_off_is_finished_by_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        following = await fill(journal, 60)
        journal._keeper._idle = None  # killed before it comes to it
        journal.release(following)
        assert bytes_in(tmp_path, b"lea@example.com") == 60
    async with opened(tmp_path) as journal:
        while await journal._keeper.run(journal._zero_a_slice):
            continue
        assert len(live_in(tmp_path)) == 1
        assert bytes_in(tmp_path, b"lea@example.com") < 60


async def test_the_next_segment_is_ready_before_it_is_needed(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 6)
        assert journal._segments[-1].end > journal._segments[-1].size // module.AHEAD

        async def is_ready() -> bool:
            return journal._pool.spare_bytes > 0

        await eventually(is_ready)
        await fill(journal, 18)
        assert len(journal._segments) == 2


async def test_a_commit_larger_than_any_segment_gets_one_of_its_size(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        large = append_of("lea", note="x" * (1 << 20))
        assert await journal.append([large]) == 0
        assert await journal.append([append_of("bo")]) == 1
        assert (await journal.read(0, 10))[0].events == large.events
    async with opened(tmp_path) as journal:
        assert [one.first for one in await journal.read(0, 10)] == [0, 1]


# -- forgotten --------------------------------------------------------------------------------------------------------


async def test_what_was_released_and_stands_in_a_file_still_is_erased_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        following = await fill(journal, 4)
        await journal.append([append_of("bo")])
        journal.release(following)
        assert bytes_in(tmp_path, b"lea@example.com") == 4
        assert await journal.erase({LEA: following}) == 4
        assert bytes_in(tmp_path, b"lea@example.com") == 0
        assert bytes_in(tmp_path, b"bo@example.com") == 1


async def test_what_waits_to_be_zeroed_is_zeroed_when_erase_returns(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        following = await fill(journal, 60)
        journal.release(following)
        await journal.erase({LEA: following})
        assert bytes_in(tmp_path, b"lea@example.com") == 0
        assert bytes_in(tmp_path, NOTE[:50].encode()) == 0


async def test_nothing_of_others_is_left_in_the_file_that_rewriting_goes_through(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.append([append_of("lea", "bo")])
        await journal.erase({LEA: 2})
        assert bytes_in(tmp_path, b"bo@example.com") == 1
        assert not (tmp_path / NAME).read_bytes().strip(b"\0")


async def test_a_plan_that_was_cut_off_is_carried_out_by_the_next_start_and_a_torn_one_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.append([append_of("lea", "bo")])
        before = (tmp_path / "journal-000001.segment").read_bytes()
        await journal.erase({LEA: 2})
        after = (tmp_path / "journal-000001.segment").read_bytes()
        sequence = journal._segments[0].header.sequence
    changed = [at for at in range(len(before)) if before[at] != after[at]]
    begin, end = changed[0], changed[-1] + 1
    plan = _packed([Rewrite(sequence, begin, after[begin:end])])
    (tmp_path / "journal-000001.segment").write_bytes(before)
    (tmp_path / NAME).write_bytes(plan[:-1])
    async with opened(tmp_path) as journal:
        assert (await journal.read(0, 1))[0].events[0].content != b"{}"
    (tmp_path / NAME).write_bytes(plan)
    async with opened(tmp_path) as journal:
        emptied, other = (await journal.read(0, 1))[0].events
        assert (emptied.content, emptied.traits) == (b"{}", Trait.ERASED)
        assert other.content != b"{}"
        assert not (tmp_path / NAME).read_bytes().strip(b"\0")


@pytest.mark.parametrize(
    "event",
    [
        Event(LEA, b'{"":1}'),
        Event(LEA, b"{}", audiences={"a/b": Membership(True, 1.0)}),
        Event(LEA, b'{"":0}', kind=Kind.REPLAY, destination="d", through=0, letter=1),
    ],
    ids=["the shortest content", "an audience", "a replay"],
)
async def test_an_emptied_event_always_fits_where_it_stood(event: Event, tmp_path: Path) -> None:
    assert len(pack_events([event])) >= 4
    async with opened(tmp_path) as journal:
        await journal.append([Append([event])])
        assert await journal.erase({LEA: 1}) == 1
        assert await journal.erase({LEA: 1}) == 0
    async with opened(tmp_path) as journal:
        (found,) = (await journal.read(0, 1))[0].events
        assert (found.content, found.traits, found.audiences) == (b"{}", Trait.ERASED, None)


# -- disks that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_an_io_error_of_a_commit_is_final_and_never_retried(operation: str, tmp_path: Path) -> None:
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty) as journal:
        await journal.append([append_of("lea")])
        before = faulty.operations.count("write")
        faulty.fail(operation)  # type: ignore[arg-type]
        for _ in range(3):
            with pytest.raises(StorageFailed, match=r"journal: .*restart"):
                await journal.append([append_of("bo")])
        with pytest.raises(StorageFailed):
            await journal.probe()
        with pytest.raises(StorageFailed):
            await journal.erase({LEA: 1})
    assert faulty.operations.count("write") - before == 1, "one try, and no other, not even at the end"
    async with opened(tmp_path) as journal:
        assert (await journal.read(0, 10))[0].first == 0


async def test_no_space_when_a_commit_is_synced_is_the_end_too(tmp_path: Path) -> None:
    """What it has left on disk is not known: it would be written over what may be there."""
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty) as journal:
        faulty.fail("sync", errno.ENOSPC)
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await journal.append([append_of("bo")])


async def test_no_space_for_the_next_segment_refuses_and_passes_later(tmp_path: Path) -> None:
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty) as journal:
        faulty.fail("create", errno.ENOSPC, times=3)
        accepted = refused = 0
        while not refused:
            try:
                await journal.append([append_of("lea", note=NOTE)])
                accepted += 1
            except NoSpace:
                refused += 1
        async with asyncio.timeout(10):
            while not await finds_room(journal):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await journal.append([append_of("bo", note=NOTE)]) == accepted


async def finds_room(journal: SegmentJournal) -> bool:
    try:
        await journal.probe()
        await journal._begin_another(journal._segments[-1], 8_192)
    except NoSpace:
        return False
    return True


async def test_half_a_header_does_not_stay(tmp_path: Path) -> None:
    """It would say that the segment before it ends where that has gone on since."""
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty) as journal:
        await fill(journal, 3)
        journal._keeper._idle = None
        name, _ = await journal._keeper.run(lambda: journal._pool.take(8_192, 8_192))
        journal._pool._spare.append((name, 8_192))
        faulty.fail("write", errno.ENOSPC, done=True)
        with pytest.raises(NoSpace):
            await journal._begin_another(journal._segments[-1], 8_192)
        assert live_in(tmp_path) == ["journal-000001.segment"]
        assert await journal.append([append_of("bo")]) == 3
    async with opened(tmp_path) as journal:
        assert len(await journal.read(0, 10)) == 4


async def test_a_disk_below_its_minimum_refuses_before_it_writes(tmp_path: Path) -> None:
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty) as journal:
        journal._min_free_bytes = 1 << 60
        before = list(faulty.operations)
        for call in (journal.append([append_of("lea")]), journal.probe()):
            with pytest.raises(NoSpace) as refused:
                await call
            assert refused.value.type == "disk-full"
        assert faulty.operations == before


async def test_a_disk_that_has_no_room_for_a_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoSpace):
        async with opened(tmp_path, min_free_bytes=1 << 60):
            pass
    assert os.listdir(tmp_path) == []


async def test_a_failure_in_the_background_is_met_by_the_next_caller(tmp_path: Path) -> None:
    faulty = FaultyFiles(tmp_path)
    async with opened(tmp_path, faulty) as journal:
        await fill(journal, 60)
        await journal._keeper.run(lambda: None)
        faulty.fail("write", errno.EIO, times=100)
        journal.release(60)

        async def is_refused() -> bool:
            try:
                await journal.probe()
            except StorageFailed:
                return True
            return False

        await asyncio.wait_for(eventually(is_refused), 10)
        with pytest.raises(StorageFailed):
            await journal.append([append_of("bo")])


async def test_asking_after_the_end_is_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.append([append_of("lea")])
    with pytest.raises(StorageFailed, match="not open"):
        await journal.read(0, 1)
    with pytest.raises(StorageFailed, match="not open"):
        await journal.append([append_of("bo")])


# -- copies and files -------------------------------------------------------------------------------------------------


async def test_a_copy_that_fails_harms_nobody(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with opened(home) as journal:
        await journal.append([append_of("lea")])
        with pytest.raises(DataDirectoryError, match="the copy"):
            await journal.backup(tmp_path / "missing" / "journal-000001.segment")
        (tmp_path / "journal-000007.segment").write_bytes(b"")
        with pytest.raises(DataDirectoryError, match="another folder"):
            await journal.backup(tmp_path / "journal-000001.segment")
        assert await journal.append([append_of("bo")]) == 1


async def test_a_copy_begins_with_what_is_needed_and_is_read_by_its_owner_only(tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    async with opened(home) as journal:
        await fill(journal, 70)
        journal.release(50)
        await journal.backup(away / "journal-000001.segment")
    assert (away / "journal-000001.segment").stat().st_mode & 0o777 == 0o600
    async with opened(away) as journal:
        assert journal._segments[0].base == 50
        assert [one.first for one in await journal.read(0, 100)] == list(range(50, 70))
        assert await fill(journal, 1) == 71


async def test_files_are_read_by_their_owner_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 30)
        await journal.erase({LEA: 3})
    assert {os.stat(tmp_path / name).st_mode & 0o777 for name in os.listdir(tmp_path)} == {0o600}


async def test_what_is_not_of_this_engine_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal-000001.segment").write_bytes(b"my notes")
    (tmp_path / "journal-old.segment").write_bytes(b"my other notes")
    with pytest.raises(DataDirectoryError, match="journal check"):
        async with opened(tmp_path):
            pass
    assert (tmp_path / "journal-000001.segment").read_bytes() == b"my notes"
    assert len(os.listdir(tmp_path)) == 2


def test_a_header_comes_back_as_it_was_written() -> None:
    header = Header("0123456789abcdef", b"saltsalt", 7, 5, 3, 1 << 20)
    assert read_header(header.packed()) == header
    assert len(header.packed()) == HEADER_BYTES


async def test_a_record_costs_its_events_and_little_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        before = journal.size().bytes
        append = append_of(*[f"p{n}" for n in range(100)], note="x" * 300)
        await journal.append([append])
        contents = sum(len(event.content) + len(event.key) for event in append.events)
        assert journal.size().bytes - before <= 1.05 * contents


def test_only_what_is_there_is_listed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    assert DirectoryFiles(tmp_path).names() == ["file"]
