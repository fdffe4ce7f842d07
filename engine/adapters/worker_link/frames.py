"""How bytes on the link are divided: length, kind, body. Nothing that arrives is trusted before it was measured."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from enum import IntEnum

from engine.errors import EngineError

HEAD = struct.Struct("<IB")
"""Bytes of the body, and its kind."""

SPARE_BYTES = 1 << 20
"""Of the buffer, kept for what comes next; a longer frame gets a buffer of its own for as long as it needs it."""


class LinkBroken(EngineError):
    """What came over the link is none of its frames; the link ends with it."""


class FrameKind(IntEnum):
    MESSAGE = 0  # one of `messages`, packed
    APPEND = 1  # events of one request: two bytes with the length of a packed `AppendHead`, that, the packed events


class Frames:
    """What has come in so far. `room` is where more may be put, `received` says how much was, and gives the frames
    that are whole by now: their memory is only good until the next one is asked for."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of one frame's body."""
        self._most_bytes = most_bytes
        self._buffer = bytearray(SPARE_BYTES)
        self._end = 0

    def room(self) -> memoryview:
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> Iterator[tuple[int, memoryview]]:
        """Raises LinkBroken for a frame that is longer than any may be."""
        self._end += count
        begin, needed = 0, HEAD.size
        whole = memoryview(self._buffer)
        while self._end - begin >= HEAD.size:
            length, kind = HEAD.unpack_from(whole, begin)
            if length > self._most_bytes:
                raise LinkBroken(f"a frame of {length} bytes, where {self._most_bytes} are the most")
            needed = HEAD.size + length
            if self._end - begin < needed:
                break
            yield kind, whole[begin + HEAD.size : begin + needed]
            begin, needed = begin + needed, HEAD.size
        self._keep(begin, needed)

    def _keep(self, begin: int, needed: int) -> None:
        """Move what is not whole yet to the front of a buffer that has room for the rest of it."""
        rest = self._end - begin
        size = max(SPARE_BYTES, needed)
        if len(self._buffer) != size:
            buffer = bytearray(size)
            buffer[:rest] = memoryview(self._buffer)[begin : self._end]
            self._buffer = buffer
        elif begin and rest:
            self._buffer[:rest] = self._buffer[begin : self._end]
        self._end = rest


def head(kind: FrameKind, length: int) -> bytes:
    return HEAD.pack(length, kind)


def read_first(link: socket.socket, most_bytes: int) -> bytes:
    """The body of the frame that comes first, before any loop runs; nothing behind it is read. Raises LinkBroken, and
    OSError after the socket's time-out."""
    length, kind = HEAD.unpack(_exactly(link, HEAD.size))
    if length > most_bytes or kind != FrameKind.MESSAGE:
        raise LinkBroken("the first frame is no message")
    return _exactly(link, length)


def _exactly(link: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = link.recv(min(count, SPARE_BYTES))
        if not part:
            raise LinkBroken("the other end has closed the link")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
