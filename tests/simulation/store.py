"""The other side of the wire: a token endpoint and an attendee store that fail as real ones do.

`Session` stands for aiohttp's at the one place where the engine opens one, so that its own OAuth client and its own
RainFocus client run unchanged. An exchange costs virtual time only.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Coroutine, Generator
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

import aiohttp
import anyio
import msgspec
from facts import Facts, Fields, Person
from knobs import Knobs

from engine.adapters.sessions import MeteredRequest
from engine.core.pace import Pace
from engine.testing.clock import VirtualClock

SILENCE_SECONDS = 2
PLAIN, LISTING = "plain27", "list27"
EVENTS = (PLAIN, LISTING)


class Answer(msgspec.Struct):
    """What is sent back. `breaks`: in the middle of the body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}
    breaks: bool = False
    stored: list[tuple[str, str]] = []  # (event code, e-mail)

    async def read(self) -> bytes:
        if self.breaks:
            raise aiohttp.ClientPayloadError("the connection was lost")
        return self.body

    async def wait_for_close(self) -> None:
        """The connection is free."""

    def close(self) -> None:
        """The connection is closed."""


class Exchange:
    """A request that is made when it is awaited or entered, as aiohttp's."""

    def __init__(self, making: Any) -> None:
        self._making = making

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._making.__await__()  # type: ignore[no-any-return]

    async def __aenter__(self) -> Answer:
        return await self._making

    async def __aexit__(self, *_: object) -> None:
        """Nothing to give back."""


class Connection:
    def __init__(self, *, closed: bool) -> None:
        self.closed = closed

    def release(self) -> None:
        """Back to the pool."""


