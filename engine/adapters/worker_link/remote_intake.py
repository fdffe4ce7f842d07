"""`ports.Intake` in an ingress worker: packs events as the journal stores them and hands them to the core process.

An append is answered by the core once it is durable, and by nobody else: when the link ends, whoever waits hears that
the engine has stopped. A refusal of the core is remembered for a moment, so that bodies are not read in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from engine.adapters.worker_link.link import Link
from engine.adapters.worker_link.messages import (
    AppendHead,
    Callers,
    Count,
    Counted,
    Drain,
    Drained,
    Ended,
    Found,
    GiveUp,
    Open,
    Ready,
    Refused,
    Stored,
    ToCore,
    Wait,
    framed,
    framed_append,
    to_worker,
)
from engine.callbacks import call
from engine.core.codec import pack_events
from engine.core.receipts import receipt_id
from engine.errors import Overloaded, Stopped
from engine.model import Append

DRAINING_RETRY_SECONDS = 5.0
BUSY_RETRY_SECONDS = 2.0
REMEMBERED_SECONDS = 0.5
"""How long a refusal of the core stands for those that come after; then somebody asks again."""

OF_ALL = frozenset({"busy", "journal-full", "disk-full", "draining"})
"""Types of refusals that are about everybody, and not about one key or one request."""

UNANSWERED_EVENTS = 100_000
UNSENT_BYTES = 268_435_456
"""Of what the core has not answered, or not even read: beyond that producers are told to slow down."""


class _Unanswered(msgspec.Struct, eq=False):
    events: int
    owner: str
    told: Callable[[str | Exception], None]


class RemoteIntake(Link):
    """`journal_id`: of the core's journal. `callers`: told of others that may call now. `counts`: asked to tell what
    was counted. Of a receipt it knows what `settled` has brought last; everything else about receipts the core
    answers itself."""

    def __init__(
        self,
        journal_id: str,
        *,
        most_bytes: int,
        callers: Callable[[bytes], None],
        counts: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(most_bytes)
        self._journal_id, self._most_bytes, self._clock = journal_id, most_bytes, clock
        self._callers, self._counts = callers, counts
        self._number = 0
        self._unanswered: dict[int, _Unanswered] = {}
        self._unanswered_events = 0
        self._asked: dict[int, asyncio.Future[Found]] = {}
        self._reports: dict[str, dict[str, object]] = {}
        self._refusal: Overloaded | None = None
        self._refused_until = 0.0
        self._over: Stopped | None = None
        self.draining = asyncio.Event()

    # -- as `ports.Intake` ----------------------------------------------------------------------------------------

    def refusal(self) -> Overloaded | None:
        if self.draining.is_set() or self._over is not None:
            return Overloaded("draining", "the engine is stopping; another one will answer", DRAINING_RETRY_SECONDS)
        if self._refusal is not None and self._clock() < self._refused_until:
            return self._refusal
        if self._unanswered_events >= UNANSWERED_EVENTS or self.unsent_bytes >= UNSENT_BYTES:
            detail = "more events are waiting to be written than the disk takes in a moment"
            return Overloaded("busy", detail, BUSY_RETRY_SECONDS)
        return None

    def hand_in(self, append: Append, told: Callable[[str | Exception], None], /, *, owner: str = "") -> None:
        if self._over is not None:
            raise self._over
        packed, count = pack_events(append.events), len(append.events)
        number = self._next()
        parts = framed_append(AppendHead(number, append.source, owner, append.lane), packed)
        if len(packed) >= self._most_bytes:
            raise Overloaded("body-too-large", "the events are too large to be stored together; send fewer at once", 0)
        self._unanswered[number] = _Unanswered(count, owner, told)
        self._unanswered_events += count
        self.send(*parts)

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None:
        return self._reports.pop(id, None)

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool:
        if self._over is not None:
            raise self._over
        number, answer = self._next(), asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.tell(Wait(number, id, owner, timeout_seconds))
        try:
            found: Found = await answer
        finally:
            if self._asked.pop(number, None) is not None:
                self.tell(GiveUp(number))
        report = msgspec.json.decode(found.report)
        if report is not None:
            self._reports[id] = report
        return found.settled

    def _next(self) -> int:
        self._number += 1
        return self._number

    # -- to and from the core -------------------------------------------------------------------------------------

    def tell(self, message: ToCore) -> None:
        self.send(framed(message))

    def ready(self) -> None:
        """Events can come in."""
        self.tell(Ready())

    def has_open(self, connections: int) -> None:
        self.tell(Open(connections))

    def shut(self) -> None:
        """No append goes out any more: what is in is in, and the core hears that this was all."""
        self._over = self._over or Stopped("the engine is draining")
        self.tell(Drained())

    def got(self, kind: int, body: memoryview) -> None:
        message = to_worker(kind, body)
        if type(message) is Stored:
            for number, first in message.appends:
                self._answer(number, first)
        elif isinstance(message, Refused):
            self._refused(message)
        elif isinstance(message, Ended):
            self._answer(message.number, Stopped(message.detail))
        elif isinstance(message, Found):
            self._found(message)
        elif isinstance(message, Drain):
            self.draining.set()
        elif isinstance(message, Callers):
            self._callers(message.plan)
        elif isinstance(message, Count):
            self._counts()
            self.tell(Counted(message.number))

    def _answer(self, number: int, answer: int | Exception) -> None:
        unanswered = self._unanswered.pop(number, None)
        if unanswered is None:
            return
        self._unanswered_events -= unanswered.events
        if isinstance(answer, int):
            call(unanswered.told, receipt_id(self._journal_id, unanswered.owner, answer, unanswered.events))
        else:
            call(unanswered.told, answer)

    def _refused(self, message: Refused) -> None:
        refusal = Overloaded(message.problem, message.detail, message.retry_after_seconds)
        if message.problem in OF_ALL:
            self._refusal, self._refused_until = refusal, self._clock() + REMEMBERED_SECONDS
        self._answer(message.number, refusal)

    def _found(self, message: Found) -> None:
        asked = self._asked.pop(message.number, None)
        if asked is not None and not asked.done():
            asked.set_result(message)

    def lost(self) -> None:
        self._over = Stopped("the core process has ended")
        for number in [*self._unanswered]:
            self._answer(number, self._over)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(self._over)
                asked.exception()
        self._asked.clear()
