"""``POST /oidc/token``: the client-credentials grant (RFC 6749 §4.4), id and secret as Basic or in the body."""

from __future__ import annotations

import base64
import binascii
import hmac
from urllib.parse import parse_qs, unquote_plus

import orjson
from aiohttp import ClientPayloadError, http_exceptions, web

from engine.sandbox.delivery import deliver
from engine.sandbox.faults import UNANSWERED, Fault
from engine.sandbox.replies import Answer, spoilt_after, spoilt_before
from engine.sandbox.request_log import Request, printable
from engine.sandbox.state import SANDBOX, Sandbox
from engine.sandbox.store_api import first_struck, lag, storm

_NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def token(request: web.Request) -> web.StreamResponse:
    sandbox = request.app[SANDBOX]
    arrived = sandbox.clock.monotonic()
    form = await _form(request)
    faults = sandbox.faults.draw("token", (), arrived)
    await lag(sandbox, faults)
    fault, answer = _decide(sandbox, request, form, faults)
    _log(sandbox, request, answer, fault or first_struck(faults), arrived)
    return await deliver(request, answer, fault, sandbox.clock, sandbox.stale)


async def _form(request: web.Request) -> dict[str, str] | None:
    """The fields of the body, None when it is no form."""
    try:
        fields = parse_qs((await request.read()).decode(), keep_blank_values=True, max_num_fields=100)
    except (ValueError, ClientPayloadError, web.RequestPayloadError, http_exceptions.PayloadEncodingError):
        return None
    except web.HTTPRequestEntityTooLarge:
        return None
    return {name: values[0] for name, values in fields.items()}


def _decide(
    sandbox: Sandbox, request: web.Request, form: dict[str, str] | None, faults: list[Fault]
) -> tuple[Fault | None, Answer]:
    storm(sandbox, faults)
    spoilt = spoilt_before(faults, sandbox.clock.time())
    if spoilt is not None:
        return spoilt
    answer = _grant(sandbox, request, form)
    fault = spoilt_after(faults)
    if fault is not None and fault.kind in UNANSWERED:
        answer.status = 0
    return fault, answer


def _grant(sandbox: Sandbox, request: web.Request, form: dict[str, str] | None) -> Answer:
    if form is None:
        return _error(400, "invalid_request")
    given = _credentials(request.headers.get("Authorization", ""), form)
    if given is None or not _same(given, (sandbox.settings.client_id, sandbox.settings.client_secret)):
        return _error(401, "invalid_client")
    if "grant_type" not in form:
        return _error(400, "invalid_request")
    if form["grant_type"] != "client_credentials":
        return _error(400, "unsupported_grant_type")
    issued = {
        "access_token": sandbox.tokens.issue(sandbox.clock.monotonic()),
        "token_type": "Bearer",
        "expires_in": sandbox.settings.token_seconds,
    }
    return Answer(200, orjson.dumps(issued), headers=_NOT_STORED)


def _credentials(authorization: str, form: dict[str, str]) -> tuple[str, str] | None:
    """Client id and secret as given, None without. Both parts of a Basic header are form-encoded (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return (form["client_id"], form.get("client_secret", "")) if "client_id" in form else None
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return unquote_plus(name), unquote_plus(secret)


def _same(given: tuple[str, str], expected: tuple[str, str]) -> bool:
    return all(hmac.compare_digest(one.encode(), other.encode()) for one, other in zip(given, expected, strict=True))


def _error(status: int, error: str) -> Answer:
    challenge = {"WWW-Authenticate": 'Basic realm="sandbox"'} if status == 401 else {}
    return Answer(status, orjson.dumps({"error": error}), headers={**_NOT_STORED, **challenge})


def _log(sandbox: Sandbox, request: web.Request, answer: Answer, fault: Fault | None, arrived: float) -> None:
    sandbox.requests.add(
        Request(
            at=sandbox.clock.time(),
            method=request.method,
            path=request.path,
            status=answer.status,
            code="",
            milliseconds=round((sandbox.clock.monotonic() - arrived) * 1000, 3),
            event="",
            records=0,
            key="",
            traceparent=printable(request.headers.get("traceparent", "")),
            fault=fault.kind if fault else "",
        )
    )
