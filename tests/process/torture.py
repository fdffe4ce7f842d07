"""One engine that is killed again and again, each time in another situation, below producers that do not stop.

The situations are in `scenes`; here is what they need, and what has to hold when it is over.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from harness import JOURNAL_KIND, Oracle, Place, Producer, Program, Request, Sandbox, place_at, sandbox_at, until

from engine.adapters.segments.inspection import inspect_journal
from engine.adapters.sqlite.wal import examine

RATE, BURST = 1_000.0, 10
SINGLE, LISTING = "demo27", "list27"
DESTINATIONS = ("demo", "listing")
RETRIED_CODE, REFUSED_CODE = "77", "27"
RETRY = {
    "base_ms": 20,
    "cap_ms": 300,
    "timeout_seconds": 2.0,
    "unknown_hold_seconds": 0.4,
    "max_attempts": 100_000,
}

TABLES: dict[str, Any] = {
    "buffer": {"max_profiles": 400},
    "account": [{"rate": {"requests_per_second": RATE, "burst": BURST, "max_concurrency": 16}}],
    "destination": [
        {"retry": RETRY, "response_codes": {RETRIED_CODE: "retry"}},
        {
            "name": "listing",
            "event_code": LISTING,
            "encoding": "array",
            "batch": {"max_profiles": 50},
            "retry": RETRY,
            "response_codes": {RETRIED_CODE: "retry"},
        },
    ],
}
"""A buffer so small that backfill overflows it; a code that is tried again, so that one profile can be kept waiting."""

WEATHER: tuple[tuple[dict[str, object], ...], ...] = (
    (),
    (),
    ({"kind": "latency", "seconds": 0.15, "probability": 0.5},),
    ({"kind": "html_500", "probability": 0.2},),
    ({"kind": "reset_after", "probability": 0.1}, {"kind": "reset_before", "probability": 0.1}),
    ({"kind": "timeout_after", "seconds": 3, "probability": 0.01},),
)


class Figures(msgspec.Struct):
    """What a run was worth. `scenes`: how often it was killed in each, `missed`: how often a moment before or after it;
    `torn`: how often the last write to a file was found unfinished; `ready_seconds`: from each start to accepting."""

    kills: int = 0
    missed: int = 0
    scenes: Counter[str] = msgspec.field(default_factory=Counter)
    torn: Counter[str] = msgspec.field(default_factory=Counter)
    ready_seconds: list[float] = []
    replays_cut: int = 0
    acknowledged_events: int = 0
    unknown_requests: int = 0

    @classmethod
    def of_all(cls, several: Iterable[Figures]) -> Figures:
        total = cls()
        for one in several:
            for name in cls.__struct_fields__:
                setattr(total, name, getattr(total, name) + getattr(one, name))
        return total

    def __str__(self) -> str:
        shares = statistics.quantiles(self.ready_seconds, n=100, method="inclusive")
        return (
            f"{self.kills} kills ({self.missed} of them not in the situation they were meant for), "
            f"{len(self.ready_seconds)} starts, {self.acknowledged_events} acknowledged events, "
            f"{self.unknown_requests} requests without an answer, {self.replays_cut} replays cut off; "
            f"ready again p50 {shares[49]:.2f} s, p99 {shares[98]:.2f} s; "
            f"unfinished writes: {dict(sorted(self.torn.items()))}; {dict(sorted(self.scenes.items()))}; "
            f"nothing lost: 95 % bound for the share of kills that lose something {3 / max(1, self.kills):.2%}"
        )


class Sender(Producer):
    """Sends what it is told to, when it is told to."""

    def __init__(self, name: str, place: Place, http: aiohttp.ClientSession) -> None:
        super().__init__(name, place, people=300)
        self._http = http

    async def send(self, emails: list[str], query: str = "") -> bool:
        """One event about each of them, in one request; were they acknowledged?"""
        witness = f"{self.name}-w{len(self.requests)}@people.example"
        events = [self._event(email) for email in [*emails, witness]]
        last = {event["email"]: event for event in events}
        request = Request(witness, list(last.values()), merged=len(events) - len(last))
        await self.post(self._http, f"{self.place.url}/v1/profiles{query}", request, events)
        return request.acknowledged

    def _event(self, email: str) -> dict[str, Any]:
        """Always the same field, so that of several events of one address the last one is all that shows."""
        self._version += 1
        return {"email": email, "x_version": self._version, "city": f"city-{self._version}"}

    def strangers(self, count: int) -> list[str]:
        """Addresses nobody has used."""
        return [f"{self.name}-{len(self.requests)}-{number}@people.example" for number in range(count)]


class Victim:
    """The engine in `place`, its producers, and the hand on the trigger. `source` decides when."""

    def __init__(self, place: Place, sandbox: Sandbox, http: aiohttp.ClientSession, source: random.Random, name: str):
        self.place, self.sandbox, self.source = place, sandbox, source
        self.producers = [Producer(f"{name}{one}", place, pause_seconds=0.015) for one in ("ada", "bob", "cyd")]
        self.sender = Sender(f"{name}bulk", place, http)
        self.oracle = Oracle(*self.producers, self.sender)
        self.figures = Figures()
        self.replays: Counter[str] = Counter()  # how many letters were asked to be replayed at most, by destination

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for producer in self.producers:
                await stack.enter_async_context(producer.producing())
            yield

    async def up(self) -> None:
        """Start it, and note how long it took."""
        await self.sandbox.faults(*self.source.choice(WEATHER))
        started = time.monotonic()
        await self.place.serve()
        self.figures.ready_seconds.append(time.monotonic() - started)

    async def within(self, seconds: float) -> None:
        """A random moment from now on."""
        await asyncio.sleep(self.source.uniform(0.0, seconds))

    async def kill(self, engine: Program | None = None, *, sent: bool = False) -> bool:
        """-9, unless that was `sent` already. False when it had ended by itself, which only a stop that was asked for
        may cause."""
        engine = engine or self.place.engine
        assert engine is not None
        alive = engine.running or sent
        assert alive or await engine.ended() == 0, engine.said()
        await engine.kill()
        self.figures.kills += alive
        data = self.place.folder / "data"
        self.figures.torn["journal"] += torn_journal(data)
        self.figures.torn["state.db"] += examine(data / "state.db").discarded > 0
        return alive

    async def kill_at_write(self, file: str) -> bool:
        """-9 as soon as something is being written to this file, or to the journal."""
        assert self.place.engine is not None
        data, pid = self.place.folder / "data", self.place.engine.pid
        path = written_last(data) if file == "journal" else data / f"{file}-wal"
        written = await asyncio.to_thread(kill_at_write, pid, path, self.source.choice((0.0, 0.0003, 0.001, 0.003)))
        return await self.kill(sent=True) and written

    def rest(self, resting: bool) -> None:
        for producer in self.producers:
            producer.resting = resting

    async def shown(self) -> list[dict[str, Any]]:
        """Its destinations."""
        return list((await self.place.get("/v1/destinations"))["destinations"])

    async def expect_replays(self) -> None:
        """Note how many dead letters the next replay hands in again at most."""
        for one in await self.shown():
            self.replays[one["name"]] += one["dead_letters"]

    async def replay(self) -> bool:
        """Hand every dead letter in again; was that answered?"""
        try:
            status, _, _ = await self.place.ask("POST", "/v1/dead-letters/replay", {})
        except aiohttp.ClientError:
            self.figures.replays_cut += 1
            return False
        return status == 200

    async def check(self) -> None:
        """Nothing is lost, and the sums are even."""
        await self.up()
        await self.sandbox.faults()
        await until(self._without_letters, "dead letters stay", 60.0)
        await self.place.settled(120.0)
        await self.oracle.check(self.sandbox, SINGLE, LISTING)
        durable = self.oracle.accepted(await self.sandbox.attendees(SINGLE))
        for name, sums in (await self.place.balanced()).items():
            replayed = sums["accepted"] - durable
            assert sums["dead_lettered"] <= replayed <= self.replays[name], sums
            assert sums["excluded"] <= replayed - sums["dead_lettered"], sums
            assert sums["expired"] == sums["pending"] == 0, sums
        measured = await self.sandbox.call("GET", f"rate?rate={RATE}&burst={BURST}")
        assert [window["over"] for window in measured["windows"]] == [0, 0], measured
        self.figures.acknowledged_events = self.oracle.acknowledged_events
        self.figures.unknown_requests = self.oracle.unknown

    async def _without_letters(self) -> bool:
        shown = await self.shown()
        if any(one["recovering"] for one in shown):
            return False
        if not any(one["dead_letters"] for one in shown):
            return True
        await self.expect_replays()
        await self.replay()
        return False


@asynccontextmanager
async def victim_at(folder: Path, name: str, source: random.Random) -> AsyncIterator[Victim]:
    os.mkdir(folder)
    arguments = ("--seed", str(source.randrange(2**32)), "--latency-ms", "8", "--token-seconds", "20")
    async with (
        sandbox_at(folder, *arguments) as sandbox,
        place_at(folder / "engine", sandbox.url, **TABLES) as place,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as http,
    ):
        yield Victim(place, sandbox, http, source, name)


def torn_journal(data: Path) -> bool:
    """Does it end in a commit that was never finished?"""
    if JOURNAL_KIND == "segments":
        return inspect_journal(data, []).discarded_frames > 0
    return examine(data / "journal.db").discarded > 0


def written_last(data: Path) -> Path:
    """Where the next commit of the journal is going to be written."""
    if JOURNAL_KIND == "segments":
        return max(data.glob("journal-*.segment"), key=lambda path: path.stat().st_mtime_ns)
    return data / "journal.db-wal"


def kill_at_write(pid: int, file: Path, after_seconds: float) -> bool:
    """Watch the file, and kill `after_seconds` behind its next change. False when nothing was written for a while."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)  # a write takes less time than threads are usually given
    try:
        changed = _changes(file)
        end = time.perf_counter() + after_seconds
        while time.perf_counter() < end:
            pass
        os.kill(pid, signal.SIGKILL)
    finally:
        sys.setswitchinterval(interval)
    return changed


def _changes(file: Path) -> bool:
    deadline, before = time.monotonic() + 2.0, file.stat().st_mtime_ns
    while time.monotonic() < deadline:
        if file.stat().st_mtime_ns != before:
            return True
        time.sleep(0.0001)
    return False


def hashed(email: str) -> str:
    return hashlib.sha256(email.encode()).hexdigest()
