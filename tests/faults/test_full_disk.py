"""No room is not a failure: the engine refuses, says so, and goes on by itself. A failing disk is: it stops.

The small disk is a tmpfs in a mount namespace of the engine's own; where none can be made, those tests are skipped.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from harness import JOURNAL_KIND, Place, Sandbox, place_at, sandbox_at, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

OUTAGE = {"kind": "status", "status": 503}
MEGABYTE = 1 << 20
SMALL_DISK = """
mkdir -p "$1" && mount -t tmpfs -o size="$2"m,mode=700 tmpfs "$1" || exit 9
head -c "$3"m /dev/zero > "$1/ballast" && shift 3 && exec "$@"
"""


def small_disk(directory: Path, megabytes: int = 100, ballast_megabytes: int = 0) -> tuple[str, ...]:
    """A command that makes it and goes on to execute what follows."""
    return ("unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(directory), str(megabytes), str(ballast_megabytes))


FULL_DISK = """
mkdir -p "$1" && mount -t tmpfs -o size=24m,mode=700 tmpfs "$1" && cp -a "$2/." "$1/" || exit 9
head -c 64m /dev/zero > "$1/ballast" 2> /dev/null
truncate -s "-$3" "$1/ballast" && shift 3 && exec "$@"
"""


def full_disk(directory: Path, content: Path, free_bytes: int) -> tuple[str, ...]:
    """Like `small_disk`, with a copy of this content and so little room beside it."""
    return ("unshare", "-rm", "sh", "-c", FULL_DISK, "sh", str(directory), str(content), str(free_bytes))


def small_disks_can_be_made(directory: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*small_disk(directory), "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with sandbox_at(tmp_path) as running:
        yield running


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    """Sends as fast as it can, and tries again soon."""
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        made.tables["account"][0]["rate"] = {"requests_per_second": 2_000.0, "burst": 40, "max_concurrency": 16}
        yield made


class Filler:
    """Posts until it is refused. `taken`: e-mail -> what was acknowledged last. `people`: how many there are (None:
    every event is about another one)."""

    def __init__(self, place: Place, people: int | None = None) -> None:
        self._place, self._people = place, people
        self.taken: dict[str, str] = {}
        self._sent = 0

    async def post(self, events: int = 400) -> tuple[int, dict[str, object], int]:
        """Status, body and Retry-After (0: none) of one request of some 100 kB."""
        numbers = range(self._sent, self._sent + events)
        self._sent += events
        new = {self._email(number): f"{number} " * 30 for number in numbers}
        profiles = [{"email": email, "address1": address.strip()} for email, address in new.items()]
        status, body, headers = await self._place.ask("POST", "/v1/profiles", profiles)
        self.taken |= new if status == 202 else {}
        return status, body, int(headers.get("Retry-After", "0"))

    def _email(self, number: int) -> str:
        return f"p{number % self._people if self._people else number}@people.example"

    async def until_refused(self, reason: str) -> None:
        """The first answer that is not 202 has to be this refusal, and readiness has to say the same."""
        status, refusal, retry_after = await self.post()
        while status == 202:
            status, refusal, retry_after = await self.post()
        assert (status, refusal["type"]) == (503, reason)
        assert retry_after > 0
        status, ready, _ = await self._place.ask("GET", "/readyz")
        assert status == 503
        assert reason in ready["reasons"]
        assert (await self._place.ask("GET", "/livez"))[0] == 200

    async def accepted_again(self) -> None:
        async def accepted() -> bool:
            return (await self.post(1))[0] == 202

        await until(accepted, "there is room and it goes on refusing")
        assert (await self._place.ask("GET", "/readyz"))[0] == 200

    async def check(self, sandbox: Sandbox) -> None:
        """Nobody is missing, and nobody who was refused was stored."""
        await self._place.settled(90.0)
        await self._place.balanced()
        stored = await sandbox.attendees()
        lost, invented = {*self.taken} - {*stored}, {*stored} - {*self.taken}
        assert not lost, f"{len(lost)} of {len(self.taken)} acknowledged are lost"
        assert not invented, f"{len(invented)} were refused and stored"
        changed = [it for it, address in self.taken.items() if stored[it] != {"address1": address.strip()}]
        assert not changed


async def test_a_full_journal_refuses_until_it_has_drained(place: Place, sandbox: Sandbox) -> None:
    place.tables["journal"]["max_bytes"] = 3 * MEGABYTE
    place.write()
    await sandbox.faults(OUTAGE)
    await place.serve()
    filler = Filler(place)
    await filler.until_refused("journal-full")
    await place.kill()
    await place.serve()
    await filler.until_refused("journal-full")
    await sandbox.faults()
    await filler.accepted_again()
    await filler.check(sandbox)


async def test_an_engine_below_its_free_space_refuses_and_still_delivers(place: Place, sandbox: Sandbox) -> None:
    place.tables["journal"]["min_free_bytes"] = 1
    await sandbox.faults(OUTAGE)
    place.write()
    await place.serve()
    filler = Filler(place)
    assert (await filler.post())[0] == 202
    await place.stop()
    place.tables["journal"]["min_free_bytes"] = 2**60
    place.write()
    await sandbox.faults()
    await place.serve()
    await filler.until_refused("disk-full")
    await filler.check(sandbox)


@pytest.fixture
def disk(place: Place) -> Path:
    """The data directory, where a small disk can be mounted."""
    directory = place.folder / "data"
    if not small_disks_can_be_made(directory):
        pytest.skip("no tmpfs can be mounted here")
    return directory


async def test_at_its_floor_an_engine_settles_what_it_has_and_then_accepts_again(
    place: Place, sandbox: Sandbox, disk: Path
) -> None:
    """Nobody frees anything: the journal filled the disk, and it drains. Few people, so that the state stays small."""
    place.tables["journal"]["min_free_bytes"] = 80 * MEGABYTE
    place.write()
    await sandbox.faults(OUTAGE)
    await place.serve(*small_disk(disk))
    filler = Filler(place, people=400)
    await filler.until_refused("disk-full")
    await sandbox.faults()
    await filler.accepted_again()
    await filler.check(sandbox)
    await place.stop()


async def test_a_disk_full_to_the_last_byte_refuses_and_goes_on_when_there_is_room(
    place: Place, sandbox: Sandbox, disk: Path
) -> None:
    place.tables["journal"]["min_free_bytes"] = 0
    place.write()
    await sandbox.faults(OUTAGE)
    engine = await place.serve(*small_disk(disk, ballast_megabytes=94))
    filler = Filler(place)
    await filler.until_refused("disk-full")
    (Path(f"/proc/{engine.pid}/root") / disk.relative_to("/") / "ballast").unlink()
    await filler.accepted_again()
    await sandbox.faults()
    await filler.check(sandbox)
    await place.stop()


@pytest.mark.parametrize("free_bytes", [0, 4_096, 24_576])
async def test_a_new_engine_that_finds_no_room_says_so_and_ends(place: Place, disk: Path, free_bytes: int) -> None:
    empty = place.folder / "empty"
    empty.mkdir()
    await check_no_room(place, full_disk(disk, empty, free_bytes))


async def test_an_engine_that_finds_the_disk_full_has_everything_when_there_is_room(
    place: Place, sandbox: Sandbox, disk: Path
) -> None:
    kept = place.folder / "kept"
    place.tables["engine"]["data_dir"] = str(kept)
    place.write()
    await sandbox.faults(OUTAGE)
    await place.serve()
    filler = Filler(place)
    for _ in range(5):
        assert (await filler.post())[0] == 202
    await place.kill()
    place.tables["engine"]["data_dir"] = str(disk)
    place.write()
    if JOURNAL_KIND == "segments":  # it has its room already
        await place.serve(*full_disk(disk, kept, 0))
        await place.kill()
    else:
        await check_no_room(place, full_disk(disk, kept, 0))
    place.tables["engine"]["data_dir"] = str(kept)
    place.write()
    await sandbox.faults()
    await place.serve()
    await filler.check(sandbox)


async def check_no_room(place: Place, before: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match=r"(?s)^exit 1 before it served:.*error: [^\n]*no room on the disk"):
        await place.serve(*before)
    said = place.log.read_text()
    assert "Traceback" not in said
    assert "damaged" not in said


async def test_an_engine_on_a_full_disk_can_be_asked_and_stopped(place: Place, sandbox: Sandbox, disk: Path) -> None:
    """There is no room for what becomes of events either; nobody is left waiting for it."""
    place.tables["journal"]["min_free_bytes"] = 0
    place.write()
    await sandbox.faults(OUTAGE)
    await place.serve(*small_disk(disk, ballast_megabytes=96))
    filler = Filler(place)
    await filler.until_refused("disk-full")
    await sandbox.faults()

    async def without_room() -> bool:
        return "state-disk-full" in (await place.get("/v1/status"))["reasons"]

    await until(without_room, "there is room for everything")
    status, problem, headers = await place.ask("GET", "/v1/audit")
    assert (status, problem["type"]) == (503, "disk-full")
    assert int(headers["Retry-After"]) > 0
    assert (await place.ask("POST", "/v1/destinations/demo/pause"))[0] == 503
    await place.stop()


@pytest.mark.parametrize("file", ["journal", "state.db"])
async def test_a_disk_that_fails_stops_the_engine_and_the_next_start_has_everything(
    place: Place, sandbox: Sandbox, file: str
) -> None:
    """A write beyond RLIMIT_FSIZE fails with EFBIG, which is an I/O error to SQLite. What is delivered makes the
    state's WAL grow faster than the journal's; nothing delivered, it does not grow at all."""
    await sandbox.faults(*([OUTAGE] if file == "journal" else []))
    engine = await place.serve()
    filler = Filler(place)
    assert (await filler.post())[0] == 202
    if file == "state.db":
        await place.settled()
        await place.balanced()
    size, named = written(place.folder / "data", file)
    resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with suppress(aiohttp.ClientError):
        while (await filler.post(2))[0] == 202:
            pass
    assert await engine.ended() == 1
    assert f"error: {named}" in place.log.read_text()
    assert "Traceback" not in place.log.read_text()
    await sandbox.faults()
    await place.serve()
    await place.settled()
    await place.balanced()
    assert filler.taken.keys() <= (await sandbox.attendees()).keys()


def written(data: Path, file: str) -> tuple[int, str]:
    """How far the file is written, and how the end begins that a failure to go on has."""
    if file == "journal" and JOURNAL_KIND == "segments":
        return len((data / "journal-000001.segment").read_bytes().rstrip(b"\0")), "journal: "
    name = "journal.db" if file == "journal" else file
    return (data / f"{name}-wal").stat().st_size, f"{name}: disk I/O error"
