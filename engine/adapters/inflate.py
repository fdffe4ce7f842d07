"""Compressed request bodies: gzip, deflate and zstd, never more of them in memory than was allowed."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Literal, Protocol

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

ENCODINGS = ("gzip", "deflate", "zstd")

CHUNK_BYTES = 65_536
"""Fed at once: bounds what a decompressor copies when one member ends and the next begins."""

MEMBERS_MAX = 2_000
"""Members of one body. A block-wise gzip of 64 MiB has about 1,000; a body of empty ones would only cost time."""

ZSTD_WINDOW_LOG = 23
"""8 MiB, the largest window RFC 9659 allows in HTTP."""


class InflateProblem(ValueError):
    """The body cannot be had in the clear. `kind`: "too_large", "corrupt" or "unsupported"."""

    def __init__(self, kind: Literal["too_large", "corrupt", "unsupported"], detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def feed(self, data: bytes, room: int) -> bytes: ...
    @property
    def hungry(self) -> bool: ...


class _Zlib:
    """`wbits`: 31 gzip, 15 zlib, -15 raw deflate."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def hungry(self) -> bool:
        return not self._stream.unconsumed_tail

    def feed(self, data: bytes, room: int) -> bytes:
        return self._stream.decompress(data or self._stream.unconsumed_tail, room)


class _Zstd:
    def __init__(self) -> None:
        self._stream = ZstdDecompressor(options={DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def hungry(self) -> bool:
        return self._stream.needs_input

    def feed(self, data: bytes, room: int) -> bytes:
        return self._stream.decompress(data, room)


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body in the clear, at most `max_bytes` of it. `encoding` is a Content-Encoding: gzip (several members too),
    deflate (with and, as some clients send it, without the zlib header), zstd, identity; only one of them.

    Raises InflateProblem."""
    named = [it for part in encoding.split(",") if (it := part.strip().lower()) not in ("", "identity")]
    if not named:
        return _checked_size(body, max_bytes)
    if len(named) > 1:
        raise InflateProblem("unsupported", "the body is compressed more than once; compress it once")
    if named[0] in ("gzip", "x-gzip"):
        return _members(body, lambda: _Zlib(31), max_bytes)
    if named[0] == "deflate":
        return _deflate(body, max_bytes)
    if named[0] == "zstd":
        return _members(body, _Zstd, max_bytes)
    raise InflateProblem("unsupported", f"the content encodings understood are {', '.join(ENCODINGS)}")


def _checked_size(body: bytes, max_bytes: int) -> bytes:
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _too_large(max_bytes: int) -> InflateProblem:
    return InflateProblem("too_large", f"the body is larger than {max_bytes} bytes once decompressed")


def _deflate(body: bytes, max_bytes: int) -> bytes:
    try:
        return _members(body, lambda: _Zlib(zlib.MAX_WBITS), max_bytes)
    except InflateProblem as problem:
        if problem.kind != "corrupt":
            raise
    return _members(body, lambda: _Zlib(-zlib.MAX_WBITS), max_bytes)


def _members(body: bytes, make: Callable[[], _Decompressor], max_bytes: int) -> bytes:
    clear = BytesIO()
    position = members = 0
    try:
        while position < len(body) and not (members and _only_padding(body, position)):
            if (members := members + 1) > MEMBERS_MAX:
                raise InflateProblem("corrupt", f"the body has more than {MEMBERS_MAX} compressed parts")
            position = _member(body, position, make(), clear, max_bytes)
    except (zlib.error, ZstdError, EOFError):
        raise InflateProblem("corrupt", "the body is not what its Content-Encoding says") from None
    if not members:
        raise InflateProblem("corrupt", "the body is empty")
    return clear.getvalue()


def _only_padding(body: bytes, position: int) -> bool:
    """Tapes and block devices pad gzip files with zeros."""
    return not body[position] and not body[position:].strip(b"\0")


def _member(body: bytes, position: int, stream: _Decompressor, clear: BytesIO, max_bytes: int) -> int:
    """Decompress one member into `clear`; returns where the next one begins."""
    while not stream.eof:
        chunk = b""
        if stream.hungry:
            chunk = body[position : position + CHUNK_BYTES]
            position += len(chunk)
            if not chunk:
                raise InflateProblem("corrupt", "the compressed body ends too early")
        room = max_bytes - clear.tell()
        clear.write(stream.feed(chunk, min(room + 1, 1 << 20)))
        if clear.tell() > max_bytes:
            raise _too_large(max_bytes)
    return position - len(stream.unused_data)
