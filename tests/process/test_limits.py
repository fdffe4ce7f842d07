"""At the limits of the process: open files and memory. It refuses, it does not die, and it does not spin."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from harness import Oracle, Place, Producer, Program, Sandbox, place_at, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(170),
    pytest.mark.skipif(shutil.which("prlimit") is None, reason="limits of a process are set with prlimit"),
]

FILES = 80
CONNECTIONS = 120
FLOOD_SECONDS = 4.0
MEGABYTE = 1 << 20
MEMORY = 200 * MEGABYTE
ADDRESSES = 900 * MEGABYTE  # beyond it nothing can be mapped; threads and allocators reserve far more than they use
OUTAGE = {"kind": "status", "status": 503}


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        yield made


def cpu_seconds(process: Program) -> float:
    """What it has used so far, in user and kernel mode."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files(process: Program) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def peak_bytes(process: Program) -> int:
    """The most memory it had resident at any time."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (line,) = [one for one in lines if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@asynccontextmanager
async def flooded(place: Place, connections: int) -> AsyncIterator[None]:
    """So many connections are opened that nobody uses; those that are cut off are opened again."""
    port = int(place.url.rpartition(":")[2])

    async def hold() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.close()
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(hold()) for _ in range(connections)]
        yield
        for one in held:
            one.cancel()


async def answered(place: Place) -> bool:
    """Is a new connection served?"""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{place.url}/livez") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def served(producers: Sequence[Producer]) -> None:
    """Wait until every one of them was acknowledged once more."""
    before = [len(one.requests) for one in producers]

    async def all_served() -> bool:
        later = [one.requests[had:] for one, had in zip(producers, before, strict=True)]
        return all(any(request.acknowledged for request in requests) for requests in later)

    await until(all_served, "who was connected is not served")


async def check(place: Place, sandbox: Sandbox, oracle: Oracle) -> None:
    """Nothing is lost, nothing failed, and it did not fill its log with it."""
    await place.settled()
    await oracle.check(sandbox)
    await place.balanced()
    assert place.engine is not None
    said = place.engine.said()
    assert "Traceback" not in said
    assert said.count("\n") < 300


async def test_more_connections_than_files_are_shed_and_those_that_were_there_go_on(
    place: Place, sandbox: Sandbox
) -> None:
    engine = await place.serve("prlimit", f"--nofile={FILES}")
    await place.logged("leave room for")
    producers = [Producer(name, place) for name in ("ada", "bob")]
    oracle = Oracle(*producers)
    async with producers[0].producing(), producers[1].producing():
        await served(producers)
        async with flooded(place, CONNECTIONS):
            for _ in range(4):
                await asyncio.sleep(FLOOD_SECONDS / 4)
                assert open_files(engine) < FILES, "nothing is left for its own files"
            await served(producers)
        await until(lambda: answered(place), "the others are gone, and it takes no connection")
    await check(place, sandbox, oracle)


async def test_without_a_single_file_left_it_neither_fails_nor_spins(place: Place, sandbox: Sandbox) -> None:
    """Whoever has taken them. New connections are cut off, in both directions; then there are files again."""
    engine = await place.serve()
    producers = [Producer(name, place) for name in ("ada", "bob")]
    oracle = Oracle(*producers)
    async with producers[0].producing(), producers[1].producing():
        await served(producers)
        limits = resource.prlimit(
            engine.pid,
            resource.RLIMIT_NOFILE,
            (highest_file(engine) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        )
        async with flooded(place, CONNECTIONS):
            await sandbox.faults({"kind": "reset_before", "probability": 0.5})  # so that it has to connect anew
            await served(producers)
            await sandbox.faults()
            for producer in producers:
                producer.resting = True
            await place_is_quiet(engine)
            used = cpu_seconds(engine)
            await asyncio.sleep(FLOOD_SECONDS)
            used = cpu_seconds(engine) - used
            for producer in producers:
                producer.resting = False
        resource.prlimit(engine.pid, resource.RLIMIT_NOFILE, limits)
        await until(lambda: answered(place), "there are files again, and it takes no connection")
        await served(producers)
    await check(place, sandbox, oracle)
    assert used < FLOOD_SECONDS / 3, f"{used:.1f} s of CPU in {FLOOD_SECONDS:.0f} s without work"


def highest_file(engine: Program) -> int:
    """With this limit the flood takes what is free below it. (A limit below what is open already never comes about by
    itself, and the loop's own way out, a file kept in reserve, does not work there.)"""
    return max(int(name) for name in os.listdir(f"/proc/{engine.pid}/fd"))


async def place_is_quiet(engine: Program) -> None:
    """Wait until it has nothing more to do."""

    async def quiet() -> bool:
        before = cpu_seconds(engine)
        await asyncio.sleep(0.5)
        return cpu_seconds(engine) - before < 0.2

    await until(quiet, "it spins", 30.0)


async def test_with_too_few_files_to_open_the_journal_it_says_so_and_ends(place: Place) -> None:
    with pytest.raises(
        AssertionError, match=r"(?s)exit 78 before it served.*files open at once and needs \d+ at least"
    ):
        await place.serve("prlimit", "--nofile=40")
    assert "Traceback" not in place.log.read_text()


async def test_a_backlog_at_the_limit_of_buffer_and_journal_stays_below_a_cap_on_memory(
    place: Place, sandbox: Sandbox
) -> None:
    place.tables |= {
        "buffer": {"max_profiles": 20_000, "max_bytes": 16 * MEGABYTE},
        "journal": {"min_free_bytes": 1, "max_bytes": 24 * MEGABYTE},
    }
    place.tables["account"][0]["rate"] = {"requests_per_second": 2_000.0, "burst": 40, "max_concurrency": 8}
    place.tables["destination"][0] |= {"encoding": "array", "batch": {"max_profiles": 500}}
    place.write()
    await sandbox.faults(OUTAGE)
    capped = ("prlimit", f"--as={ADDRESSES}")
    engine = await place.serve(*capped)
    taken, refused = set[str](), 0
    while refused < 20:
        number = len(taken)
        people = [f"p{number + one}@people.example" for one in range(500)]
        events = [{"email": email, "address1": email * 8} for email in people]
        status, problem, headers = await place.ask("POST", "/v1/profiles", events)
        if status == 202:
            taken |= {*people}
            continue
        refused += 1
        assert (status, problem["type"]) == (503, "journal-full")
        assert int(headers["Retry-After"]) > 0
    assert peak_bytes(engine) < MEMORY
    await place.kill()
    engine = await place.serve(*capped)
    await sandbox.faults()
    await place.settled(60.0)
    assert peak_bytes(engine) < MEMORY
    assert (await sandbox.attendees()).keys() == taken
    await place.balanced()
