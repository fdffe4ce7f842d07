"""The transport port: how one POST reaches another host, and what is known of it afterwards.

Two adapters implement it: `adapters.sessions` (aiohttp, through a proxy too) and `adapters.raw_http` (a connection
class of our own, at a fraction of the cost). Both keep the limits below and use the same words for what went wrong.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Protocol

import msgspec

from engine.ports import Permit

REPLY_BYTES = 1 << 20
"""What is read of one reply at most; an envelope has some hundred bytes."""

KEEPALIVE_SECONDS = 10.0
"""Shorter than the 15 s and more after which common servers drop idle connections, so that we drop them first."""

DNS_SECONDS = 30
CONNECT_SECONDS = 10.0

HEADERS = {
    "User-Agent": "rainfocus-engine",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # replies are tiny
}

_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


class Answer(msgspec.Struct):
    """What came of one POST.

    `sent`: a byte of it may have left; only then may it have been carried out. `reason`: why there is no whole reply,
    in a word ("" when there is one): `timeout`, `connection_lost`, `bad_http`, or before the first byte `connect_dns`,
    `connect_tls`, `connect_proxy`, `connect_timeout`, `connect_refused`, `connect_failed`. `status` and `retry_after`
    are known as soon as the head of the reply is there, whatever becomes of the rest; `body` only once it is whole.
    """

    sent: bool = False
    reason: str = ""
    status: int = 0
    retry_after: str | None = None
    body: bytes = b""  # unpacked, and cut at REPLY_BYTES


class Route(Protocol):
    """The way to one URL: what all requests to it have in common is prepared once."""

    async def post(self, body: bytes, headers: Mapping[str, str], permit: Permit, /) -> Answer:
        """Make one attempt, never a second one. Awaits `permit.use()` between the open connection and the first byte;
        its time limit runs from then on. A redirect is an answer as any other.

        Raises nothing but PermitVoid (let through: nothing was sent) and cancellation: the connection is closed first,
        and a byte may have left. Returns only once the connection is free for the next request or closed.
        """


class Transport(Protocol):
    """Pooled connections. They are opened when they are needed, and kept for `KEEPALIVE_SECONDS`."""

    def route(self, url: str, headers: Mapping[str, str], /, *, timeout_seconds: float) -> Route:
        """`headers`: those of every request, beside `HEADERS`. `url` is taken as it is, percent-encoded."""

    async def close(self) -> None: ...


def unpacked(body: bytes, encoding: str) -> bytes:
    """What comes packed though nobody asked for it, to at most REPLY_BYTES; as it came where it is not packed, or not
    as it says."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        return zlib.decompressobj(_ZLIB_OR_GZIP).decompress(body, REPLY_BYTES)
    except zlib.error:
        return body


__all__ = ["CONNECT_SECONDS", "HEADERS", "KEEPALIVE_SECONDS", "REPLY_BYTES", "Answer", "Route", "Transport", "unpacked"]
