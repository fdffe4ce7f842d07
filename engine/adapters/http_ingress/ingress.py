"""Taking events in over HTTP, without knowing which server carries it. The contract of answers: DESIGN §6.2."""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

import anyio
import msgspec

from engine.adapters.http_ingress.access import Access, Caller, Head
from engine.adapters.http_ingress.body import Bodies, BodyReader, Inflate
from engine.adapters.http_ingress.denials import Denied
from engine.adapters.http_ingress.problems import Problem, problem_of
from engine.adapters.http_ingress.request import (
    IngressAnswer,
    IngressRequest,
    lane_of,
    media_type,
    require_rainfocus,
    source_of,
    wait_seconds,
)
from engine.adapters.http_ingress.token_endpoint import OPERATION as ISSUE_TOKEN
from engine.adapters.http_ingress.token_endpoint import TokenEndpoint
from engine.config import IngressConfig
from engine.errors import EngineError, Stopped
from engine.metrics import Metrics
from engine.model import Append, Lane
from engine.ports import Intake
from engine.profiles.formats import Parsed

SCOPE = "profiles:write"
RETRY_SECONDS = 5.0
ANSWER_SHARE = 0.95
"""Of the time to answer in; the rest is for the answer's own way out."""

JSON_HEADERS = {"Content-Type": "application/json"}


class _Way(msgspec.Struct, frozen=True):
    """How the body of one request is read, and as what it enters the journal."""

    media_type: str
    reader: BodyReader
    source: str
    lane: Lane


