"""The parts of the work, each alone and as lean as it can be: ``python -m benchmarks.parts URL SECONDS``.

A tuned aiohttp POST and one over a bare socket; decoding, merging and encoding; a commit. Each prints what it costs;
together they are what no engine in this language can be much below.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from yarl import URL

from benchmarks.client import CONCURRENCY, STORE_PATH, token, tuned_session
from benchmarks.processes import run_async
from benchmarks.shapes import Shape
from engine.bench.histogram import Histogram
from engine.bench.load import Load
from engine.bench.pacing import Schedule
from engine.bench.wire import Site

EVENT = b'{"event":"bench",'
BATCH = 100
COMMITS, WAITERS = 400, 32
SEGMENT_BYTES = 64 << 20


class Person(msgspec.Struct, gc=False):
    """Every field of an event, as a typed decode has to read it."""

    email: str
    firstname: str | msgspec.UnsetType = msgspec.UNSET
    lastname: str | msgspec.UnsetType = msgspec.UNSET
    companyname: str | msgspec.UnsetType = msgspec.UNSET
    jobtitle: str | msgspec.UnsetType = msgspec.UNSET
    phone: str | msgspec.UnsetType = msgspec.UNSET
    address1: str | msgspec.UnsetType = msgspec.UNSET
    address2: str | msgspec.UnsetType = msgspec.UNSET
    city: str | msgspec.UnsetType = msgspec.UNSET
    state: str | msgspec.UnsetType = msgspec.UNSET
    zip: str | msgspec.UnsetType = msgspec.UNSET
    countryid: str | msgspec.UnsetType = msgspec.UNSET


MICRO, MILLI = 1e6, 1e3


def stored(shape: Shape, event: int) -> bytes:
    """One event as the body of a store request."""
    return EVENT + shape.record(event)[1:]


def stored_list(shape: Shape, request: int) -> bytes:
    return b"[" + b",".join(stored(shape, request * BATCH + it) for it in range(BATCH)) + b"]"


async def bare_posts(url: str, authorization: str, seconds: float) -> float:
    """CPU microseconds of this process per POST of one profile with a tuned aiohttp client."""
    shape, target, sent = Shape(run="bare"), URL(url + STORE_PATH), 0
    ends = time.perf_counter() + seconds

    async def post_on() -> None:
        nonlocal sent
        while time.perf_counter() < ends:
            sent += 1
            async with session.post(target, data=stored(shape, sent), allow_redirects=False) as response:
                await response.read()

    async with tuned_session(authorization) as session:
        with cpu() as used:
            await asyncio.gather(*(post_on() for _ in range(CONCURRENCY)))
    return used[0] / sent * MICRO


async def raw_posts(url: str, authorization: str, seconds: float, body: Callable[[int], bytes]) -> float:
    """The same over bare sockets, without what making the bodies costs."""
    load = _load(url, authorization, body, seconds, CONCURRENCY)
    with cpu() as used:
        result = await load.run()
    with cpu() as made:
        for index in range(result.sent):
            body(index)
    return (used[0] - made[0]) / result.sent * MICRO


async def round_trip(url: str, authorization: str, seconds: float) -> Histogram:
    """One such POST at a time, 100 a second."""
    shape = Shape(run="trip")
    load = _load(url, authorization, lambda it: stored(shape, it), seconds, 1, Schedule(100, seconds))
    return (await load.run()).acks


def _load(
    url: str,
    authorization: str,
    body: Callable[[int], bytes],
    seconds: float,
    connections: int,
    schedule: Schedule | None = None,
) -> Load:
    site = Site.of(url, STORE_PATH, authorization=authorization)
    return Load(site, body, 1, connections=connections, seconds=seconds, schedule=schedule)


def pipeline(n: int, events: int = 100_000, window: int = 4_000) -> float:
    """CPU microseconds per event: typed decode of n at a time, one place a person, lists of 100 joined."""
    shape, pending, written = Shape(run="pipe", sizes=(n,)), {}, 0
    bodies = [shape.body(request) for request in range(events // n)]
    decoder, line = msgspec.json.Decoder(list[Person]), msgspec.json.Decoder(list[msgspec.Raw])
    with cpu() as used:
        for body in bodies:
            for person, raw in zip(decoder.decode(body), line.decode(body), strict=True):
                pending[person.email.strip().lower()] = raw
            if len(pending) >= window:
                written += _joined(pending)
        written += _joined(pending)
    assert written >= events // n * n
    return used[0] / (events // n * n) * MICRO


def _joined(pending: dict[str, msgspec.Raw]) -> int:
    lines, count = list(pending.values()), len(pending)
    for start in range(0, count, BATCH):
        b"[" + b",".join(bytes(it) for it in lines[start : start + BATCH]) + b"]"
    pending.clear()
    return count


def commits(directory: Path, n: int) -> tuple[float, Histogram]:
    """CPU microseconds per event and seconds per commit: the bodies of 32 waiting requests, then fdatasync."""
    shape, seconds = Shape(run="commit", sizes=(n,)), Histogram()
    block = b"".join(shape.body(request) for request in range(WAITERS))
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        _fill(file.fileno())
        with cpu() as used:
            for index in range(COMMITS):
                started = time.perf_counter()
                os.pwrite(file.fileno(), block, index * len(block) % (SEGMENT_BYTES - len(block)))
                os.fdatasync(file.fileno())
                seconds.add(time.perf_counter() - started)
    return used[0] / (COMMITS * WAITERS * n) * MICRO, seconds


def _fill(descriptor: int) -> None:
    """With zeros, so that a commit changes no metadata."""
    for start in range(0, SEGMENT_BYTES, 1 << 20):
        os.pwrite(descriptor, bytes(1 << 20), start)
    os.fsync(descriptor)


def fdatasync(directory: Path, times: int = 300) -> Histogram:
    """One block of 4 KiB appended and made durable, over and over."""
    block, seconds = b"x" * 4096, Histogram()
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(times):
            started = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            seconds.add(time.perf_counter() - started)
    return seconds


@contextmanager
def cpu() -> Iterator[list[float]]:
    """CPU seconds of this process inside the block, in the list that is handed out."""
    used: list[float] = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    yield used
    after = resource.getrusage(resource.RUSAGE_SELF)
    used.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


async def parts(url: str, seconds: float, directory: Path) -> dict[str, float]:
    """Figures with their units in their names."""
    authorization = f"Bearer {await token(url)}"
    single, whole = Shape(run="raw"), Shape(run="list")
    disk, trip = fdatasync(directory), await round_trip(url, authorization, seconds)
    found = {
        "fdatasync_p50_ms": disk.quantile(0.5) * MILLI,
        "fdatasync_p99_ms": disk.quantile(0.99) * MILLI,
        "round_trip_p50_ms": trip.quantile(0.5) * MILLI,
        "aiohttp_post_cpu_us": await bare_posts(url, authorization, seconds),
        "raw_post_cpu_us": await raw_posts(url, authorization, seconds, lambda it: stored(single, it)),
        "raw_post_of_100_cpu_us": await raw_posts(url, authorization, seconds, lambda it: stored_list(whole, it)),
    }
    for n in (1, 10, 100):
        found[f"pipeline_{n}_cpu_us_per_event"] = pipeline(n)
        found[f"commit_{n}_cpu_us_per_event"], _ = commits(directory, n)
    return found


def main() -> None:
    url, seconds = sys.argv[1], float(sys.argv[2])
    sys.stdout.buffer.write(msgspec.json.encode(run_async(parts(url, seconds, Path.cwd()))) + b"\n")


if __name__ == "__main__":
    main()
