"""What nothing can be faster than here: the disk's fdatasync, a bare POST. ``python -m benchmarks.floors URL``."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
from yarl import URL

from benchmarks.processes import run_async
from engine.bench.events import Workload
from engine.bench.histogram import Histogram
from engine.bench.load import Load
from engine.bench.pacing import Schedule
from engine.bench.results import Floors, Quantiles
from engine.bench.wire import Site

STORE_PATH = "/api/bench/v3/attendee/store"
CONCURRENCY = 32
EVENT = b'{"event":"bench",'


def fdatasync(directory: Path, times: int = 300) -> Quantiles:
    """One block of 4 KiB appended and made durable, over and over."""
    block, seconds = b"x" * 4096, Histogram()
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(times):
            started = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            seconds.add(time.perf_counter() - started)
    return Quantiles.of(seconds)


def record(workload: Workload, index: int) -> bytes:
    """One event as the body of a store request."""
    return EVENT + workload.body(index)[1:]


async def token(url: str) -> str:
    """Of the sandbox, with its fixed credentials."""
    credentials = base64.b64encode(b"sandbox:sandbox").decode()
    headers = {"Authorization": f"Basic {credentials}"}
    form = {"grant_type": "client_credentials"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/oidc/token", data=form, headers=headers) as response,
    ):
        return str((await response.json())["access_token"])


def tuned_session(authorization: str, connections: int = CONCURRENCY) -> aiohttp.ClientSession:
    """aiohttp with everything off that costs time and is not needed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Authorization": authorization, "Content-Type": "application/json"},
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        auto_decompress=False,
    )


async def bare_posts(url: str, authorization: str, seconds: float) -> float:
    """CPU microseconds of this process per POST with a tuned aiohttp client."""
    workload, target, sent = Workload("bare", 1), URL(url + STORE_PATH), 0
    ends = time.perf_counter() + seconds

    async def post_on() -> None:
        nonlocal sent
        while time.perf_counter() < ends:
            sent += 1
            async with session.post(target, data=record(workload, sent), allow_redirects=False) as response:
                await response.read()

    async with tuned_session(authorization) as session:
        with cpu() as used:
            await asyncio.gather(*(post_on() for _ in range(CONCURRENCY)))
    return used[0] / sent * 1e6


async def raw_posts(url: str, authorization: str, seconds: float) -> float:
    """The same over bare sockets."""
    load = _load(url, authorization, Workload("raw", 1), seconds, CONCURRENCY)
    with cpu() as used:
        result = await load.run()
    return used[0] / result.sent * 1e6


async def round_trip(url: str, authorization: str, seconds: float) -> Quantiles:
    """One such POST at a time, 100 a second."""
    load = _load(url, authorization, Workload("trip", 1), seconds, 1, Schedule(100, seconds))
    return Quantiles.of((await load.run()).acks)


def _load(
    url: str, authorization: str, workload: Workload, seconds: float, connections: int, schedule: Schedule | None = None
) -> Load:
    return Load(
        Site.of(url, STORE_PATH, authorization=authorization),
        lambda index: record(workload, index),
        1,
        connections=connections,
        seconds=seconds,
        schedule=schedule,
    )


@contextmanager
def cpu() -> Iterator[list[float]]:
    """CPU seconds of this process inside the block, in the list that is handed out."""
    used: list[float] = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield used
    after = resource.getrusage(resource.RUSAGE_SELF)
    used.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


async def floors(url: str, seconds: float) -> Floors:
    authorization = f"Bearer {await token(url)}"
    return Floors(
        bare_post_us=round(await bare_posts(url, authorization, seconds), 1),
        raw_post_us=round(await raw_posts(url, authorization, seconds), 1),
        round_trip=await round_trip(url, authorization, seconds),
    )


def main() -> None:
    url, seconds = sys.argv[1], float(sys.argv[2])
    sys.stdout.buffer.write(msgspec.json.encode(run_async(floors(url, seconds))) + b"\n")


if __name__ == "__main__":
    main()
