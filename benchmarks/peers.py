"""What one would write instead of an engine, as servers to be measured: ``python -m benchmarks.peers KIND URL``.

post-per-event   one POST an event, from memory: no durability, no batches, no order
queue-batcher    an asyncio.Queue in front of batches of 100, each request in SQLite (WAL, FULL) before its 202: durable
                 when it answers, but nothing reads that back, nothing is retried and nothing is merged
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson
from aiohttp import ClientSession, web
from yarl import URL

from benchmarks.floors import CONCURRENCY, STORE_PATH, token, tuned_session
from benchmarks.processes import run_async

BATCH, LINGER_SECONDS = 100, 0.020
KINDS = ("post-per-event", "queue-batcher")

Take = Callable[[bytes, list[Any]], Awaitable[None]]


def _events(body: bytes) -> list[Any]:
    decoded = orjson.loads(body)
    return decoded if isinstance(decoded, list) else [decoded]


def _app(take: Take) -> web.Application:
    async def profiles(request: web.Request) -> web.Response:
        body = await request.read()
        events = _events(body)
        await take(body, events)
        return web.json_response({"accepted": len(events)}, status=202)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/profiles", profiles)
    return app


class Queue:
    """Events in memory, and workers that send them: one a request, or batches of 100."""

    def __init__(self, session: ClientSession, url: str, *, batched: bool) -> None:
        self._session, self._url, self._batched = session, URL(url + STORE_PATH), batched
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, events: list[Any]) -> None:
        for event in events:
            self._queue.put_nowait(event)

    async def work(self) -> None:
        while True:
            first = await self._queue.get()
            content = await self._batch(first) if self._batched else {"event": "bench", **first}
            async with self._session.post(self._url, data=orjson.dumps(content)) as response:
                await response.read()

    async def _batch(self, first: Any) -> list[Any]:
        batch = [{"event": "bench", **first}]
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while len(batch) < BATCH:
                    batch.append({"event": "bench", **await self._queue.get()})
        return batch


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


async def serve(kind: str, url: str) -> None:
    """Until cancelled or told to stop."""
    batched = kind == "queue-batcher"
    store = Store(Path("peer.db")) if batched else None
    async with tuned_session(f"Bearer {await token(url)}") as session:
        queue = Queue(session, url, batched=batched)

        async def take(body: bytes, events: list[Any]) -> None:
            if store is not None:
                await store.add(body)
            queue.put(events)

        runner = web.AppRunner(_app(take), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        said = {"pid": os.getpid(), "url": f"http://127.0.0.1:{runner.addresses[0][1]}"}
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.flush()
        await asyncio.gather(*(queue.work() for _ in range(8 if batched else CONCURRENCY)))


if __name__ == "__main__":
    run_async(serve(sys.argv[1], sys.argv[2]))
