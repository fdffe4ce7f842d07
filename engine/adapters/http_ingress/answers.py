"""What a request for events is answered with, and what is counted of it."""

from __future__ import annotations

import logging
import random as random_module
import traceback

import msgspec

from engine.adapters.http_ingress.access import Access, Head
from engine.adapters.http_ingress.denials import Denied
from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.request import IngressAnswer
from engine.metrics import Metrics
from engine.model import Rejection
from engine.profiles.formats import Parsed

JSON_HEADERS = {"Content-Type": "application/json"}

logger = logging.getLogger("engine.http")


class _Accepted(msgspec.Struct):
    accepted: int
    rejected: list[Rejection]
    dropped: list[Rejection]
    receipt: str | None


_encode = msgspec.json.Encoder().encode


class Answers:
    def __init__(self, access: Access, metrics: Metrics, random: random_module.Random) -> None:
        self._access, self._metrics, self._random = access, metrics, random

    def accepted(
        self, parsed: Parsed, id: str | None, mount: str, more: dict[str, object] | None = None
    ) -> IngressAnswer:
        """`id`: of the receipt; None when nothing had to be stored. `more` stands beside it in the body."""
        self._count_records(parsed)
        report = _Accepted(len(parsed.events), parsed.rejected, parsed.dropped, id)
        body = _encode(report) if more is None else _encode(msgspec.structs.asdict(report) | more)
        headers = {**JSON_HEADERS, "Location": f"{mount}/v1/receipts/{id}"} if id else dict(JSON_HEADERS)
        status = 422 if parsed.rejected and not parsed.events else 207 if parsed.rejected else 202
        return IngressAnswer(status, headers, body)

    def _count_records(self, parsed: Parsed) -> None:
        for rejection in parsed.rejected:
            self._metrics.rejected(rejection.reason)
        for dropped in parsed.dropped:
            self._metrics.fields_dropped[dropped.reason] += 1
        if parsed.unlisted:
            self._metrics.fields_dropped.update(parsed.unlisted)

    def refused(self, problem: Problem, head: Head, operation: str) -> IngressAnswer:
        if isinstance(problem, Denied):
            self._access.note(problem, head, operation)
        return IngressAnswer(problem.status, problem.headers_with(self._random), problem.body())

    def counted(self, answer: IngressAnswer) -> IngressAnswer:
        self._metrics.answers[str(answer.status)] += 1
        return answer


def fault_of(error: Exception, operation: str) -> Problem:
    """Of something that must not happen: where it did is logged, without the exception's text and without the URL,
    either of which may hold data of a person."""
    logger.error("%s in %s\n%s", type(error).__name__, operation, "".join(traceback.format_tb(error.__traceback__)))
    return Problem("server-error", "the engine made a mistake; its log has the place")
