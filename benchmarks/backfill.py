"""``python -m benchmarks.backfill``: a whole audience through the log, beside live updates of other people.

The same live load runs alone first and then beside the backfill, until that is delivered; one half of the backfill
comes under ``?lane=backfill``, the other from a source of that lane. At the end the audit has to be even and nobody
missing. What a busy machine had refused (503) may have become durable all the same, so it is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.processes import Failed, Running, config_text, engine, folder, run_async, sandbox
from benchmarks.watch import Sink, get, settled
from engine.bench.events import Workload
from engine.bench.histogram import Histogram
from engine.bench.load import Load, LoadResult
from engine.bench.machine import cpu_seconds, machine, peak_memory_bytes
from engine.bench.pacing import Schedule
from engine.bench.report import console, plain_table
from engine.bench.wire import Site

PROFILES, BUFFER = 1_000_000, 100_000
RATE, BATCH = 30.0, 100
LIVE_PER_SECOND = 50.0
EVENTS_PER_REQUEST, CONNECTIONS = 500, 4
PHASE_SECONDS, POLL_SECONDS, LONGEST_SECONDS = 10.0, 0.5, 1_800.0

SOURCES = """
[buffer]
max_profiles = {buffer}

[[source]]
name = "default"

[[source]]
name = "audience"
lane = "backfill"
"""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    profiles: int = PROFILES
    buffer: int = BUFFER
    rate: float = RATE
    live: float = LIVE_PER_SECOND


class Found(msgspec.Struct, kw_only=True):
    """Milliseconds are from the moment a live event was due until the sandbox had stored it."""

    profiles: int
    alone_p50_ms: float
    alone_p99_ms: float
    beside_p50_ms: float
    beside_p99_ms: float
    live_beside: int  # events measured beside the backfill
    refused: int  # events that were answered with 503
    handed_in_seconds: float
    delivered_seconds: float
    most_held: int
    most_in_memory: int
    longest_unread: int  # events in the journal that had not been read, at most
    peak_memory_mb: float
    cpu_us_per_event: float

    @property
    def ratio(self) -> float:
        return self.beside_p99_ms / self.alone_p99_ms if self.alone_p99_ms else 0.0


class Live:
    """Open-loop phases of one event a request; `histogram` asks the sandbox when each was stored."""

    def __init__(self, url: str, per_second: float) -> None:
        self._site, self._per_second = Site.of(url, "/v1/profiles"), per_second
        self._phases: list[tuple[Workload, LoadResult, Schedule]] = []
        self.events = self.refused = 0

    async def phase(self, seconds: float) -> None:
        people, schedule = Workload(f"l{secrets.token_hex(6)}", 1), Schedule(self._per_second, seconds)
        load = Load(self._site, people.body, 1, connections=32, seconds=seconds, schedule=schedule)
        result = await load.run()
        if result.failed or result.unsent:
            raise Failed(f"live: {result.failed} failed, {result.unsent} not sent")
        self.events += result.accepted_events
        self.refused += result.refused
        self._phases.append((people, result, schedule))

    async def histogram(self, sink: Sink) -> Histogram:
        """Of all phases since the last call. The pages of the sandbox are read once for all of them."""
        phases, self._phases = self._phases, []
        seconds, after = Histogram(), ""
        while True:
            page = await get(sink.session, f"{sink.url}/_sandbox/attendees?limit=1000{after}")
            for attendee in page["attendees"]:
                for people, result, schedule in phases:
                    person = people.person_of(attendee["email"])
                    if person is not None:
                        seconds.add(max(0.0, attendee["created_at"] - result.started_at - schedule.due_at(person)))
                        break
            if page["next"] is None:
                return seconds
            after = f"&after={page['next']}"


class Watch:
    """What the engine says of itself meanwhile, at its most."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self.held = self.in_memory = self.unread = 0
        self.delivered_at = 0.0

    async def run(self, handed_in: asyncio.Event) -> None:
        """Until nothing is pending any more once all is handed in. Raises Failed when that takes too long."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < deadline:
            (one,) = (await get(self._session, f"{self._url}/v1/destinations"))["destinations"]
            in_memory, pending = one["waiting"] + one["leased"], one["counts"]["pending"]
            self.held, self.in_memory = max(self.held, one["held"]), max(self.in_memory, in_memory)
            self.unread = max(self.unread, pending - in_memory - one["held"])
            if handed_in.is_set() and pending <= BATCH:
                self.delivered_at = time.monotonic()
                return
            await asyncio.sleep(POLL_SECONDS)
        raise Failed(f"not delivered within {LONGEST_SECONDS:.0f} s")


async def measure(directory: Path, options: Options) -> Found:
    with sandbox(directory) as target:
        config = config_text(target.url, rate=options.rate, burst=10, encoding="array", batch=BATCH)
        with engine(directory / "engine", config + SOURCES.format(buffer=options.buffer)) as process:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
                return await _measure(session, process, target, options)


async def _measure(session: aiohttp.ClientSession, process: Running, target: Running, options: Options) -> Found:
    sink, live = Sink(session, target.url), Live(process.url, options.live)
    await live.phase(2.0)
    await live.histogram(sink)  # warm-up
    await live.phase(PHASE_SECONDS)
    await asyncio.sleep(1.0)
    alone = await live.histogram(sink)
    before, cpu = live.events, cpu_seconds(process.pid)
    watch, handed_in, started = Watch(session, process.url), asyncio.Event(), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(_feed(process.url, options.profiles, handed_in))
        watching = tasks.create_task(watch.run(handed_in))
        while not watching.done():
            await live.phase(PHASE_SECONDS if options.profiles >= 200_000 else 2.0)
    await asyncio.sleep(1.0)
    fed = feeding.result()
    events = fed.events + live.events - before
    cpu = cpu_seconds(process.pid) - cpu
    beside = await live.histogram(sink)
    await _proof(session, process.url, sink, fed.events + live.events, fed.refused + live.refused)
    return Found(
        profiles=fed.events,
        alone_p50_ms=alone.quantile(0.5) * 1000,
        alone_p99_ms=alone.quantile(0.99) * 1000,
        beside_p50_ms=beside.quantile(0.5) * 1000,
        beside_p99_ms=beside.quantile(0.99) * 1000,
        live_beside=beside.count,
        handed_in_seconds=fed.seconds,
        refused=fed.refused + live.refused,
        delivered_seconds=watch.delivered_at - started,
        most_held=watch.held,
        most_in_memory=watch.in_memory,
        longest_unread=watch.unread,
        peak_memory_mb=peak_memory_bytes(process.pid) / 1e6,
        cpu_us_per_event=cpu / events * 1e6,
    )


class Fed(msgspec.Struct):
    """How the backfill was handed in, as fast as it was taken."""

    events: int = 0
    refused: int = 0
    seconds: float = 0.0


async def _feed(url: str, profiles: int, handed_in: asyncio.Event) -> Fed:
    fed, started = Fed(), time.monotonic()
    for query, until in (("lane=backfill", profiles // 2), ("source=audience", profiles)):
        while fed.events < until:
            n = min(until - fed.events, EVENTS_PER_REQUEST)
            people, site = Workload(f"b{secrets.token_hex(6)}", n), Site.of(url, f"/v1/profiles?{query}")
            requests = (until - fed.events) // n
            load = Load(site, people.body, n, connections=CONNECTIONS, seconds=LONGEST_SECONDS, requests=requests)
            result = await load.run()
            if result.failed:
                raise Failed(f"backfill: {result.failed:,} requests failed")
            fed.events += result.accepted_events
            fed.refused += result.refused * n
    handed_in.set()
    fed.seconds = time.monotonic() - started
    return fed


async def _proof(session: aiohttp.ClientSession, url: str, sink: Sink, people: int, refused: int) -> None:
    await settled(session, url)
    stored = await sink.attendees()
    if not people <= stored <= people + refused:
        raise Failed(f"{stored:,} people arrived, of {people:,} accepted and {refused:,} refused")
    audit = await get(session, f"{url}/v1/audit")
    if not audit["ok"]:
        raise Failed(f"the audit found: {audit['problems']}")


def table(found: Found) -> object:
    rows = [
        ("profiles of the backfill", f"{found.profiles:,}"),
        ("live p50 / p99 alone", f"{found.alone_p50_ms:.1f} / {found.alone_p99_ms:.1f} ms"),
        ("live p50 / p99 beside it", f"{found.beside_p50_ms:.1f} / {found.beside_p99_ms:.1f} ms"),
        ("p99 beside / alone", f"{found.ratio:.2f}"),
        ("live events beside it", f"{found.live_beside:,}"),
        ("events refused with 503", f"{found.refused:,}"),
        ("handed in / delivered within", f"{found.handed_in_seconds:.1f} / {found.delivered_seconds:.1f} s"),
        ("most in memory / held on disk", f"{found.most_in_memory:,} / {found.most_held:,} profiles"),
        ("longest unread part of the journal", f"{found.longest_unread:,} events"),
        ("peak memory of the engine", f"{found.peak_memory_mb:.0f} MB"),
        ("CPU per event", f"{found.cpu_us_per_event:.1f} us"),
        ("audit", "even; everybody arrived"),
    ]
    return plain_table("A backfill beside live updates", ("what", "found"), rows)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.backfill", description=__doc__)
    add = arguments.add_argument
    add("--profiles", type=int, default=PROFILES, metavar="N", help=f"of the backfill ({PROFILES:,})")
    add("--buffer", type=int, default=BUFFER, metavar="N", help=f"buffer.max_profiles ({BUFFER:,})")
    add("--rate", type=float, default=RATE, metavar="N", help=f"requests a second, {BATCH} profiles each ({RATE:g})")
    add("--live", type=float, default=LIVE_PER_SECOND, metavar="N", help=f"live events/s ({LIVE_PER_SECOND:g})")
    add("--dir", metavar="PATH", help="where the data goes (default: the temporary folder)")
    add("--json", metavar="FILE", type=Path, help="write what was found there as well")
    return arguments


def main() -> int:
    chosen = parser().parse_args()
    options = Options(profiles=chosen.profiles, buffer=chosen.buffer, rate=chosen.rate, live=chosen.live)
    try:
        with folder(chosen.dir) as directory:
            named = machine(directory).line()
            found = run_async(measure(directory, options))
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console().print(named, table(found), sep="\n")
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.encode(found) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
