"""What one would write in an hour instead of an engine: ``python -m benchmarks.peers.batcher KIND URL [RATE]``.

post-per-event         one POST an event, from memory: no durability, no batches, no order
queue-batcher          an asyncio.Queue in front of batches of 100 that leave after 20 ms at the latest; memory only
queue-batcher-sqlite   the same, and each request is in SQLite (WAL, FULL) before its 202: durable when it answers, but
                       nothing reads that back, nothing is retried and nothing is merged

With a RATE (requests a second) every one of them asks an aiolimiter before it sends.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson
from aiohttp import ClientSession, web
from aiolimiter import AsyncLimiter
from yarl import URL

from benchmarks.client import CONCURRENCY, STORE_PATH, token, tuned_session
from benchmarks.processes import run_async, running
from benchmarks.systems import Contestant, Place, System

BATCH, LINGER_SECONDS, SENDERS = 100, 0.020, 8
KINDS = ("post-per-event", "queue-batcher", "queue-batcher-sqlite")


def contestant(kind: str, requests_per_second: float = 0.0) -> Contestant:
    @contextmanager
    def start(place: Place) -> Iterator[System]:
        arguments = ["-m", "benchmarks.peers.batcher", kind, place.sink, str(requests_per_second)]
        with running(arguments, place.directory / "peer.log", cores=place.cores.system) as process:
            yield System(name=kind, url=process.url, pids=[process.pid])

    return Contestant(kind, start)


def limiter(requests_per_second: float) -> AbstractAsyncContextManager[Any]:
    """As its documentation has it; 0: none."""
    if not requests_per_second:
        return nullcontext()
    return AsyncLimiter(requests_per_second, 1)


class Queue:
    """Events in memory, and workers that send them: one a request, or batches of 100."""

    def __init__(self, session: ClientSession, url: str, *, batched: bool, requests_per_second: float) -> None:
        self._session, self._url, self._batched = session, URL(url + STORE_PATH), batched
        self._limiter = limiter(requests_per_second)
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, events: list[Any]) -> None:
        for event in events:
            event["event"] = "bench"
            self._queue.put_nowait(event)

    async def work(self) -> None:
        while True:
            first = await self._queue.get()
            content = await self._batch(first) if self._batched else first
            async with self._limiter, self._session.post(self._url, data=orjson.dumps(content)) as response:
                await response.read()

    async def _batch(self, first: Any) -> list[Any]:
        batch = [first]
        self._take_waiting(batch)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while len(batch) < BATCH:
                    batch.append(await self._queue.get())
                    self._take_waiting(batch)
        return batch

    def _take_waiting(self, batch: list[Any]) -> None:
        while len(batch) < BATCH and not self._queue.empty():
            batch.append(self._queue.get_nowait())


class Store:
    """A row a request, one transaction each, in a thread of its own."""

    def __init__(self, file: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        self._connection.execute("CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, body BLOB)")

    async def add(self, body: bytes) -> None:
        statement = "INSERT INTO events (body) VALUES (?)"
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.execute, statement, (body,))


def events_of(body: bytes, content_type: str) -> list[Any]:
    if "ndjson" in content_type:
        return [orjson.loads(line) for line in body.splitlines()]
    decoded = orjson.loads(body)
    return decoded if isinstance(decoded, list) else [decoded]


def app(queue: Queue, store: Store | None) -> web.Application:
    async def profiles(request: web.Request) -> web.Response:
        body = await request.read()
        events = events_of(body, request.content_type)
        if store is not None:
            await store.add(body)
        queue.put(events)
        return web.json_response({"accepted": len(events)}, status=202)

    made = web.Application(client_max_size=1 << 26)
    made.router.add_post("/v1/profiles", profiles)
    return made


@asynccontextmanager
async def listening(application: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def serve(kind: str, url: str, requests_per_second: float) -> None:
    """Until it is told to stop."""
    batched = kind != "post-per-event"
    store = Store(Path("peer.db")) if kind.endswith("sqlite") else None
    async with tuned_session(f"Bearer {await token(url)}") as session:
        queue = Queue(session, url, batched=batched, requests_per_second=requests_per_second)
        async with listening(app(queue, store)) as own:
            sys.stdout.buffer.write(msgspec.json.encode({"pid": os.getpid(), "url": own}) + b"\n")
            sys.stdout.flush()
            await asyncio.gather(*(queue.work() for _ in range(SENDERS if batched else CONCURRENCY)))


if __name__ == "__main__":
    run_async(serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
