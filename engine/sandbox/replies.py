"""Answers in the shapes of RainFocus, and what faults put in their place; `delivery.py` sends them."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import msgspec
import orjson
from aiohttp import web

from engine.sandbox.faults import FINAL_AFTER, FINAL_BEFORE, Fault, first_of
from engine.sandbox.validation import SUCCESS, Refusal

JSON = "application/json"
HTML = "text/html"
SERVER = "RainFocus sandbox"

MESSAGES = {
    "27": "Insufficient access",
    "101": "Invalid API Profile",
    "103": "Required parameter missing: apiProfile",
    "124": "Access to API endpoint attendee/store denied.",
}
"""Of the response codes that were seen at RainFocus; others say "Error"."""


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


def too_many(retry_after: float | str | None, now: float, *, ahead: float = 1.0) -> Answer:
    return Answer(429, b"", HTML, retry_after_header(retry_after, now, ahead=ahead))


def retry_after_header(retry_after: float | str | None, now: float, *, ahead: float = 1.0) -> dict[str, str]:
    """The header for so many seconds (rounded up), for ``"date"`` (`ahead` seconds ahead), or none; `now` is epoch
    seconds."""
    if retry_after is None:
        return {}
    if isinstance(retry_after, str):
        return {"Retry-After": formatdate(now + ahead, usegmt=True)}
    return {"Retry-After": str(-int(-retry_after // 1))}


def spoilt_before(faults: list[Fault], now: float) -> tuple[Fault, Answer] | None:
    """The fault that ends a request before anything is stored, with its answer; None when it may go on."""
    fault = first_of(faults, FINAL_BEFORE)
    if fault is None:
        return None
    if fault.kind == "error_code":
        return fault, refused(code_refusal(fault))
    if fault.kind == "html_500":
        return fault, html_error(fault.status or 500, _retry_after_of(fault, now))
    if fault.kind == "redirect":
        return fault, Answer(fault.status or 307, b"", HTML, {"Location": fault.location})
    if fault.kind == "status":
        return fault, _status_answer(fault, now)
    return fault, Answer(0)


def spoilt_after(faults: list[Fault]) -> Fault | None:
    """The fault that spoils the answer of a request that was carried out."""
    return first_of(faults, FINAL_AFTER)


def code_refusal(fault: Fault) -> Refusal:
    """An `error_code` fault as a refusal: HTTP 200 unless it says otherwise, as RainFocus does."""
    return Refusal(fault.code, MESSAGES.get(fault.code, "Error"), fault.status or 200)


def _retry_after_of(fault: Fault, now: float) -> dict[str, str]:
    return retry_after_header(fault.retry_after, now, ahead=fault.seconds_or(1.0))


def _status_answer(fault: Fault, now: float) -> Answer:
    status = fault.status or 503
    headers = _retry_after_of(fault, now)
    if status == 429:
        return too_many(fault.retry_after, now, ahead=fault.seconds_or(1.0))
    if status == 404:
        return not_found()
    if status >= 500:
        return html_error(status, headers)
    return envelope(fault.code, MESSAGES.get(fault.code, "Error"), status=status, headers=headers)
