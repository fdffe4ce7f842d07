"""Events in without a task: for a body that is here in one piece, not compressed, from whoever waits for the disk only.
What is not like that goes through `Ingress.handle`, with the same answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from engine.adapters.http_ingress.access import Head
from engine.adapters.http_ingress.admission import Admission, Admitted
from engine.adapters.http_ingress.answers import Answers, fault_of
from engine.adapters.http_ingress.body import PARSE_INLINE_BYTES, Bodies
from engine.adapters.http_ingress.commits import Commits
from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.request import POST_PROFILES, IngressAnswer, IngressRequest
from engine.config import IngressConfig
from engine.metrics import Metrics
from engine.profiles.formats import Parsed

BODY_BYTES = PARSE_INLINE_BYTES // 2
"""Larger ones may come in pieces for a while, where their bytes are counted and the rest of the loop gets its turn."""

NOTHING_READ = Parsed()

Answered = Callable[[IngressAnswer], None]


class Direct:
    """`share`: of the time to answer in, that a commit may take."""

    def __init__(
        self,
        config: IngressConfig,
        admission: Admission,
        bodies: Bodies,
        commits: Commits,
        answers: Answers,
        metrics: Metrics,
        *,
        share: float,
    ) -> None:
        self._admission, self._bodies, self._commits = admission, bodies, commits
        self._answers, self._metrics = answers, metrics
        self._seconds = config.answer_timeout_seconds * share
        self._most_bytes = min(BODY_BYTES, config.max_body_bytes)

    def takes(self, headers: Mapping[str, str], length: int) -> bool:
        """Whether a request with these headers, found by lower-case name, can go this way."""
        asks_for_more = "content-encoding" in headers or "prefer" in headers or "expect" in headers
        return 0 < length <= self._most_bytes and not asks_for_more and "transfer-encoding" not in headers

    def admit(self, head: Head, query: Mapping[str, str], last: Admitted | None = None) -> Admitted | IngressAnswer:
        """What `take` needs; or the refusal, for which no body need be read. `last`: what came of the same head and
        query before."""
        try:
            again = self._admission.again(head, last) if last is not None else None
            return again or self._admission.of_producer(IngressRequest(head, query))
        except Exception as error:
            return self._refused(error, head)

    def take(self, admitted: Admitted, head: Head, body: bytes, mount: str, answered: Answered) -> None:
        """`POST /v1/profiles`. `answered` is called once, perhaps at once; the commit goes on whether or not somebody
        still wants the answer."""
        started = time.monotonic()

        def told(result: str | Exception) -> None:
            self._metrics.ack_seconds.observe(time.monotonic() - started)
            answered(self._answer(result, parsed, head, mount))

        parsed = NOTHING_READ
        try:
            parsed = self._bodies.parse_here(body, admitted.media_type, admitted.reader)
            if parsed.events:
                self._commits.store(parsed.events, admitted, started + self._seconds, told)
                return
        except Exception as error:
            told(error)
        else:
            told("")

    def _answer(self, result: str | Exception, parsed: Parsed, head: Head, mount: str) -> IngressAnswer:
        if isinstance(result, Exception):
            return self._refused(result, head)
        return self._answers.counted(self._answers.accepted(parsed, result or None, mount))

    def _refused(self, error: Exception, head: Head) -> IngressAnswer:
        problem = error if isinstance(error, Problem) else fault_of(error, POST_PROFILES)
        return self._answers.counted(self._answers.refused(problem, head, POST_PROFILES))


class Admitting:
    """The door of one connection, where most requests have the head that the last one had."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        self._last: tuple[Head, Mapping[str, str], Admitted] | None = None

    def admit(self, head: Head, query: Mapping[str, str]) -> Admitted | IngressAnswer:
        """See `Direct.admit`."""
        last = self._last
        if last is not None and last[0] is head and last[1] is query:
            return self._direct.admit(head, query, last[2])
        admitted = self._direct.admit(head, query)
        if not isinstance(admitted, IngressAnswer):
            self._last = (head, query, admitted)
        return admitted
