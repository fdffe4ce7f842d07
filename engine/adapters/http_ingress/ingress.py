"""Taking events in over HTTP, without knowing which server carries it. The contract of answers: DESIGN §6.2."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

import anyio
import msgspec

from engine.adapters.http_ingress.access import Access, Caller, Head
from engine.adapters.http_ingress.admission import SCOPE, Admission, Admitted
from engine.adapters.http_ingress.answers import JSON_HEADERS, Answers
from engine.adapters.http_ingress.body import Bodies, BodyReader, Inflate
from engine.adapters.http_ingress.commits import Commits
from engine.adapters.http_ingress.direct import Direct
from engine.adapters.http_ingress.problems import Problem, problem_of
from engine.adapters.http_ingress.request import POST_PROFILES, IngressAnswer, IngressRequest, wait_seconds
from engine.adapters.http_ingress.token_endpoint import OPERATION as ISSUE_TOKEN
from engine.adapters.http_ingress.token_endpoint import TokenEndpoint
from engine.config import IngressConfig
from engine.errors import EngineError, Stopped
from engine.metrics import Metrics
from engine.model import Lane
from engine.ports import Intake
from engine.profiles.formats import Parsed

ANSWER_SHARE = 0.95
"""Of the time to answer in; the rest is for the answer's own way out."""


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
        self._config, self._intake, self._readiness = config, intake, readiness
        self.body_seconds = config.body_timeout_seconds
        self._access, self._metrics = access, metrics
        self.random = random or random_module.Random()
        self._admission, self._bodies = Admission(readers, changes, intake, access), Bodies(config, inflate)
        self._commits, self._answers = Commits(self._admission), Answers(access, metrics, self.random)
        self.direct = Direct(
            config, self._admission, self._bodies, self._commits, self._answers, metrics, share=ANSWER_SHARE
        )
        self._tokens = TokenEndpoint(config, access, inflate)

    # -- events ---------------------------------------------------------------------------------------------------

    async def handle(self, request: IngressRequest) -> IngressAnswer:
        """`POST /v1/profiles`. When cancelled, a commit under way goes on."""
        return await self._answered(self._accept(request, self._admission.of_producer), request.head, POST_PROFILES)

    async def handle_changes(self, request: IngressRequest) -> IngressAnswer:
        """`POST /v1/sources/rainfocus`: as `handle`, of what has changed there."""
        return await self._answered(self._accept(request, self._admission.of_rainfocus), request.head, "post_changes")

    async def _accept(self, request: IngressRequest, admit: Callable[[IngressRequest], Admitted]) -> IngressAnswer:
        admitted = admit(request)
        body = await self._bodies.read(request)
        received_at = anyio.current_time()
        until = received_at + self._config.answer_timeout_seconds * ANSWER_SHARE
        try:
            parsed = await self._bodies.parse(body, request, admitted.media_type, admitted.reader, until)
            id = await self._commits.stored(parsed.events, admitted, until) if parsed.events else None
        finally:
            self._metrics.ack_seconds.observe(anyio.current_time() - received_at)
        return await self._report(parsed, id, request, admitted)

    async def _report(
        self, parsed: Parsed, id: str | None, request: IngressRequest, admitted: Admitted
    ) -> IngressAnswer:
        seconds = wait_seconds(request.head.headers)
        if not id or seconds is None:
            return self._answers.accepted(parsed, id, request.mount)
        found = _seen_by(admitted.caller, await _settled(admitted.intake, id, seconds, admitted.caller.name))
        answer = self._answers.accepted(parsed, id, request.mount, found)
        answer.headers["Preference-Applied"] = f"wait={seconds}"
        return answer

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
        await self._commits.finished(self._config.answer_timeout_seconds)

    async def _answered(
        self, work: Coroutine[object, object, IngressAnswer], head: Head, operation: str
    ) -> IngressAnswer:
        try:
            answer = await work
        except Problem as problem:
            answer = self._answers.refused(problem, head, operation)
        return self._answers.counted(answer)


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
