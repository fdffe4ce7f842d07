"""How an answer goes over the wire, and what faults do to it there."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from asyncio import BaseTransport
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from aiohttp import web

from engine.sandbox.faults import Fault
from engine.sandbox.replies import HTML, SERVER, Answer, html_error
from engine.sandbox.settings import Clock

SILENCE_SECONDS = 600.0
DRIP_SECONDS = 10.0
DRIP_PIECES = 20
PADDING = b" " * 65_536
"""White space: an envelope behind any amount of it is still JSON."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SILENT = ("timeout", "timeout_after")
_CUT = ("reset_before", "reset_after", *_SILENT)


class StaleConnections:
    """Connections that were answered on once, and are closed as soon as another request comes on them."""

    def __init__(self) -> None:
        self._transports: set[BaseTransport] = set()

    def add(self, request: web.Request) -> None:
        self._transports = {one for one in self._transports if not one.is_closing()}
        if request.transport is not None:
            self._transports.add(request.transport)

    def __contains__(self, request: web.Request) -> bool:
        return request.transport in self._transports


async def deliver(
    request: web.Request, answer: Answer, fault: Fault | None, clock: Clock, stale: StaleConnections
) -> web.StreamResponse:
    """Send `answer`, or do with it and its connection what `fault` says."""
    if fault is None:
        return _whole(request, answer)
    if fault.kind in _SILENT:
        await clock.sleep(fault.seconds_or(SILENCE_SECONDS))
    if fault.kind in _CUT:
        cut(request)
    if fault.kind == "stale_connection":
        stale.add(request)
    if fault.kind in _STREAMED:
        return await _STREAMED[fault.kind](request, answer, fault, clock)
    return _whole(request, _reshaped(answer, fault.kind))


def cut(request: web.Request) -> None:
    """Close the connection with a reset, as a crashed process or a firewall does."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    # A copy of the descriptor, since uvloop's own socket object takes no options.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def _whole(request: web.Request, answer: Answer) -> web.Response:
    response = answer.response()
    if request.content.exception() is not None:
        response.force_close()  # aiohttp closes after a body it could not decode; say so, lest the caller reuse it
    return response


def _reshaped(answer: Answer, kind: str) -> Answer:
    if kind == "half_answer":
        return msgspec.structs.replace(answer, body=answer.body[: len(answer.body) // 2])
    if kind == "not_json":
        return msgspec.structs.replace(html_error(answer.status), status=answer.status)
    return msgspec.structs.replace(answer, content_type=HTML) if kind == "mislabelled" else answer


# -- in pieces --------------------------------------------------------------------------------------------------------


async def _drip(request: web.Request, answer: Answer, fault: Fault, clock: Clock) -> web.StreamResponse:
    size = max(1, -(-len(answer.body) // DRIP_PIECES))
    pieces = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
    response = await _begun(request, answer, length=len(answer.body))
    for piece in pieces:
        await clock.sleep(fault.seconds_or(DRIP_SECONDS) / len(pieces))
        await response.write(piece)
    await response.write_eof()
    return response


async def _huge(request: web.Request, answer: Answer, fault: Fault, clock: Clock) -> web.StreamResponse:
    return await _in_pieces(await _begun(request, answer), _padded(answer.body, fault.bytes))


async def _bomb(request: web.Request, answer: Answer, fault: Fault, clock: Clock) -> web.StreamResponse:
    packed = msgspec.structs.replace(answer, headers={**answer.headers, "Content-Encoding": "gzip"})
    return await _in_pieces(await _begun(request, packed), _packed(_padded(answer.body, fault.bytes)))


async def _begun(request: web.Request, answer: Answer, *, length: int | None = None) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Server": SERVER, **answer.headers})
    response.content_type = answer.content_type
    response.content_length = length
    await response.prepare(request)
    return response


async def _in_pieces(response: web.StreamResponse, pieces: Iterator[bytes]) -> web.StreamResponse:
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


def _padded(body: bytes, size: int) -> Iterator[bytes]:
    """At least `size` bytes, and the body at the end of them."""
    for _ in range(size // len(PADDING)):
        yield PADDING
    yield PADDING[: size % len(PADDING)] + body


def _packed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    gzip = zlib.compressobj(9, wbits=31)
    yield from filter(None, map(gzip.compress, pieces))
    yield gzip.flush()


_STREAMED: dict[str, Callable[[web.Request, Answer, Fault, Clock], Awaitable[web.StreamResponse]]] = {
    "drip": _drip,
    "huge": _huge,
    "bomb": _bomb,
}
