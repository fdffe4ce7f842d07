"""The attendee store as a measuring instrument: ``python -m benchmarks.sink``.

One asyncio.Protocol that answers like the store, notes when which version of which person came, and does nothing else,
so that it costs a tenth of the sandbox. It believes its callers: no tokens are checked, no records judged.

    POST /oidc/token, POST /api/…           what a destination sends
    POST /_sink/reset?latency_ms=5          forget everything; answer store requests so many milliseconds later
    POST /_sink/down?seconds=60             be gone: connections are cut and new ones refused for so long
    GET  /_sink/stats                       what came so far
    GET  /_sink/records                     little-endian: float64 times, int64 people, int64 versions, one block each
    GET  /_sink/requests                    little-endian float64 arrival times of all store requests

Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from benchmarks.processes import run_async

_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
_waits = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE).search
_chunked = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE).search
_people = re.compile(rb'"email": ?"[a-z0-9]+-(\d+)@').findall
_versions = re.compile(rb'"No\. (\d+),').findall

STORE, TOKEN, OWN = b"POST /api/", b"POST /oidc/token", b"/_sink/"


TICK_SECONDS, TIMER_SECONDS = 0.005, 0.001
"""How often the sink looks whether it is late, and how late its loop's timers are by themselves."""


def _answer(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)


STORED = _answer(b'{"responseCode":"0","responseMessage":"Success","attendeeId":"1760000000000001abcd"}')
GIVEN = _answer(b'{"access_token":"bench","token_type":"Bearer","expires_in":86400}')
DONE = _answer(b"{}")
UNKNOWN = _answer(b"{}", status=b"404 Not Found")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Stats(msgspec.Struct, frozen=True):
    records: int
    people: int
    requests: int
    newest: int  # the highest version that came, -1 for none
    last_at: float  # when the last record came; 0.0: none did
    stall_ms: float  # how late the sink itself was at worst: arrivals may look so much closer together


class Book:
    """What came, in the order it came."""

    def __init__(self, remember: bool = True) -> None:
        self.latency_seconds, self._remember = 0.0, remember
        self.clear()

    def clear(self) -> None:
        self.times, self.people, self.versions = array("d"), array("q"), array("q")
        self.requests = array("d")
        self._seen: set[int] = set()
        self._newest, self.last_at, self.stall_seconds = -1, 0.0, 0.0

    def add(self, body: bytes | bytearray) -> None:
        if not self._remember:
            return
        now = time.monotonic()
        people = [int(it) for it in _people(body)]
        versions = [int(it) for it in _versions(body)]
        if len(versions) != len(people):
            versions = people  # events without a version are their own
        self.requests.append(now)
        self.times.extend([now] * len(people))
        self.people.extend(people)
        self.versions.extend(versions)
        self._seen.update(people)
        self._newest, self.last_at = max(self._newest, *versions, -1), now

    def stats(self) -> Stats:
        return Stats(
            len(self.times), len(self._seen), len(self.requests), self._newest, self.last_at, self.stall_seconds * 1000
        )

    def records(self) -> bytes:
        return self.times.tobytes() + self.people.tobytes() + self.versions.tobytes()


class Sink:
    """All connections of one listener, and what they told. Not to `remember` makes a bare server of it."""

    def __init__(self, remember: bool = True) -> None:
        self.book = Book(remember)
        self.connections: set[Visitor] = set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._returning: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Visitor(self), "127.0.0.1", self.port, backlog=1024, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def leave(self, until: Awaitable[object]) -> None:
        """Connections are cut and new ones refused until that is over."""
        self.close()
        self._returning = asyncio.ensure_future(self._return(until))

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self.connections):
            connection.cut()

    async def _return(self, until: Awaitable[object]) -> None:
        await until
        await self.listen()

    async def back(self) -> None:
        assert self._returning is not None
        await self._returning

    async def watch_stalls(self) -> None:
        while True:
            asked = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            late = time.monotonic() - asked - TICK_SECONDS - TIMER_SECONDS
            self.book.stall_seconds = max(self.book.stall_seconds, late)

    def own(self, target: str) -> bytes:
        parts = urlsplit(target)
        options = {name: float(value) for name, value in parse_qsl(parts.query)}
        actions: dict[str, Callable[[], bytes]] = {
            "/_sink/reset": lambda: self._reset(options.get("latency_ms", 0.0)),
            "/_sink/down": lambda: self._down(options.get("seconds", 1.0)),
            "/_sink/stats": lambda: _answer(msgspec.json.encode(self.book.stats())),
            "/_sink/records": lambda: _answer(self.book.records(), b"application/octet-stream"),
            "/_sink/requests": lambda: _answer(self.book.requests.tobytes(), b"application/octet-stream"),
        }
        action = actions.get(parts.path)
        return action() if action else UNKNOWN

    def _reset(self, latency_ms: float) -> bytes:
        self.book.clear()
        self.book.latency_seconds = latency_ms / 1000
        return DONE

    def _down(self, seconds: float) -> bytes:
        asyncio.get_running_loop().call_soon(lambda: self.leave(asyncio.sleep(seconds)))
        return DONE


class Visitor(asyncio.Protocol):
    """One connection; requests on it are answered in their order."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed = 0  # bytes before it is worth looking again
        self._end = 0  # of the head, once it is known

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sink.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._sink.connections.discard(self)

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer and len(self._buffer) >= self._needed:
            if not self._whole():
                return

    def _whole(self) -> bool:
        """Take one request off the buffer; False when the rest of it is still to come."""
        if not self._end and not self._head():
            return False
        if len(self._buffer) < self._needed:
            return False
        head, body = self._buffer[: self._end], self._buffer[self._end : self._needed]
        del self._buffer[: self._needed]
        self._needed = self._end = 0
        self._take(head, body)
        return True

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[: end + 2]
        if _chunked(head):
            self.cut()  # nobody here sends that, and counting wrongly would be worse
            return False
        length = _length(head)
        self._end, self._needed = end + 4, end + 4 + (int(length[1]) if length else 0)
        if _waits(head):
            self._write(CONTINUE)
        return True

    def _take(self, head: bytearray, body: bytearray) -> None:
        if head.startswith(STORE):
            self._sink.book.add(body)
            self._later(STORED)
        elif head.startswith(TOKEN):
            self._write(GIVEN)
        elif OWN in head:
            self._write(self._sink.own(head.split(b" ", 2)[1].decode()))
        else:
            self._write(UNKNOWN)

    def _later(self, answer: bytes) -> None:
        seconds = self._sink.book.latency_seconds
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def serve(announce: Callable[[str], None]) -> None:
    """Until cancelled."""
    sink = Sink()
    await sink.listen()
    announce(f"http://127.0.0.1:{sink.port}")
    await sink.watch_stalls()


def _say(url: str) -> None:
    sys.stdout.buffer.write(msgspec.json.encode({"url": url, "pid": os.getpid()}) + b"\n")
    sys.stdout.flush()


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.sink", description=__doc__).parse_args()
    run_async(serve(_say))


if __name__ == "__main__":
    main()
