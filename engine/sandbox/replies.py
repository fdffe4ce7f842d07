"""Answers in the shapes of RainFocus, and how faults spoil them on the wire."""

from __future__ import annotations

import os
import socket
import struct
from email.utils import formatdate
from typing import Any

import msgspec
import orjson
from aiohttp import web

from engine.sandbox.faults import FINAL_AFTER, FINAL_BEFORE, Fault, first_of
from engine.sandbox.settings import Clock
from engine.sandbox.validation import SUCCESS, Refusal

JSON = "application/json"
HTML = "text/html"
SERVER = "RainFocus sandbox"

SILENCE_SECONDS = 600.0
DRIP_SECONDS = 10.0
DRIP_PIECES = 20

MESSAGES = {
    "27": "Insufficient access",
    "101": "Invalid API Profile",
    "103": "Required parameter missing: apiProfile",
    "124": "Access to API endpoint attendee/store denied.",
}
"""Of the response codes that were seen at RainFocus; others say "Error"."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Answer(msgspec.Struct):
    """What is sent back. `status` 0: nothing, the connection is cut."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = {}
    code: str = ""  # the envelope's responseCode, for the log

    def response(self) -> web.Response:
        headers = {"Server": SERVER, **self.headers}
        return web.Response(status=self.status or 500, body=self.body, content_type=self.content_type, headers=headers)


def envelope(
    code: str, message: str, *, status: int = 200, headers: dict[str, str] | None = None, **more: Any
) -> Answer:
    """RainFocus' envelope: ``{"responseCode", "responseMessage", …}``."""
    body = orjson.dumps({"responseCode": code, "responseMessage": message, **more})
    return Answer(status, body, headers=headers or {}, code=code)


def success(**more: Any) -> Answer:
    return envelope(SUCCESS, "Success", **more)


def refused(refusal: Refusal) -> Answer:
    return envelope(refusal.code, refusal.message, status=refusal.status)


def not_found() -> Answer:
    """What RainFocus answers at a path it does not know: five bytes."""
    return Answer(404, b"Error", HTML)


def html_error(status: int, headers: dict[str, str] | None = None) -> Answer:
    page = f"<html><head><title>{status}</title></head><body><h1>{status} Error</h1></body></html>"
    return Answer(status, page.encode(), HTML, headers or {})


def too_many(retry_after: float | str | None, now: float) -> Answer:
    return Answer(429, b"", HTML, retry_after_header(retry_after, now))


def retry_after_header(retry_after: float | str | None, now: float) -> dict[str, str]:
    """The header for so many seconds (rounded up), for ``"date"`` (in one second), or none; `now` is epoch seconds."""
    if retry_after is None:
        return {}
    if isinstance(retry_after, str):
        return {"Retry-After": formatdate(now + 1, usegmt=True)}
    return {"Retry-After": str(-int(-retry_after // 1))}


def spoilt_before(faults: list[Fault], now: float) -> tuple[Fault, Answer] | None:
    """The fault that ends a request before anything is stored, with its answer; None when it may go on."""
    fault = first_of(faults, FINAL_BEFORE)
    if fault is None:
        return None
    if fault.kind == "error_code":
        return fault, refused(code_refusal(fault))
    if fault.kind == "html_500":
        return fault, html_error(fault.status or 500, retry_after_header(fault.retry_after, now))
    if fault.kind == "status":
        return fault, _status_answer(fault, now)
    return fault, Answer(0)


def spoilt_after(faults: list[Fault]) -> Fault | None:
    """The fault that spoils the answer of a request that was carried out."""
    return first_of(faults, FINAL_AFTER)


def code_refusal(fault: Fault) -> Refusal:
    """An `error_code` fault as a refusal: HTTP 200 unless it says otherwise, as RainFocus does."""
    return Refusal(fault.code, MESSAGES.get(fault.code, "Error"), fault.status or 200)


async def deliver(request: web.Request, answer: Answer, fault: Fault | None, clock: Clock) -> web.StreamResponse:
    """Send `answer`, or do with the connection what `fault` says."""
    kind = fault.kind if fault else ""
    if fault and kind == "drip":
        return await _drip(request, answer, fault.seconds_or(DRIP_SECONDS), clock)
    if fault and kind in ("timeout", "timeout_after"):
        await clock.sleep(fault.seconds_or(SILENCE_SECONDS))
    if kind in ("reset_before", "reset_after", "timeout", "timeout_after"):
        cut(request)
    response = answer.response()
    if request.content.exception() is not None:
        response.force_close()  # aiohttp closes after a body it could not decode; say so, lest the caller reuse it
    return response


def cut(request: web.Request) -> None:
    """Close the connection with a reset, as a crashed process or a firewall does."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    # A copy of the descriptor, since uvloop's own socket object takes no options.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def _status_answer(fault: Fault, now: float) -> Answer:
    status = fault.status or 503
    headers = retry_after_header(fault.retry_after, now)
    if status == 429:
        return too_many(fault.retry_after, now)
    if status == 404:
        return not_found()
    if status >= 500:
        return html_error(status, headers)
    return envelope(fault.code, MESSAGES.get(fault.code, "Error"), status=status, headers=headers)


async def _drip(request: web.Request, answer: Answer, seconds: float, clock: Clock) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Server": SERVER, **answer.headers})
    response.content_type = answer.content_type
    response.content_length = len(answer.body)
    await response.prepare(request)
    size = max(1, -(-len(answer.body) // DRIP_PIECES))
    pieces = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
    for piece in pieces:
        await clock.sleep(seconds / len(pieces))
        await response.write(piece)
    await response.write_eof()
    return response