class Ingress:
    """`intake` and `readiness` are asked anew every time: the engine behind them starts and stops. `readers`: source ->
    (reader of its bodies, its lane), the first one is the default. `changes` reads what RainFocus pushes."""

    def __init__(
        self,
        config: IngressConfig,
        readers: Mapping[str, tuple[BodyReader, Lane]],
        *,
        changes: BodyReader,
        intake: Callable[[], Intake],
        readiness: Callable[[], list[str]],
        access: Access,
        inflate: Inflate,
        metrics: Metrics,
        random: random_module.Random | None = None,
    ) -> None:
        self._config, self._readers, self._changes = config, readers, changes
        self._intake, self._readiness = intake, readiness
        self._access, self._metrics = access, metrics
        self._bodies = Bodies(config, inflate)
        self._tokens = TokenEndpoint(config, access, inflate)
        self.random = random or random_module.Random()
        self._commits: set[asyncio.Task[str]] = set()

    # -- events ---------------------------------------------------------------------------------------------------

    async def handle(self, request: IngressRequest) -> IngressAnswer:
        """`POST /v1/profiles`. When cancelled, a commit under way goes on."""
        return await self._answered(self._accept(request, self._of_producer), request.head, "post_profiles")

    async def handle_changes(self, request: IngressRequest) -> IngressAnswer:
        """`POST /v1/sources/rainfocus`: as `handle`, of what has changed there."""
        return await self._answered(self._accept(request, self._of_rainfocus), request.head, "post_changes")

    def _of_producer(self, request: IngressRequest, caller: Caller) -> _Way:
        kind = media_type(request.head.headers)
        source = source_of(request.query, caller, self._readers)
        reader, lane = self._readers[source]
        return _Way(kind, reader, source, lane_of(request.query, lane))

    def _of_rainfocus(self, request: IngressRequest, caller: Caller) -> _Way:
        """Changes are control events: without a source, so that every destination judges them one by one."""
        require_rainfocus(caller)
        return _Way(media_type(request.head.headers, csv=False), self._changes, "", Lane.LIVE)

    async def _accept(self, request: IngressRequest, way_of: Callable[[IngressRequest, Caller], _Way]) -> IngressAnswer:
        caller = self._access.require(request.head, SCOPE)
        way = way_of(request, caller)
        intake = self._intake()
        refusal = intake.refusal()
        if refusal is not None:
            raise problem_of(refusal)
        self._spend(caller, 0)
        body = await self._bodies.read(request)
        received_at = anyio.current_time()
        until = received_at + self._config.answer_timeout_seconds * ANSWER_SHARE
        try:
            parsed = await self._bodies.parse(body, request, way.media_type, way.reader, until)
            append = Append(parsed.events, way.source, way.lane)
            id = await self._store(append, caller, intake, until) if parsed.events else None
        finally:
            self._metrics.ack_seconds.observe(anyio.current_time() - received_at)
        self._count(parsed)
        return await self._report(parsed, id, request, caller, intake)

    async def _store(self, append: Append, caller: Caller, intake: Intake, until: float) -> str:
        """The id of the receipt. The commit has a task of its own: neither our haste nor a caller who hangs up ends it
        half way."""
        events = len(append.events)
        self._spend(caller, events)
        commit = asyncio.ensure_future(intake.accept(append, owner=caller.name))
        self._commits.add(commit)
        commit.add_done_callback(self._forget_commit)
        await asyncio.wait({commit}, timeout=max(0.0, until - anyio.current_time()))
        if not commit.done():
            detail = "the events are not known to be stored yet and may still be; sending them again is safe"
            raise Problem("commit-timeout", detail, retry_after_seconds=RETRY_SECONDS)
        try:
            return commit.result()
        except EngineError as error:
            self._access.keys.take(caller.name, -events)
            raise problem_of(error) from error

    def _forget_commit(self, commit: asyncio.Task[str]) -> None:
        """Whoever waited has the result or has been told that it is not known; nobody else asks for it."""
        self._commits.discard(commit)
        if not commit.cancelled():
            commit.exception()

    def _spend(self, caller: Caller, events: int) -> None:
        wait = self._access.keys.take(caller.name, events)
        if wait > 0:
            raise Problem("quota", "this key has used up its events per second", retry_after_seconds=wait)

    def _count(self, parsed: Parsed) -> None:
        for rejection in parsed.rejected:
            self._metrics.rejected(rejection.reason)
        for dropped in parsed.dropped:
            self._metrics.fields_dropped[dropped.reason] += 1
        self._metrics.fields_dropped.update(parsed.unlisted)

    async def _report(
        self, parsed: Parsed, id: str | None, request: IngressRequest, caller: Caller, intake: Intake
    ) -> IngressAnswer:
        body = {"accepted": len(parsed.events), "rejected": parsed.rejected, "dropped": parsed.dropped, "receipt": id}
        headers = dict(JSON_HEADERS)
        seconds = wait_seconds(request.head.headers)
        if id:
            headers["Location"] = f"{request.mount}/v1/receipts/{id}"
        if id and seconds is not None:
            headers["Preference-Applied"] = f"wait={seconds}"
            body |= _seen_by(caller, await _settled(intake, id, seconds, caller.name))
        status = 422 if parsed.rejected and not parsed.events else 207 if parsed.rejected else 202
        return IngressAnswer(status, headers, msgspec.json.encode(body))

    # -- tokens ---------------------------------------------------------------------------------------------------

    async def issue_token(self, request: IngressRequest) -> IngressAnswer:
        """`POST /oauth/token`."""
        return await self._answered(self._tokens.answer(request), request.head, ISSUE_TOKEN)

    # -- receipts and probes --------------------------------------------------------------------------------------

    async def receipt(self, head: Head, id: str) -> IngressAnswer:
        """`GET /v1/receipts/{id}`."""
        return await self._answered(self._receipt(head, id), head, "get_receipt")

    async def _receipt(self, head: Head, id: str) -> IngressAnswer:
        caller = self._access.require(head, SCOPE)
        intake = self._intake()
        found = intake.receipt(id, owner=caller.name)
        if found is not None:
            return IngressAnswer(200, dict(JSON_HEADERS), msgspec.json.encode(_seen_by(caller, found)))
        refusal = intake.refusal()
        if refusal is not None and refusal.type == "draining":
            raise problem_of(refusal)
        raise Problem("not-found", "there is no such receipt, or it belongs to another key")

    def ready(self, head: Head) -> IngressAnswer:
        """`GET /readyz`: 200 or 503 for everybody; the reasons for those who may ask for anything."""
        reasons = self._reasons()
        body: dict[str, object] = {"ready": not reasons}
        with suppress(Problem):
            if self._access.caller(head).scopes:
                body["reasons"] = reasons
        return IngressAnswer(503 if reasons else 200, dict(JSON_HEADERS), msgspec.json.encode(body))

    def _reasons(self) -> list[str]:
        try:
            return self._readiness()
        except Stopped:
            return ["not-running"]

    async def close(self) -> None:
        """Give the commits under way the time that an answer has."""
        if self._commits:
            await asyncio.wait(set(self._commits), timeout=self._config.answer_timeout_seconds)

    async def _answered(
        self, work: Coroutine[object, object, IngressAnswer], head: Head, operation: str
    ) -> IngressAnswer:
        try:
            answer = await work
        except Problem as problem:
            if isinstance(problem, Denied):
                self._access.note(problem, head, operation)
            answer = IngressAnswer(problem.status, problem.headers_with(self.random), problem.body())
        self._metrics.answers[str(answer.status)] += 1
        return answer


async def _settled(intake: Intake, id: str, seconds: int, owner: str) -> dict[str, object]:
    """State and counts of the receipt, after at most so many seconds. The events are durable whatever happens here."""
    with suppress(EngineError):
        await intake.settled(id, seconds, owner=owner)
    found = intake.receipt(id, owner=owner) or {}
    return {"state": found.get("state", "pending"), "destinations": found.get("destinations")}


def _seen_by(caller: Caller, found: dict[str, object]) -> dict[str, object]:
    """Of a receipt, the destinations that the caller may see."""
    only, counts = caller.destinations, found.get("destinations")
    if only is None or not isinstance(counts, dict):
        return found
    return found | {"destinations": {name: it for name, it in counts.items() if name in only}}
