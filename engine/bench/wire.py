"""A lean HTTP/1.1 client for load: one keep-alive connection, one request at a time, a callback for its end.

It costs about a tenth of a general client, so that the generator is not what is measured. It reads what an engine
answers (a status, Content-Length, Retry-After) and no more.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import msgspec

LOST = 0
"""The status of a request whose connection broke before the answer."""

_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
_retry_after = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE).search
_closes = re.compile(rb"\r\nconnection: *close", re.IGNORECASE).search
_chunked = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE).search


class Answer(msgspec.Struct, frozen=True, gc=False):
    status: int
    retry_after_seconds: float = 0.0


_BROKEN = Answer(LOST)

Done = Callable[["Connection", Answer], None]


class Site(msgspec.Struct, frozen=True):
    """Where requests go. `path` with its query."""

    host: str
    port: int
    path: str
    tls: bool = False
    authorization: str = ""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    def __repr__(self) -> str:
        return f"Site({self.host}:{self.port})"

    @classmethod
    def of(
        cls,
        url: str,
        path: str,
        *,
        authorization: str = "",
        headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),),
    ) -> Site:
        """Raises ValueError for what is no http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not a URL; write http://HOST:PORT")
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname, port, parts.path.rstrip("/") + path, tls, authorization, headers)

    def head(self) -> bytes:
        """Everything of a request up to the value of Content-Length, which comes last."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.authorization:
            lines.append(f"Authorization: {self.authorization}")
        return "\r\n".join([*lines, "Content-Length: "]).encode()


class Connection(asyncio.Protocol):
    """`post` sends one request and calls `done(self, answer)` once, from the loop."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._done: Done | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None

    def post(self, body: bytes, done: Done) -> None:
        if self._transport is None:
            done(self, _BROKEN)
            return
        self._done = done
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._finish(_BROKEN)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        length = _length(head)
        if length is None or _chunked(head):
            self.close()  # not an answer of an engine
            return
        if len(self._buffer) >= end + 4 + int(length[1]):
            self._buffer = self._buffer[end + 4 + int(length[1]) :]
            self._answered(head)

    def _answered(self, head: bytes) -> None:
        pause = _retry_after(head)
        if _closes(head):
            self.close()
            self._transport = None
        status = head[9:12]
        self._finish(Answer(int(status) if status.isdigit() else LOST, float(pause[1]) if pause else 0.0))

    def _finish(self, answer: Answer) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self, answer)


async def connect(site: Site, trust: ssl.SSLContext | None = None) -> Connection:
    """Raises OSError."""
    context = (trust or ssl.create_default_context()) if site.tls else None
    head = site.head()
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(head), site.host, site.port, ssl=context)
    return connection
