"""The orchestrator's side of the sink, and of the sandbox where that is the sink."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from benchmarks.processes import Failed, Running, running
from benchmarks.sink import Stats

POLL_SECONDS = 0.025


class Records(msgspec.Struct, frozen=True):
    """What came, in the order it came: when (monotonic), of whom, and which version."""

    times: array[float]
    people: array[int]
    versions: array[int]

    def __iter__(self) -> Iterator[tuple[float, int, int]]:
        return zip(self.times, self.people, self.versions, strict=True)

    @classmethod
    def of(cls, data: bytes) -> Records:
        block = len(data) // 3
        times, people, versions = array("d"), array("q"), array("q")
        times.frombytes(data[:block])
        people.frombytes(data[block : 2 * block])
        versions.frombytes(data[2 * block :])
        return cls(times, people, versions)


class SinkClient:
    def __init__(self, session: aiohttp.ClientSession, process: Running) -> None:
        self.session, self.pid, self.url = session, process.pid, process.url

    async def reset(self, latency_ms: float = 0.0) -> None:
        await self._post(f"reset?latency_ms={latency_ms}")

    async def down(self, seconds: float) -> None:
        await self._post(f"down?seconds={seconds}")

    async def stats(self) -> Stats:
        return msgspec.json.decode(await self._get("stats"), type=Stats)

    async def records(self) -> Records:
        return Records.of(await self._get("records"))

    async def requests(self) -> array[float]:
        times = array("d")
        times.frombytes(await self._get("requests"))
        return times

    async def until(self, records: int, within_seconds: float) -> Stats:
        """Wait until so many came. Raises Failed when that takes too long."""
        deadline = time.monotonic() + within_seconds
        while (stats := await self.stats()).records < records:
            if time.monotonic() > deadline:
                raise Failed(f"only {stats.records:,} of {records:,} profiles arrived within {within_seconds:.0f} s")
            await asyncio.sleep(POLL_SECONDS)
        return stats

    async def _get(self, what: str) -> bytes:
        async with self.session.get(f"{self.url}/_sink/{what}") as response:
            return await response.read()

    async def _post(self, what: str) -> None:
        async with self.session.post(f"{self.url}/_sink/{what}"):
            pass


async def get(session: aiohttp.ClientSession, url: str) -> Any:
    """What an engine says of itself. Raises Failed."""
    async with session.get(url) as response:
        if response.status != 200:
            raise Failed(f"{response.url.path} answered {response.status}")
        return await response.json()


@contextmanager
def sink_process(directory: Path, cores: frozenset[int] = frozenset()) -> Iterator[Running]:
    with running(["-m", "benchmarks.sink"], directory / "sink.log", cores=cores) as process:
        yield process


@contextmanager
def generator_process(directory: Path, cores: frozenset[int] = frozenset()) -> Iterator[Running]:
    with running(["-m", "benchmarks.generator"], directory / "generator.log", cores=cores) as process:
        yield process
