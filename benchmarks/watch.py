"""What the sandbox and the engine are asked while a phase runs and after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from benchmarks.processes import Failed
from engine.bench.events import Workload
from engine.bench.histogram import Histogram
from engine.bench.load import LoadResult
from engine.bench.machine import cpu_seconds
from engine.bench.pacing import Schedule

POLL_SECONDS = 0.025
DRAIN_SECONDS = 60.0
IDLE_WINDOW_SECONDS, IDLE_SHARE, IDLE_SECONDS = 0.2, 0.1, 10.0
PAGE = 1000


async def get(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as response:
        if response.status != 200:
            raise Failed(f"{response.url.path} answered {response.status}")
        return await response.json()


class Sink:
    """The sandbox as a measuring instrument: what it holds, and since when."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def reset(self) -> None:
        async with self.session.post(f"{self.url}/_sandbox/reset"):
            pass

    async def attendees(self) -> int:
        """Different people stored since the last reset."""
        stats = await get(self.session, f"{self.url}/_sandbox/stats")
        return int(stats["attendees"])

    async def until(self, people: int) -> None:
        """Wait until so many are stored. Raises Failed when that takes too long."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while (stored := await self.attendees()) < people:
            if time.monotonic() > deadline:
                raise Failed(f"only {stored:,} of {people:,} profiles arrived within {DRAIN_SECONDS:.0f} s")
            await asyncio.sleep(POLL_SECONDS)

    async def delivered(self, workload: Workload, result: LoadResult, schedule: Schedule) -> Histogram:
        """For every person: from the moment the request was due until the sandbox had stored the profile."""
        seconds, after = Histogram(), ""
        while True:
            page = await get(self.session, f"{self.url}/_sandbox/attendees?limit={PAGE}{after}")
            for attendee in page["attendees"]:
                person = workload.person_of(attendee["email"])
                if person is not None:
                    due = result.started_at + schedule.due_at(person // workload.events_per_request)
                    seconds.add(max(0.0, attendee["created_at"] - due))
            if page["next"] is None:
                return seconds
            after = f"&after={page['next']}"


class Backlog:
    """Keeps a closed loop from running far ahead of the way out: at most 0.4 s of deliveries may be under way.

    An acknowledgement comes before the delivery, so a closed loop alone would only measure how fast a journal fills.
    """

    def __init__(self, sink: Sink, events_per_request: int) -> None:
        self._sink, self._least = sink, max(1_000, 20 * events_per_request)
        self.result: LoadResult | None = None
        self.stored = 0
        self._allowed = float(self._least)

    def may_send(self) -> bool:
        result = self.result
        return result is None or result.sent * result.events_per_request - self.stored < self._allowed

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _watch(self) -> None:
        started = time.monotonic()
        while True:
            self.stored = await self._sink.attendees()
            per_second = self.stored / (time.monotonic() - started + 0.1)
            self._allowed = max(self._least, 0.4 * per_second)
            await asyncio.sleep(POLL_SECONDS)


async def settled(session: aiohttp.ClientSession, engine_url: str) -> None:
    """Wait until every event has its outcome."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        answer = await get(session, f"{engine_url}/v1/destinations")
        pending = sum(it["counts"]["pending"] for it in answer["destinations"])
        if not pending:
            return
        if time.monotonic() > deadline:
            raise Failed(f"{pending:,} events still pending after {DRAIN_SECONDS:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


async def idle(pid: int) -> None:
    """Wait until a process has no work left in the background, within bounds."""
    deadline, used = time.monotonic() + IDLE_SECONDS, cpu_seconds(pid)
    while time.monotonic() < deadline:
        await asyncio.sleep(IDLE_WINDOW_SECONDS)
        before, used = used, cpu_seconds(pid)
        if used - before <= IDLE_SHARE * IDLE_WINDOW_SECONDS:
            return