class Session:
    """Of one process with the one account."""

    def __init__(self, other_side: OtherSide) -> None:
        self._other_side = other_side

    def post(self, url: Any, *, data: Any, headers: dict[str, str], **options: Any) -> Exchange:
        if str(url).endswith("/token"):
            return Exchange(self._other_side.token())
        return Exchange(self._store(data, headers, options["middlewares"][0]))

    async def _store(self, data: Any, headers: dict[str, str], attach: Any) -> Answer:
        request = MeteredRequest.__new__(MeteredRequest)

        async def transmit(request: MeteredRequest) -> Answer:
            body = data if isinstance(data, bytes) else data.read()
            return await self._other_side.store(body, headers["Authorization"].removeprefix("Bearer "), request.attempt)

        return await attach(request, transmit)  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Nothing is open."""


class OtherSide:
    """RainFocus. `stored`: event code -> e-mail -> what it holds."""

    def __init__(self, knobs: Knobs, facts: Facts) -> None:
        self.knobs, self.facts = knobs, facts
        self.random = random.Random(f"other side {knobs.seed}")
        self.faulty = True
        self.process: object = None
        self.stored: dict[str, dict[str, Fields]] = {event: {} for event in EVENTS}
        self.landed: dict[tuple[str, str], int] = {}  # how many events of the person are in what was stored last
        self.under_way: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()  # since a process was told that something was stored
        self._told: Counter[tuple[str, str]] = Counter()  # failures before that, if it was told of this process
        self._tokens: dict[str, float] = {}  # -> valid until
        self._token_requests = 0
        self._given = 0
        self._own_limit = Pace(knobs.rate * (knobs.strictness or 1.0), knobs.burst, -1e9)

    def boot(self, process: object) -> None:
        """The process before may have died with a success that it had not written down: its attendees have failed as
        often as a held copy says, once more and they may be given up."""
        self.process, self._token_requests = process, 0
        self.failures += self._told
        self._told.clear()

    def _chance(self, name: str) -> bool:
        return self.faulty and self.random.random() < getattr(self.knobs, name)

    def _way(self) -> float:
        return self.random.uniform(0.0, self.knobs.way_seconds)

    # -- tokens ---------------------------------------------------------------------------------------------------

    async def token(self) -> Answer:
        process = self.process
        self.facts.leaves("token")
        self._token_requests += 1
        if self._token_requests > 1:
            self.facts.broken("one token refresh at a time", f"{self._token_requests} at once")
        try:
            await anyio.sleep(self.random.uniform(0.0, self.knobs.token_way_seconds))
        finally:
            if process is self.process:
                self._token_requests -= 1
        if self._chance("token_fails"):
            return self._failed_token()
        self._given += 1
        token = f"tok-{self._given}"
        self._tokens[token] = anyio.current_time() + self.knobs.token_seconds
        self.facts.seen["token"] += 1
        return Answer(200, msgspec.json.encode({"access_token": token, "expires_in": self.knobs.token_seconds}))

    def _failed_token(self) -> Answer:
        self.facts.seen["token failed"] += 1
        kind = self.random.choice(["connection", "503", "429", "garbled"])
        if kind == "connection":
            raise aiohttp.ClientConnectionError("refused")
        if kind == "garbled":
            return Answer(200, b"<html>")
        return Answer(int(kind), headers={"Retry-After": "1"} if kind == "429" else {})

    def _takes(self, token: str) -> bool:
        if self._chance("revoked"):
            self.facts.seen["revoked"] += 1
            self._tokens.clear()
        return anyio.current_time() < self._tokens.get(token, 0.0)

    # -- one request ----------------------------------------------------------------------------------------------

    async def store(self, body: bytes, token: str, attempt: Any) -> Answer:
        await anyio.sleep(self.random.choice([0.0, 0.0, self.random.uniform(0.0, self.knobs.connect_seconds)]))
        records = self._records(body)
        if self._chance("refused"):
            self.facts.seen["refused"] += 1
            self._note_failure(records)
            raise aiohttp.ClientConnectionError("refused")
        closed = self._chance("closed")
        if closed:
            self._note_failure(records)
        await attempt.begin(Connection(closed=closed))
        return await self.received(body, token)

    def received(self, body: bytes, token: str) -> Coroutine[Any, Any, Answer]:
        """The first byte of a request is handed to the socket now; what is awaited is the rest of it."""
        self.facts.leaves("store")
        records = self._records(body)
        people = [(record["event"], record["email"]) for record in records]
        self._begin(people)
        return self._carried_out(records, people, token)

    async def _carried_out(self, records: list[Fields], people: list[tuple[str, str]], token: str) -> Answer:
        try:
            return await self._exchange(records, token)
        finally:
            self.under_way.subtract(people)

    def _records(self, body: bytes) -> list[Fields]:
        decoded = msgspec.json.decode(body)
        return decoded if isinstance(decoded, list) else [decoded]

    def _begin(self, people: list[tuple[str, str]]) -> None:
        self.facts.begins("store")
        self.under_way.update(people)
        if twice := [one for one in people if self.under_way[one] > 1]:
            self.facts.broken("one lease a key", f"{twice[0]} is under way twice")

    async def _exchange(self, records: list[Fields], token: str) -> Answer:
        if self._chance("reset_before"):
            return await self._cut_off(records, token, lands=False)
        try:
            await anyio.sleep(self._way())
        except asyncio.CancelledError:
            self.facts.seen["cut off"] += 1
            self._maybe_land_late(records, token)
            raise
        if self._chance("silence"):
            await self._be_silent(records, token)
        answer = self._answer(records, token)
        if self._chance("reset_after"):
            return await self._cut_off(records, token, lands=None)
        await anyio.sleep(self._way())
        self._tell_silence(answer)
        for one in () if answer.breaks else answer.stored:
            self._told[one] += self.failures.pop(one, 0)
        return answer

    async def _cut_off(self, records: list[Fields], token: str, *, lands: bool | None) -> Answer:
        """`lands` None: it has landed already."""
        await anyio.sleep(self._way())
        self.facts.seen["reply lost" if lands is None else "reset"] += 1
        self._note_failure(records)
        if lands is not None:
            self._maybe_land_late(records, token)
        raise aiohttp.ClientOSError("reset")

    async def _be_silent(self, records: list[Fields], token: str) -> None:
        self.facts.seen["silence"] += 1
        self._note_failure(records)
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            self._maybe_land_late(records, token)
            raise

    def _maybe_land_late(self, records: list[Fields], token: str) -> None:
        if self.random.random() < self.knobs.late:
            self.facts.seen["landed late"] += 1
            delay = self.random.uniform(0.0, self.knobs.hold_seconds * 0.9)
            asyncio.get_running_loop().call_later(delay, self._carry_out, records, token)

    def _tell_silence(self, answer: Answer) -> None:
        """The moment at which the other side begins to wait for it."""
        value = answer.headers.get("Retry-After")
        if value:
            self.facts.seen["pause"] += 1
            date = parsedate_to_datetime(value).timestamp() - VirtualClock().epoch if not value.isdigit() else None
            self.facts.ask_for_silence(anyio.current_time() + float(value) if date is None else date)

    # -- what it says ---------------------------------------------------------------------------------------------

    def _answer(self, records: list[Fields], token: str) -> Answer:
        if not self._takes(token):
            self.facts.seen["unauthorized"] += 1
            return Answer(401)
        if self._chance("busy"):
            self._note_failure(records)
            return Answer(503, b"<html>", self._retry_after(0.3))
        if self._chance("throttled") or self._is_over_its_own_limit():
            self._note_failure(records)
            return Answer(429, b"", self._retry_after(1.0))
        if self._chance("forbidden"):
            self.facts.seen["forbidden"] += 1
            return Answer(403)
        answer = self._carry_out(records, token)
        if self._chance("garbled"):
            self.facts.seen["garbled"] += 1
            self._refuse(records)
            return Answer(200, b"<html>")
        answer.breaks = self._chance("half_reply")
        if answer.breaks:
            self._note_failure(records)
        return answer

    def _is_over_its_own_limit(self) -> bool:
        now = anyio.current_time()
        if not self.faulty or not self.knobs.strictness:
            return False
        if self._own_limit.wait_seconds(now):
            return True
        self._own_limit.note(now)
        return False

    def _retry_after(self, chance: float) -> dict[str, str]:
        if self.knobs.retry_after == "none" or self.random.random() >= chance:
            return {}
        if self.knobs.retry_after == "date":
            return {"Retry-After": formatdate(int(VirtualClock().time()) + SILENCE_SECONDS, usegmt=True)}
        return {"Retry-After": str(SILENCE_SECONDS)}

    def _carry_out(self, records: list[Fields], token: str) -> Answer:
        results = [self._judged(record) for record in records]
        bad = [record for record, code in zip(records, results, strict=True) if code != "0"]
        several, tells = len(records) > 1, self.knobs.tells_results
        if bad and several and not tells:
            self.facts.seen["refused as a whole"] += 1
            return Answer(200, b'{"responseCode":"27","responseMessage":"one of them"}')
        good = [record for record, code in zip(records, results, strict=True) if code == "0"]
        for record in good:
            self._land(record)
        self._refuse(bad)
        stored = [(record["event"], record["email"]) for record in good]
        envelopes = [{"responseCode": code, "responseMessage": "", "attendeeId": "a1"} for code in results]
        whole = {"responseCode": "27" if bad else "0", "results": envelopes} if several and tells else envelopes[0]
        return Answer(200, msgspec.json.encode(whole), stored=stored)

    def _judged(self, record: Fields) -> str:
        if not self.faulty or not self.knobs.poison:
            return "0"
        text = f"{self.knobs.seed} {record['email']} {record.get('version', record.get('city'))}"
        draw = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32
        return "27" if draw < self.knobs.poison else "0"

    # -- what becomes of people -----------------------------------------------------------------------------------

    def _person(self, record: Fields) -> tuple[str, str, Person, int]:
        """(event, e-mail, person, how many of its events this record is made of)."""
        event, email = record["event"], record["email"]
        person = self.facts.people[email]
        version = int(record.get("version", 0))
        return event, email, person, person.index_after(version) if version else len(person.events)

    def _land(self, record: Fields) -> None:
        event, email, person, reached = self._person(record)
        before = self.landed.get((event, email), 0)
        if "version" in record:
            self._check_order(event, email, before, reached)
        self.landed[event, email] = max(before, reached)
        stored = self.stored[event].setdefault(email, {})
        stored |= {name: value for name, value in record.items() if name not in ("email", "event")}
        if "version" in stored:
            stored["version"] = int(stored["version"])
            if not person.outside(event) and stored != person.states[reached]:
                self.facts.broken("never an older state", f"{event} {email}: {stored} is not {person.states[reached]}")

    def _check_order(self, event: str, email: str, before: int, reached: int) -> None:
        if reached < before:
            self.facts.broken("never an older state", f"{event} {email}: event {reached} after {before}")
        self.facts.seen["duplicate" if reached == before else "stored"] += 1
        self.facts.seen["superseded"] += reached > before + 1

    def _refuse(self, records: list[Fields]) -> None:
        """Told to be the record's fault: it may end as a dead letter, with all that was merged into it."""
        for record in records:
            event, email, person, reached = self._person(record)
            self.facts.seen["rejected"] += 1
            person.give_up(event, self._base(event, email, record), reached)

    def _note_failure(self, records: list[Fields]) -> None:
        """As often as `max_attempts` in a row, and it may be given up."""
        for record in records:
            event, email, person, reached = self._person(record)
            self.failures[event, email] += 1
            if self.failures[event, email] >= self.knobs.max_attempts:
                self.facts.seen["given up"] += 1
                person.give_up(event, self._base(event, email, record), reached)

    def _base(self, event: str, email: str, record: Fields) -> int:
        return self.landed.get((event, email), 0) if "version" in record else 0
