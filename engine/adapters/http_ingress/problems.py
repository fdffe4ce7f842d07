"""Errors as application/problem+json (RFC 9457), and what every answer of ours carries, for any aiohttp application.

A problem's `type` is a relative URI: a short stable word, the one to branch on.
"""

from __future__ import annotations

import logging
import math
import random as random_module
import traceback
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from engine.errors import EngineError, NoSpace, Overloaded, Stopped

PROBLEM_JSON = "application/problem+json"
STOPPED_RETRY_SECONDS = 5.0

TYPES: dict[str, tuple[int, str]] = {
    "answer-timeout": (503, "The answer was not ready in time"),
    "backfill-behind": (503, "Too much backfill at once"),
    "bad-request": (400, "The request cannot be understood"),
    "body-timeout": (408, "The body came too slowly"),
    "body-too-large": (413, "The body is too large"),
    "busy": (503, "Too much at once"),
    "commit-timeout": (503, "Not known to be stored yet"),
    "disk-full": (503, "The disk is full"),
    "draining": (503, "The engine is stopping"),
    "empty-body": (400, "The body is empty"),
    "expectation-failed": (417, "The expectation cannot be met"),
    "forbidden": (403, "Not allowed for this key"),
    "head-timeout": (408, "The request came too slowly"),
    "head-too-large": (431, "Too much before the body"),
    "journal-full": (503, "The journal is full"),
    "method-not-allowed": (405, "This address does not take this method"),
    "not-found": (404, "There is nothing at this address"),
    "not-local": (403, "Open to this machine only"),
    "not-running": (503, "The engine is not running"),
    "quota": (429, "The quota of this key is used up"),
    "server-error": (500, "A fault of the engine"),
    "storage-failed": (503, "The storage has failed"),
    "target-too-long": (414, "The address is too long"),
    "too-many-events": (413, "Too many events in one request"),
    "unauthorized": (401, "A key is needed"),
    "unknown-transfer-encoding": (501, "This transfer encoding is not understood"),
    "unknown-version": (505, "This version of HTTP is not understood"),
    "unreadable-body": (400, "The body cannot be read"),
    "unsupported-encoding": (415, "This content encoding is not understood"),
    "unsupported-media-type": (415, "This content type is not understood"),
}
"""Every type there is: its status and title. A refusal of the engine under another type is a 503."""

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "rainfocus-engine",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

logger = logging.getLogger("engine.http")


class Problem(Exception):
    """An answer that is not the one hoped for. `detail` is for people and never quotes what was sent."""

    def __init__(
        self,
        type: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        **more: object,
    ) -> None:
        super().__init__(detail)
        self.type, self.detail, self.more = type, detail, more
        self.status, self.title = TYPES.get(type, (503, "Not accepted now"))
        self.headers = dict(headers or {})
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> bytes:
        return msgspec.json.encode(
            {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail, **self.more}
        )

    def headers_with(self, random: random_module.Random) -> dict[str, str]:
        """All headers of the answer. Retry-After is whole seconds and spread, so that not everybody comes back at
        once."""
        headers = {"Content-Type": PROBLEM_JSON, **self.headers}
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = retry_after(self.retry_after_seconds, random)
        return headers


def retry_after(seconds: float, random: random_module.Random) -> str:
    return str(max(1, math.ceil(seconds * random.uniform(0.8, 1.2))))


def problem_of(error: EngineError) -> Problem:
    """What one of the engine's own failures is to a caller."""
    if isinstance(error, Overloaded):
        return Problem(error.type, error.detail, retry_after_seconds=error.retry_after_seconds)
    if isinstance(error, NoSpace):
        return Problem(error.type, error.detail, retry_after_seconds=STOPPED_RETRY_SECONDS)
    if isinstance(error, Stopped):
        return Problem("not-running", str(error), retry_after_seconds=STOPPED_RETRY_SECONDS)
    return Problem("storage-failed", "the engine cannot use its storage; its log says why")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def prepare(app: web.Application, random: random_module.Random | None = None) -> None:
    """Give the application our errors and our headers. Once an application."""
    jitter = random or random_module.Random()

    @web.middleware
    async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            found = problem
        except EngineError as error:
            found = problem_of(error)
        except web.HTTPException as error:
            found = _problem_of_http(error)
        except ConnectionError:
            raise
        except Exception as error:
            _log(error, request)
            found = Problem("server-error", "the engine made a mistake; its log has the place")
        return response_of(found, jitter)

    app.middlewares.append(problems)
    app.on_response_prepare.append(_add_headers)


def response_of(problem: Problem, random: random_module.Random) -> web.Response:
    return web.Response(status=problem.status, body=problem.body(), headers=problem.headers_with(random))


def _problem_of_http(error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem("method-not-allowed", f"this address takes {allowed}", headers={"Allow": allowed})
    if error.status == 404:
        return Problem("not-found", "there is nothing at this address; /openapi.json lists what there is")
    if error.status == 413:
        return Problem("body-too-large", "the body is larger than this address takes")
    if error.status == 417:
        return Problem("expectation-failed", "of Expect only 100-continue is understood")
    return Problem("bad-request", error.reason)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in SECURITY_HEADERS.items():
        if name == "Server" or name not in response.headers:
            response.headers[name] = value


def _log(error: Exception, request: web.Request) -> None:
    """Where it happened, without the exception's text and without the URL: either may hold data of a person."""
    resource = request.match_info.route.resource
    place = resource.canonical if resource is not None else "an unknown address"
    trace = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s in %s %s\n%s", type(error).__name__, request.method, place, trace)
