"""What really happened, and what had to come of it. Knows nothing of the engine but the events it made durable.

The judge's rules (DESIGN §3): every acknowledged event is durable; every attendee ends in the fold of its durable
events; an older state never arrives after a newer one; one request of a key at a time; the rate; the silence that was
asked for.

Events that were refused by the attendee store, or given up, or forgotten are outside the fold (promise 2): for a field
that one of them carried last, the attendee may hold that value or an earlier one, but nothing older than the last event
that was not among them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from typing import Any

import anyio
import msgspec

from engine.model import Event, Kind

SOON_SECONDS = 1e-4
"""What a reply may take from the socket to whoever keeps the silence."""

Fields = dict[str, Any]

EDITED = "edited at RainFocus"


class Person:
    """One attendee's durable events, in the journal's order, and which of them may be outside the fold."""

    def __init__(self) -> None:
        self.events: list[Fields] = []
        self.states: list[Fields] = [{}]  # after each
        self.forgotten_below = 0
        self.given_up: dict[str, set[int]] = {}  # destination -> indexes of events that may be outside its fold
        self.edits: list[int] = []  # indexes of what RainFocus itself has reported: in nobody's fold

    def add(self, fields: Fields) -> None:
        self.events.append(fields)
        self.states.append(self.states[-1] | fields)

    def edit(self) -> None:
        """RainFocus has reported a change. What it holds since then may stay, unless an event comes after it."""
        self.edits.append(len(self.events))
        self.add({"city": EDITED})

    def profiles_from(self, index: int) -> int:
        """How many of its events from this one on a producer has sent."""
        return len(self.events) - index - sum(edit >= index for edit in self.edits)

    def index_after(self, version: int) -> int:
        """How many of its events it takes to get to this version."""
        return next(
            (
                len(self.events) - back
                for back, one in enumerate(reversed(self.events))
                if one.get("version") == version
            ),
            0,
        )

    def outside(self, destination: str) -> set[int]:
        return self.given_up.get(destination, set()) | set(self.edits) | set(range(self.forgotten_below))

    def give_up(self, destination: str, after: int, through: int) -> None:
        self.given_up.setdefault(destination, set()).update(range(after, through))

    def may_hold(self, destination: str, stored: Fields) -> str:
        """What is wrong with this final state; "" when nothing is."""
        outside = self.outside(destination)
        for name in {*self.states[-1], *stored} - {"email"}:
            carriers = [(at, one[name]) for at, one in enumerate(self.events) if name in one]
            certain = [at for at, _ in carriers if at not in outside]
            allowed = {value for at, value in carriers if not certain or at >= certain[-1]}
            if name in stored and stored[name] not in allowed:
                return f"{name} is {stored[name]!r} and may be {sorted(map(str, allowed))}"
            if name not in stored and certain:
                return f"{name} is missing and has to be one of {sorted(map(str, allowed))}"
        return ""


class Facts:
    """Everything that is known about a run from outside. `violations` are broken promises, `seen` what was met."""

    def __init__(self) -> None:
        self.people: dict[str, Person] = {}
        self.emails: dict[bytes, str] = {}  # key -> e-mail
        self.acknowledged: set[tuple[str, int]] = set()  # (e-mail, version)
        self.violations: list[str] = []
        self.seen: Counter[str] = Counter()
        self.left_at: list[float] = []
        self.life = 0
        self._silence: list[tuple[int, float, float]] = []  # (life, from, until)
        self._reported: dict[bytes, list[str]] = {}  # key -> ids of its durable changes, in order
        self._excused: set[str] = set()  # ids of changes of somebody who was forgotten
        self._forwarded: dict[bytes, list[str]] = {}  # key -> ids as they were taken first
        self._awaited: tuple[str, asyncio.Event] = ("", asyncio.Event())

    def begins(self, what: str) -> None:
        """Something is under way now: a "commit", a "settle", or a request to the "store"."""
        if what == self._awaited[0]:
            self._awaited[1].set()

    async def until_begins(self, what: str) -> None:
        self._awaited = (what, asyncio.Event())
        await self._awaited[1].wait()

    def broken(self, promise: str, detail: str) -> None:
        self.violations.append(f"{promise}: {detail}")

    # -- the journal ----------------------------------------------------------------------------------------------

    def durable(self, event: Event) -> None:
        if event.kind == Kind.PROFILE:
            fields = msgspec.json.decode(event.content, type=Fields)
            email = str(fields.pop("email"))
            if "version" in fields:
                fields["version"] = int(fields["version"])
            self.emails[hashlib.sha256(email.encode()).digest()] = email
            self.people.setdefault(email, Person()).add(fields)
        elif event.kind == Kind.FORGET and (email := self.emails.get(event.key)):
            self.people[email].forgotten_below = len(self.people[email].events)
            self._excused.update(self._reported.get(event.key, ()))
        elif event.kind == Kind.CHANGE:
            (change,) = msgspec.json.decode(event.content, type=list[Fields])
            self._reported.setdefault(event.key, []).append(change["id"])
            self.people[self.emails[event.key]].edit()

    def check_acknowledged(self) -> None:
        durable = {(email, one.get("version")) for email, person in self.people.items() for one in person.events}
        if lost := self.acknowledged - durable:
            self.broken("acknowledged means durable", f"{len(lost)} lost, such as {min(lost)}")

    # -- what RainFocus reports -----------------------------------------------------------------------------------

    def forwarded(self, key: bytes, ids: list[str]) -> None:
        """Somebody has taken these changes of one person, oldest first."""
        known = self._forwarded.setdefault(key, [])
        known += [id for id in dict.fromkeys(ids) if id not in known]
        self.seen["forwarded"] += 1

    def check_forwarded(self) -> None:
        """At least once, in order: what was taken first came first. What was forgotten may be missing."""
        for key, reported in self._reported.items():
            taken = self._forwarded.get(key, [])
            owed = [id for id in dict.fromkeys(reported) if id in taken or id not in self._excused]
            if taken != owed:
                self.broken("every change is forwarded, in order", f"{taken} of {owed}")

    # -- the wire -------------------------------------------------------------------------------------------------

    def leaves(self, what: str) -> None:
        """A request is handed to the socket now."""
        now = anyio.current_time()
        if what == "store":
            self.left_at.append(now)
        for life, since, until in self._silence:
            if life == self.life and since + SOON_SECONDS < now < until:
                self.broken("no request inside a Retry-After window", f"{what} {now - since:.3f} s after it began")
        self._silence = [one for one in self._silence if one[2] > now]

    def ask_for_silence(self, until: float) -> None:
        """Of this process: one that dies at once has not written the pause down."""
        self._silence.append((self.life, anyio.current_time(), until))

    def pauses_are_durable(self, since_seconds: float) -> None:
        """The process dies. What it was asked for `since_seconds` ago or earlier it has written down."""
        now = anyio.current_time()
        self._silence = [
            (self.life + 1 if life == self.life and now - since >= since_seconds else life, since, until)
            for life, since, until in self._silence
        ]

    def check_rate(self, rate: float, burst: int) -> None:
        """In every window that begins and ends with a request."""
        ahead = float("inf")
        for number, at in enumerate(self.left_at):
            ahead = min(ahead, number - rate * at)
            over = number + 1 - rate * at - ahead - burst
            if over > 1e-6:
                self.broken("never over the limit", f"{over:.3f} requests too many at {at:.3f} s")
                return
