"""Questions about the past: hourly runs, and outcomes to export."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from engine.adapters.http_ingress import Access, Denied, Problem, head_of
from engine.core import exports
from engine.history import OutcomeFilter, RunFilter
from engine.model import Outcome
from engine.ports import Control
from engine.service.asking import Conditions
from engine.service.narrowed import Narrowed

NO_SUCH = "there is no such destination; GET /v1/destinations lists them"
Seen = Control | Narrowed

RUNS_AT_ONCE = 100
RUNS_AT_ONCE_MAX = 1_000
RUN_FORMATS = {"runs": RUNS_AT_ONCE_MAX, "flow": RUNS_AT_ONCE}
"""And how many one answer holds at most: of a flow each run is asked for its audiences."""
EVERY_AUDIENCE = "*"
OUTCOMES = {str(outcome): outcome for outcome in Outcome}


class PastHandlers:
    def __init__(self, control: Callable[[], Control], access: Access) -> None:
        self._control, self._access = control, access

    async def list_runs(self, request: web.Request) -> object:
        asked = Conditions.in_query(request, "destination", "audience", "since", "until", "limit", "cursor", "format")
        control, audience = self._seen(request), asked.text("audience")
        if audience is not None:
            self._access.require(head_of(request), "segments:view")
        which = RunFilter(
            consumer=self._wanted(control, asked),
            audience=None if audience == EVERY_AUDIENCE else audience or "",
            since=asked.moment("since"),
            until=asked.moment("until"),
        )
        format = asked.one_of("format", RUN_FORMATS) or "runs"
        if format == "flow" and audience not in (None, EVERY_AUDIENCE):
            raise Problem(
                "bad-request", f"a flow has every audience or none: leave audience out, or write {EVERY_AUDIENCE}"
            )
        limit = asked.number("limit", RUNS_AT_ONCE, 1, RUN_FORMATS[format])
        try:
            return await control.runs(which, limit, cursor=asked.text("cursor") or "", flow=format == "flow")
        except ValueError:
            raise Problem("bad-request", "cursor is not one that a list of runs gave as `next`") from None

    async def export_outcomes(self, request: web.Request) -> web.StreamResponse:
        """Line by line, a page at a time: whoever reads slowly is waited for."""
        asked = Conditions.in_query(request, "destination", "outcome", "since", "until", "format")
        format = asked.one_of("format", exports.FORMATS) or "ndjson"
        control = self._seen(request)
        name = self._wanted(control, asked)
        names = [name] if name is not None else [str(it["name"]) for it in control.destinations()]
        which = OutcomeFilter(
            consumer="",
            outcome=asked.one_of("outcome", OUTCOMES),
            since=asked.moment("since"),
            until=asked.moment("until"),
        )
        response = web.StreamResponse(headers={"Content-Type": exports.FORMATS[format], "Cache-Control": "no-store"})
        await response.prepare(request)
        await response.write(exports.head(format).encode())
        for name in names:
            async for rows in control.outcomes(msgspec.structs.replace(which, consumer=name)):
                if rows:
                    await response.write(exports.text(rows, format).encode())
        await response.write_eof()
        return response

    def _seen(self, request: web.Request) -> Seen:
        """What there is, as far as the caller may see it."""
        control, caller = self._control(), self._access.caller(head_of(request))
        return control if caller.destinations is None else Narrowed(control, caller)

    def _admit(self, control: Seen, name: str) -> None:
        """To the caller, one that it may not see is as one that there is not. Raises Problem."""
        if isinstance(control, Narrowed) and control.hides(name):
            raise Denied("destination", NO_SUCH, type="not-found", caller=control.caller.name)
        destination(control, name)

    def _wanted(self, control: Seen, asked: Conditions) -> str | None:
        name = asked.text("destination")
        if name is not None:
            self._admit(control, name)
        return name


def destination(control: Seen, name: str) -> dict[str, object]:
    """Raises Problem."""
    found = next((it for it in control.destinations() if it["name"] == name), None)
    if found is None:
        raise Problem("not-found", NO_SUCH)
    return found
