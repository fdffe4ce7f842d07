"""``/_sandbox/…``: what the sandbox holds and saw, and what goes wrong in it. JSON only; no part of RainFocus."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from engine.sandbox.faults import parse_document
from engine.sandbox.rates import measure
from engine.sandbox.state import SANDBOX
from engine.sandbox.validation import FIELDS

PREFIX = "/_sandbox"
MAX_PAGE = 1000


def routes() -> list[web.RouteDef]:
    return [
        web.get(f"{PREFIX}/attendees", attendees),
        web.get(f"{PREFIX}/attendees/{{key}}", attendee),
        web.patch(f"{PREFIX}/attendees/{{key}}", edit_attendee),
        web.post(f"{PREFIX}/push", push),
        web.get(f"{PREFIX}/digest", digest),
        web.get(f"{PREFIX}/requests", requests),
        web.get(f"{PREFIX}/rate", rate),
        web.get(f"{PREFIX}/stats", stats),
        web.get(f"{PREFIX}/faults", get_faults),
        web.put(f"{PREFIX}/faults", put_faults),
        web.delete(f"{PREFIX}/faults", delete_faults),
        web.post(f"{PREFIX}/revoke-tokens", revoke_tokens),
        web.post(f"{PREFIX}/reset", reset),
    ]


async def attendees(request: web.Request) -> web.Response:
    """``?org=&event=&limit=&after=&order=newest``: a page in order of creation; `next` goes into `after`."""
    store = request.app[SANDBOX].store
    limit = _page_size(request)
    found = store.page(
        org_id=request.query.get("org", ""),
        event=request.query.get("event", ""),
        after=int(_number(request, "after")) if "after" in request.query else None,
        limit=limit,
        newest=request.query.get("order") == "newest",
    )
    return _json({"attendees": found, "next": found[-1].serial if len(found) == limit else None, "total": len(store)})


async def attendee(request: web.Request) -> web.Response:
    """All attendees with this e-mail hash: one for each org and event it was stored in."""
    found = request.app[SANDBOX].store.find(request.match_info["key"].lower())
    return _json({"attendees": found}) if found else _error(404, "no attendee with this e-mail hash")


async def edit_attendee(request: web.Request) -> web.Response:
    """Somebody edits this person in RainFocus: the body's fields are set, in every org and event (``?org=&event=``: in
    these), and the change is pushed. `pushed`: what `settings.push_url` answered, one each."""
    sandbox, query = request.app[SANDBOX], request.query
    try:
        fields = msgspec.json.decode(await request.read(), type=dict[str, str])
    except msgspec.MsgspecError:
        return _error(400, "the body is an object of fields and texts")
    if unknown := sorted(fields.keys() - (FIELDS - {"email"})):
        return _error(400, f"no field of an attendee: {', '.join(unknown)}")
    everywhere = sandbox.store.find(request.match_info["key"].lower())
    found = [it for it in everywhere if query.get("org", it.org_id) == it.org_id]
    found = [it for it in found if query.get("event", it.event) == it.event]
    if not found:
        return _error(404, "no attendee with this e-mail hash")
    for one in found:
        sandbox.store.edit(one, fields, sandbox.clock.time())
    records = [sandbox.push.record_of(one, "AttendeeUpdated") for one in found]
    pushed = [await one for one in [sandbox.push.offer(record) for record in records]]
    return _json({"attendees": found, "pushed": pushed})


async def push(request: web.Request) -> web.Response:
    """Pushes the body as it is: a session that was scheduled, say."""
    try:
        record = msgspec.json.decode(await request.read())
    except msgspec.MsgspecError:
        return _error(400, "the body is not JSON")
    return _json({"pushed": await request.app[SANDBOX].push.offer(record)})


async def digest(request: web.Request) -> web.Response:
    """``?org=&event=``: `attendees.fold_digest` of what is stored."""
    query = request.query
    total, count = request.app[SANDBOX].store.digest(org_id=query.get("org", ""), event=query.get("event", ""))
    return _json({"sha256": total, "attendees": count})


async def requests(request: web.Request) -> web.Response:
    """``?limit=&status=``: the API log, newest first."""
    log, limit = request.app[SANDBOX].requests, _page_size(request)
    status = int(_number(request, "status")) if "status" in request.query else None
    chosen = (entry for entry in log if status is None or entry.status == status)
    return _json({"requests": [entry for entry, _ in zip(chosen, range(limit), strict=False)], "total": log.total})


async def rate(request: web.Request) -> web.Response:
    """``?rate=&burst=``: `rates.measure` over the store requests that are remembered."""
    arrivals = request.app[SANDBOX].arrivals
    limit, burst = _number(request, "rate"), _number(request, "burst")
    measured = await asyncio.to_thread(measure, arrivals.in_order(), limit, burst)
    return _json({"requests": arrivals.total, **measured})


async def stats(request: web.Request) -> web.Response:
    return _json(request.app[SANDBOX].stats())


async def get_faults(request: web.Request) -> web.Response:
    sandbox = request.app[SANDBOX]
    return _json({"faults": sandbox.faults.describe(sandbox.clock.monotonic())})


async def put_faults(request: web.Request) -> web.Response:
    """Replaces all faults by the list in the body (or under its `faults`)."""
    try:
        request.app[SANDBOX].set_faults(parse_document(await request.read()))
    except ValueError as error:
        return _error(400, str(error))
    return await get_faults(request)


async def delete_faults(request: web.Request) -> web.Response:
    request.app[SANDBOX].set_faults([])
    return await get_faults(request)


async def revoke_tokens(request: web.Request) -> web.Response:
    return _json({"revoked": request.app[SANDBOX].revoke_tokens()})


async def reset(request: web.Request) -> web.Response:
    request.app[SANDBOX].reset()
    return _json({"reset": True})


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json({"error": message}, status)


def _page_size(request: web.Request) -> int:
    return min(max(int(_number(request, "limit", 50)), 1), MAX_PAGE)


def _number(request: web.Request, name: str, default: float = 0.0) -> float:
    """:raises web.HTTPBadRequest: when it is none, or no size anything could have."""
    try:
        number = float(request.query.get(name, default))
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e12:
        raise web.HTTPBadRequest(reason=f"{name} must be a number from 0")
    return number
