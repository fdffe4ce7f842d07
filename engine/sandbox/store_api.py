"""``POST /api/{org_id}/v3/attendee/store``: one attendee or a list of them, created or updated.

A request passes in this order: body read, faults, latency, rate limit, token, API profile, org id, each record.
Whoever leaves while it waits is served all the same, as by any server behind a proxy: the write may come later than
its caller's time-out.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import orjson
from aiohttp import ClientPayloadError, http_exceptions, web

from engine.sandbox.delivery import cut, deliver
from engine.sandbox.faults import UNANSWERED, Fault
from engine.sandbox.replies import (
    Answer,
    code_refusal,
    envelope,
    refused,
    spoilt_after,
    spoilt_before,
    success,
    too_many,
)
from engine.sandbox.request_log import Request, printable
from engine.sandbox.state import SANDBOX, Sandbox
from engine.sandbox.validation import (
    DENIED,
    INVALID_PROFILE,
    PARAMETER,
    SUCCESS,
    Record,
    Refusal,
    check_record,
    invalid,
    missing,
)

KEY_PREFIX = 12


class Call(msgspec.Struct):
    """One request, read."""

    org_id: str
    event: str  # named in the URL, "" if not
    content: Any  # decoded JSON, or the Refusal of a body that is none
    keys: list[str]  # e-mail hashes: of all records if a fault asks for them, else of the first
    attendee: str = ""  # the first that was stored

    @property
    def records(self) -> list[Any]:
        if isinstance(self.content, Refusal):
            return []
        return self.content if type(self.content) is list else [self.content]

    @property
    def event_of_first(self) -> str:
        """The event code of the first record, or of the URL."""
        first = self.records[0] if self.records else None
        return str(first.get("event", self.event)) if type(first) is dict else self.event


async def attendee_store(request: web.Request) -> web.StreamResponse:
    sandbox = request.app[SANDBOX]
    arrived = sandbox.clock.monotonic()
    sandbox.arrivals.add(arrived)
    call = await _read(request, every_key=sandbox.faults.keyed)
    if request in sandbox.stale:
        return _found_closed(sandbox, request, call, arrived)
    faults = sandbox.faults.draw("store", call.keys, arrived, call.event_of_first)
    await lag(sandbox, faults, sandbox.settings.latency_ms / 1000)
    fault, answer = _decide(sandbox, request, call, faults)
    _log(sandbox, request, call, answer, fault or first_struck(faults), arrived)
    return await deliver(request, answer, fault, sandbox.clock, sandbox.stale)


def _found_closed(sandbox: Sandbox, request: web.Request, call: Call, arrived: float) -> web.StreamResponse:
    """The connection was closed by us while this request was sent on it: it is as if it had never been read."""
    cut(request)
    answer = Answer(0)
    _log(sandbox, request, call, answer, Fault(kind="stale_connection"), arrived)
    return answer.response()


async def lag(sandbox: Sandbox, faults: list[Fault], seconds: float = 0.0) -> None:
    """Wait as long as the settings and the latency faults say."""
    seconds += sum(fault.seconds_or(1.0) for fault in faults if fault.kind == "latency")
    if seconds > 0:
        await sandbox.clock.sleep(seconds)


def first_struck(faults: list[Fault]) -> Fault | None:
    """The fault the log names where none decided the answer: a latency, a token storm."""
    return faults[0] if faults else None


def storm(sandbox: Sandbox, faults: list[Fault]) -> None:
    """Revoke all tokens if a token storm strikes this request."""
    if any(fault.kind == "token_storm" for fault in faults):
        sandbox.revoke_tokens()


async def _read(request: web.Request, *, every_key: bool) -> Call:
    content = await _content(request)
    call = Call(request.match_info["org_id"], request.query.get("event", ""), content, [])
    for record in call.records if every_key else call.records[:1]:
        email = record.get("email") if type(record) is dict else None
        if type(email) is str:
            call.keys.append(hashlib.sha256(email.strip().lower().encode()).hexdigest())
    return call


async def _content(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except web.HTTPRequestEntityTooLarge:
        return Refusal(PARAMETER, "Request body too large", 413)
    except (ValueError, ClientPayloadError, web.RequestPayloadError, http_exceptions.PayloadEncodingError):
        return Refusal(PARAMETER, "Request body is not valid JSON")


def _decide(sandbox: Sandbox, request: web.Request, call: Call, faults: list[Fault]) -> tuple[Fault | None, Answer]:
    """What is answered and the fault that decides it; whatever is to be stored has been when it returns."""
    storm(sandbox, faults)
    per_record = {f.email_sha256: f for f in faults if f.kind == "error_code" and f.email_sha256}
    whole = [fault for fault in faults if not (fault.kind == "error_code" and fault.email_sha256)]
    spoilt = spoilt_before(whole, sandbox.clock.time())
    if spoilt is not None:
        return spoilt
    answer = _admit(sandbox, request, call) or _carry_out(sandbox, call, per_record)
    fault = spoilt_after(whole) or next(iter(per_record.values()), None)
    if fault is not None and fault.kind in UNANSWERED:
        answer.status = 0
    return fault, answer


def _admit(sandbox: Sandbox, request: web.Request, call: Call) -> Answer | None:
    """The answer to a request that is refused as a whole, None when its records may be looked at."""
    settings, clock = sandbox.settings, sandbox.clock
    wait = sandbox.bucket.take(clock.monotonic())
    if wait > 0:
        announced: dict[str, float | str | None] = {"seconds": wait, "date": "date", "none": None}
        return too_many(announced[settings.retry_after], clock.time())
    refusal = _unauthorized(sandbox, request)
    if refusal is not None:
        return refusal
    profile = request.headers.get("apiProfile") or request.query.get("apiProfile", "")
    if settings.api_profile and not profile:
        return refused(missing("apiProfile"))
    if settings.api_profile and profile != settings.api_profile:
        return envelope(INVALID_PROFILE, "Invalid API Profile")
    if settings.org_ids is not None and call.org_id not in settings.org_ids:
        return envelope(DENIED, "Access to API endpoint attendee/store denied.")
    return refused(call.content) if isinstance(call.content, Refusal) else None


def _unauthorized(sandbox: Sandbox, request: web.Request) -> Answer | None:
    """RainFocus answers a missing or foreign token with code 103; the status 401 is our reading."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and sandbox.tokens.valid(token.strip(), sandbox.clock.monotonic()):
        return None
    message = "Invalid parameter: access token" if token else "Required parameter missing: access token"
    return envelope(PARAMETER, message, status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def _carry_out(sandbox: Sandbox, call: Call, per_record: dict[str, Fault]) -> Answer:
    several = type(call.content) is list
    if sandbox.settings.encoding == ("single" if several else "array"):
        return refused(invalid("attendee"))
    if not call.records:
        return refused(missing("attendee"))
    judged = [_judge(sandbox, call, record, per_record) for record in call.records]
    refusals = [verdict for verdict in judged if isinstance(verdict, Refusal)]
    if several and sandbox.settings.array_results:
        return _with_results(sandbox, call, judged, refusals)
    if refusals:
        return refused(refusals[0])
    ids = [_put(sandbox, call, record) for record in judged if isinstance(record, Record)]
    return success() if several else success(attendeeId=ids[0])


def _judge(sandbox: Sandbox, call: Call, content: Any, per_record: dict[str, Fault]) -> Record | Refusal:
    verdict = check_record(content, call.event, sandbox.settings.event_codes)
    if per_record and isinstance(verdict, Record):
        fault = per_record.get(hashlib.sha256(verdict.email.encode()).hexdigest())
        return verdict if fault is None else code_refusal(fault)
    return verdict


def _with_results(sandbox: Sandbox, call: Call, judged: list[Record | Refusal], refusals: list[Refusal]) -> Answer:
    """Each record has its own result; the outer code is the first refusal's, so nobody overlooks it. HTTP 200, or 207
    if a fault wants that."""
    results = [
        {"responseCode": verdict.code, "responseMessage": verdict.message}
        if isinstance(verdict, Refusal)
        else {"responseCode": SUCCESS, "responseMessage": "Success", "attendeeId": _put(sandbox, call, verdict)}
        for verdict in judged
    ]
    if not refusals:
        return success(results=results)
    status = 207 if any(refusal.status == 207 for refusal in refusals) else 200
    message = f"{len(refusals)} of {len(judged)} records refused"
    return envelope(refusals[0].code, message, status=status, results=results)


def _put(sandbox: Sandbox, call: Call, record: Record) -> str:
    attendee = sandbox.store.put(call.org_id, record, sandbox.clock.time())
    if sandbox.settings.push_writes:
        sandbox.push.offer(sandbox.push.record_of(attendee, "AttendeeUpdated"))
    call.attendee = call.attendee or attendee.attendee_id
    return attendee.attendee_id


def _log(
    sandbox: Sandbox, request: web.Request, call: Call, answer: Answer, fault: Fault | None, arrived: float
) -> None:
    sandbox.requests.add(
        Request(
            at=sandbox.clock.time(),
            method=request.method,
            path=printable(request.path),
            status=answer.status,
            code=answer.code,
            milliseconds=round((sandbox.clock.monotonic() - arrived) * 1000, 3),
            event=printable(call.event_of_first),
            records=len(call.records),
            key=call.keys[0][:KEY_PREFIX] if call.keys else "",
            traceparent=printable(request.headers.get("traceparent", "")),
            fault=fault.kind if fault else "",
            attendee=call.attendee,
        )
    )
