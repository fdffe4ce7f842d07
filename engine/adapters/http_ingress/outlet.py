"""One request out of a connection of our own, answered by an aiohttp application.

The handler of aiohttp is given a transport that is none, and a request written anew from what was read: it takes its
parts from one reading of the bytes, never from a second one that could see another end of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

HOP_BY_HOP = {
    *(b"connection", b"content-length", b"http2-settings", b"keep-alive", b"proxy-connection", b"te"),
    *(b"transfer-encoding", b"upgrade"),
}
CLOSE = b"\r\nConnection: close\r\n"

Headers = list[tuple[bytes, bytes]]


class Carrier(Protocol):
    """The connection behind it."""

    def write(self, data: bytes) -> None: ...

    def hold_reading(self) -> None: ...

    def release_reading(self) -> None: ...

    def answered(self, *, keep_alive: bool) -> None:
        """Everything has been written."""


class Outlet(asyncio.Transport):
    """`extra`: as `get_extra_info` of the connection. `handler`: one of aiohttp's. `keep_alive`: whether the connection
    can go on behind the answer."""

    def __init__(
        self,
        carrier: Carrier,
        extra: Callable[[str, Any], Any],
        handler: asyncio.Protocol,
        *,
        chunked: bool,
        keep_alive: bool,
    ) -> None:
        super().__init__()
        self._carrier, self._extra, self._chunked, self._may_keep_alive = carrier, extra, chunked, keep_alive
        self._handler: asyncio.Protocol | None = handler
        self._early: list[bytes] | None = []  # what came before it was the turn of this request
        self._whole = False  # has all of the request come in?
        self.answering = self._keeps_alive = self._holds = False

    # -- what the connection does ---------------------------------------------------------------------------------

    def begin(self, request_line: bytes, headers: Headers, length: int) -> None:
        lines = [request_line, *(b"%b: %b" % one for one in headers if one[0].lower() not in HOP_BY_HOP)]
        lines.append(b"Transfer-Encoding: chunked" if self._chunked else b"Content-Length: %d" % length)
        early, self._early = self._early or [], None
        if self._handler is not None:
            self._handler.connection_made(self)
            self._hand_on(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
        for data in early:
            self._hand_on(data)

    def feed(self, data: bytes) -> None:
        self._hand_on(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The request is whole."""
        self._whole = True
        if self._chunked:
            self._hand_on(b"0\r\n\r\n")

    def _hand_on(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
        elif self._handler is not None:
            self._handler.data_received(data)

    def lose(self) -> None:
        """The connection is gone."""
        handler, self._handler = self._handler, None
        if handler is not None and self._early is None:
            _tell_lost(handler)

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None:
            self._handler.resume_writing()

    # -- what aiohttp does ----------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if name == "socket" else self._extra(name, default)

    def is_closing(self) -> bool:
        return self._handler is None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        data = bytes(data)
        if not self.answering and not data.startswith(b"HTTP/1.1 100 "):
            self.answering = True
            data = self._kept_alive(data)
        self._carrier.write(data)

    def _kept_alive(self, data: bytes) -> bytes:
        """The head, without the end of the connection that we asked for ourselves."""
        head, blank, body = data.partition(b"\r\n\r\n")
        self._keeps_alive = self._whole and self._may_keep_alive and CLOSE in head + b"\r\n"
        return (head + b"\r\n").replace(CLOSE, b"\r\n")[:-2] + blank + body if self._keeps_alive else data

    def close(self) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        self.resume_reading()
        _tell_lost(handler)
        self._carrier.answered(keep_alive=self._keeps_alive)

    def abort(self) -> None:
        self._keeps_alive = False
        self.close()

    def pause_reading(self) -> None:
        if not self._holds:
            self._holds = True
            self._carrier.hold_reading()

    def resume_reading(self) -> None:
        if self._holds:
            self._holds = False
            self._carrier.release_reading()

    def is_reading(self) -> bool:
        return not self._holds


def _tell_lost(handler: asyncio.Protocol) -> None:
    """Behind the first step of the task that it has begun: aiohttp's cannot begin without a connection."""
    asyncio.get_running_loop().call_soon(handler.connection_lost, None)
