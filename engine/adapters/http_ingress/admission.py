"""Who sends events, as what they enter the journal, and whether they may: all that is known before a body is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from engine.adapters.http_ingress.access import Access, Caller, Head
from engine.adapters.http_ingress.body import BodyReader
from engine.adapters.http_ingress.problems import Problem, problem_of
from engine.adapters.http_ingress.request import IngressRequest, lane_of, media_type, require_rainfocus, source_of
from engine.model import Lane
from engine.ports import Intake

SCOPE = "profiles:write"


class Admitted(msgspec.Struct, frozen=True):
    """One request whose body may come in: how it is read, and where its events go."""

    caller: Caller
    intake: Intake
    media_type: str
    reader: BodyReader
    source: str
    lane: Lane


class Admission:
    """See `Ingress`."""

    def __init__(
        self,
        readers: Mapping[str, tuple[BodyReader, Lane]],
        changes: BodyReader,
        intake: Callable[[], Intake],
        access: Access,
    ) -> None:
        self._readers, self._changes = readers, changes
        self._intake, self._access = intake, access

    def of_producer(self, request: IngressRequest) -> Admitted:
        """Raises Problem."""
        caller = self._access.require(request.head, SCOPE)
        kind = media_type(request.head.headers)
        source = source_of(request.query, caller, self._readers)
        reader, lane = self._readers[source]
        return Admitted(caller, self._open(caller), kind, reader, source, lane_of(request.query, lane))

    def again(self, head: Head, last: Admitted) -> Admitted | None:
        """As `of_producer`, of another request with this head and the query of `last`; None when it has to be asked,
        since the caller is another one now. Who it is and whether it may is looked at every time. Raises Problem."""
        if self._access.require(head, SCOPE) is not last.caller:
            return None
        intake = self._open(last.caller)
        return last if intake is last.intake else msgspec.structs.replace(last, intake=intake)

    def of_rainfocus(self, request: IngressRequest) -> Admitted:
        """Changes are control events: without a source, so that every destination judges them one by one. Raises
        Problem."""
        caller = self._access.require(request.head, SCOPE)
        require_rainfocus(caller)
        kind = media_type(request.head.headers, csv=False)
        return Admitted(caller, self._open(caller), kind, self._changes, "", Lane.LIVE)

    def _open(self, caller: Caller) -> Intake:
        intake = self._intake()
        refusal = intake.refusal()
        if refusal is not None:
            raise problem_of(refusal)
        self.spend(caller, 0)
        return intake

    def spend(self, caller: Caller, events: int) -> None:
        """Take them from the caller's quota. Raises Problem."""
        wait = self._access.keys.take(caller.name, events)
        if wait > 0:
            raise Problem("quota", "this key has used up its events per second", retry_after_seconds=wait)

    def give_back(self, caller: Caller, events: int) -> None:
        """They were not stored after all."""
        self._access.keys.take(caller.name, -events)
