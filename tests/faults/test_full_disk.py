"""No room is not a failure: the engine refuses, says so, and goes on by itself. A failing disk is: it stops.

The small disk is a tmpfs in a mount namespace of the engine's own; where none can be made, those tests are skipped.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import Place, Sandbox, place_at, sandbox_at, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

OUTAGE = {"kind": "status", "status": 503}
DISK_MEGABYTES, BALLAST_MEGABYTES = 12, 6
MEGABYTE = 1 << 20
SMALL_DISK = f"""
mkdir -p "$1" && mount -t tmpfs -o size={DISK_MEGABYTES}m,mode=700 tmpfs "$1" || exit 9
head -c {BALLAST_MEGABYTES}m /dev/zero > "$1/ballast" && shift && exec "$@"
"""


def small_disk(directory: Path) -> tuple[str, ...]:
    return ("unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(directory))


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
    """Posts about people that are all different until it is refused. `taken`: who was acknowledged."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.taken: list[str] = []
        self._sent = 0

    async def post(self, people: int = 400) -> tuple[int, dict[str, object], int]:
        """Status, body and Retry-After (0: none) of one request of some 150 kB."""
        new = [f"p{number}@people.example" for number in range(self._sent, self._sent + people)]
        self._sent += people
        events = [{"email": email, "address1": email * 10} for email in new]
        status, body, headers = await self._place.ask("POST", "/v1/profiles", events)
        self.taken += new if status == 202 else []
        return status, body, int(headers.get("Retry-After", "0"))

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
        await self._place.settled()
        await self._place.balanced()
        stored = await sandbox.attendees()
        lost, invented = {*self.taken} - {*stored}, {*stored} - {*self.taken}
        assert not lost, f"{len(lost)} of {len(self.taken)} acknowledged are lost"
        assert not invented, f"{len(invented)} were refused and stored"
        changed = [email for email, fields in stored.items() if fields != {"address1": email * 10}]
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


@pytest.mark.parametrize("floor_megabytes", [2, 0], ids=["floor", "to the last byte"])
async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(
    place: Place, sandbox: Sandbox, floor_megabytes: int
) -> None:
    disk = place.folder / "data"
    if not small_disks_can_be_made(disk):
        pytest.skip("no tmpfs can be mounted here")
    place.tables["journal"]["min_free_bytes"] = floor_megabytes * MEGABYTE
    place.write()
    await sandbox.faults(OUTAGE)
    engine = await place.serve(*small_disk(disk))
    filler = Filler(place)
    await filler.until_refused("disk-full")
    (Path(f"/proc/{engine.pid}/root") / disk.relative_to("/") / "ballast").unlink()
    await filler.accepted_again()
    await sandbox.faults()
    await filler.check(sandbox)
    await place.stop()


async def test_an_engine_on_a_full_disk_can_be_stopped(place: Place, sandbox: Sandbox) -> None:
    disk = place.folder / "data"
    if not small_disks_can_be_made(disk):
        pytest.skip("no tmpfs can be mounted here")
    place.tables["journal"]["min_free_bytes"] = 0
    place.write()
    await sandbox.faults(OUTAGE)
    await place.serve(*small_disk(disk))
    filler = Filler(place)
    await filler.until_refused("disk-full")
    await sandbox.faults()
    await place.stop()


@pytest.mark.parametrize("file", ["journal.db-wal", "state.db-wal"])
async def test_a_disk_that_fails_stops_the_engine_and_the_next_start_has_everything(
    place: Place, sandbox: Sandbox, file: str
) -> None:
    """A write beyond RLIMIT_FSIZE fails with EFBIG, which is an I/O error to SQLite."""
    await sandbox.faults(*([OUTAGE] if file.startswith("journal") else []))
    engine = await place.serve()
    filler = Filler(place)
    assert (await filler.post())[0] == 202
    size = (place.folder / "data" / file).stat().st_size
    resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    status = 202
    while status == 202 and engine.running:
        status, *_ = await filler.post()
    assert await engine.ended() == 1
    assert file.removesuffix("-wal") in place.log.read_text()
    assert "Traceback" not in place.log.read_text()
    await sandbox.faults()
    await place.serve()
    await place.settled()
    await place.balanced()
    assert set(filler.taken) <= set(await sandbox.attendees())
