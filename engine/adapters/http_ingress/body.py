"""From the bytes on the wire to parsed events, within limits of size and time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.request import IngressRequest, content_length
from engine.config import IngressConfig
from engine.profiles.formats import BodyUnreadable, Parsed, TooManyEvents

PARSE_INLINE_BYTES = 262_144
"""Larger bodies are parsed in a thread, so that the loop answers others meanwhile."""

INFLATE_INLINE_BYTES = 16_384
"""Likewise for compressed ones, which may be a thousand times larger inside."""

THREADS = 2
HELD_BYTES_MIN = 268_435_456
BUSY_RETRY_SECONDS = 2.0

T = TypeVar("T")


class BodyReader(Protocol):
    """See `profiles.formats.Reader`. Raises BodyUnreadable and TooManyEvents."""

    def read(self, body: bytes, media_type: str) -> Parsed: ...


Inflate = Callable[[bytes, str, int], bytes]
"""(body, Content-Encoding, most bytes) -> body in the clear. Raises a ValueError with a `kind` ("too_large", "corrupt"
or "unsupported") and a `detail`; see `adapters.inflate`."""

ENCODING_PROBLEMS = {"too_large": "body-too-large", "unsupported": "unsupported-encoding"}


class Bodies:
    """Reads bodies. Knows how many bytes of them are held at this moment, so that many large ones at once are refused
    instead of filling the memory."""

    def __init__(self, config: IngressConfig, inflate: Inflate) -> None:
        self._config, self._inflate = config, inflate
        self._threads = anyio.CapacityLimiter(THREADS)
        self._held_bytes = 0
        self._held_bytes_max = max(HELD_BYTES_MIN, 4 * config.max_body_bytes)

    async def read(self, request: IngressRequest) -> bytes:
        """The whole body as it came. Raises Problem: 413, 408, 503."""
        limit = self._limit(request)
        declared = content_length(request.head.headers)
        if declared is not None and declared > self._config.max_body_bytes:
            raise _too_large(self._config.max_body_bytes)
        if request.chunks is None:
            return _within(request.received, limit)
        try:
            with anyio.fail_after(self._config.body_timeout_seconds), self._holding() as hold:
                return await self._collect(request.chunks, limit, hold)
        except TimeoutError:
            raise too_slow(self._config.body_timeout_seconds) from None

    def _limit(self, request: IngressRequest) -> int:
        return self._config.max_decompressed_bytes if request.decoded else self._config.max_body_bytes

    async def _collect(self, source: AsyncIterator[bytes], limit: int, hold: Callable[[int], None]) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in source:
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            hold(len(chunk))
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        mine = 0

        def hold(more: int) -> None:
            nonlocal mine
            mine += more
            self._held_bytes += more
            if self._held_bytes > self._held_bytes_max:
                detail = "too many large bodies are being read at once"
                raise Problem("busy", detail, retry_after_seconds=BUSY_RETRY_SECONDS)

        try:
            yield hold
        finally:
            self._held_bytes -= mine

    async def parse(
        self, body: bytes, request: IngressRequest, media_type: str, reader: BodyReader, until: float
    ) -> Parsed:
        """`until`: when the answer has to be out, in the loop's time. Raises Problem: 400, 413, 415, 503."""
        encoding = request.head.headers.get("content-encoding", "")
        if encoding and not request.decoded and body:
            body = await self._work(len(body) > INFLATE_INLINE_BYTES, until, lambda: self._inflated(body, encoding))
        heavy = len(body) > PARSE_INLINE_BYTES
        return await self._work(heavy, until, lambda: self.parse_here(body, media_type, reader))

    def parse_here(self, body: bytes, media_type: str, reader: BodyReader) -> Parsed:
        """A body in the clear, at once. Raises Problem: 400, 413."""
        _within(body, self._config.max_decompressed_bytes)
        if not body:
            raise Problem("empty-body", "the body is empty; send at least one profile")
        return _parsed(body, media_type, reader)

    async def _work(self, heavy: bool, until: float, work: Callable[[], T]) -> T:
        if not heavy:
            return work()
        try:
            with anyio.fail_after(until - anyio.current_time()):
                return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        except TimeoutError:
            detail = "reading the events took too long, nothing was stored; send fewer at once"
            raise Problem("answer-timeout", detail, retry_after_seconds=BUSY_RETRY_SECONDS) from None

    def _inflated(self, body: bytes, encoding: str) -> bytes:
        try:
            return self._inflate(body, encoding, self._config.max_decompressed_bytes)
        except ValueError as error:
            kind, detail = (
                getattr(error, "kind", "corrupt"),
                getattr(error, "detail", "the body cannot be decompressed"),
            )
        raise Problem(
            ENCODING_PROBLEMS.get(kind, "unreadable-body"),
            detail,
            headers={"Accept-Encoding": "gzip, deflate, zstd"} if kind == "unsupported" else None,
        )


def too_slow(seconds: float) -> Problem:
    return Problem("body-timeout", f"the body was not complete after {seconds:g} seconds")


def _parsed(body: bytes, media_type: str, reader: BodyReader) -> Parsed:
    try:
        return reader.read(body, media_type)
    except TooManyEvents as error:
        raise Problem("too-many-events", f"one request may carry {error.limit} events", limit=error.limit) from None
    except BodyUnreadable as error:
        raise Problem("unreadable-body", error.detail, place=error.place) from None


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> Problem:
    return Problem("body-too-large", f"the body may have {limit} bytes", limit=limit)
