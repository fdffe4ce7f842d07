"""A destination in memory that does what its script says: for tests of the engine and of programs that embed it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import anyio
import msgspec

from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Permit


def ok(attendee_id: str = "") -> Verdict:
    return Verdict(VerdictKind.OK, attendee_id=attendee_id)


def reject(reason: str = "rejected") -> Verdict:
    return Verdict(VerdictKind.REJECT, reason)


def retry(reason: str = "http_503") -> Verdict:
    return Verdict(VerdictKind.RETRY, reason)


def unknown(reason: str = "timeout") -> Verdict:
    return Verdict(VerdictKind.UNKNOWN, reason)


class Step(msgspec.Struct):
    """What one request meets. `verdict` is for every profile of the batch, unless `verdicts` gives one each.

    `lands`: are the records stored? None: exactly those that are OK. `seconds`: how long the reply takes.
    """

    verdict: Verdict = Verdict(VerdictKind.OK)
    verdicts: list[Verdict] | None = None
    lands: bool | None = None
    seconds: float = 0.0
    retry_after_seconds: float | None = None
    throttled: bool = False

    def reply(self, batch: Batch) -> Reply:
        verdicts = self.verdicts if self.verdicts is not None else [self.verdict] * len(batch.profiles)
        kinds = {verdict.kind for verdict in verdicts}
        return Reply(
            verdicts,
            status=200 if kinds == {VerdictKind.OK} else 503,
            retry_after_seconds=self.retry_after_seconds,
            throttled=self.throttled,
            destination_fault=bool(kinds & {VerdictKind.RETRY, VerdictKind.UNKNOWN}),
        )


class Request(msgspec.Struct):
    """One request as it was handed to the wire. `at`: loop time."""

    at: float
    token: str
    records: list[bytes]


class FakeDestination:
    """Stores what it is sent, upserting field by field, and keeps every request.

    `script`: one step a request, in order; when it is used up every request succeeds. `answer` decides instead of the
    script when it is given. `stored`: e-mail -> fields, as a real attendee store would hold them.
    """

    def __init__(
        self,
        script: Iterable[Step] = (),
        *,
        profiles_per_request: int = 1,
        answer: Callable[[Batch], Step] | None = None,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.script = deque(script)
        self.answer = answer
        self.requests: list[Request] = []
        self.stored: dict[str, dict[str, object]] = {}
        self.in_flight: Counter[bytes] = Counter()  # requests under way, by key
        self.most_in_flight_of_a_key = 0
        self._now = now
        self._profiles_per_request = profiles_per_request

    def __repr__(self) -> str:
        return f"<FakeDestination [{len(self.requests)} requests | {len(self.stored)} attendees]>"

    @property
    def fingerprint(self) -> bytes:
        return b"fake"

    @property
    def profiles_per_request(self) -> int:
        return self._profiles_per_request

    def encode(self, profile: Profile, /) -> bytes:
        return profile.content

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        await permit.use()
        self.requests.append(Request(self._now(), permit.token, list(batch.records)))
        step = self.answer(batch) if self.answer is not None else self.script.popleft() if self.script else Step()
        with self.travelling(batch):
            await anyio.sleep(step.seconds)
            reply = step.reply(batch)
            for record, verdict in zip(batch.records, reply.verdicts, strict=True):
                if step.lands if step.lands is not None else verdict.kind == VerdictKind.OK:
                    self._store(record)
        return reply

    @contextmanager
    def travelling(self, batch: Batch) -> Iterator[None]:
        """Counts the batch's keys as under way. To be looked at afterwards: what is raised in `send` only makes the
        attempt's outcome unknown."""
        keys = [profile.key for profile in batch.profiles]
        self.in_flight.update(keys)
        self.most_in_flight_of_a_key = max(self.most_in_flight_of_a_key, *(self.in_flight[key] for key in keys))
        try:
            yield
        finally:
            self.in_flight.subtract(keys)
            self.in_flight = +self.in_flight

    def _store(self, record: bytes) -> None:
        fields = msgspec.json.decode(record, type=dict[str, object])
        self.stored.setdefault(str(fields["email"]), {}).update(fields)
