"""The stored attendees: upsert by (org id, event code, e-mail), and one digest over all of them. No I/O."""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import orjson

from engine.sandbox.validation import Record

WRITES_KEPT = 8
"""Digests of an attendee's last writes that are kept."""

_ALPHANUMERIC = string.ascii_letters + string.digits


class Write(msgspec.Struct, frozen=True):
    """One write as it arrived. `digest`: first 16 hex digits of the SHA-256 of its fields as sorted compact JSON."""

    at: float  # epoch seconds
    digest: str
    version: int | None


class Attendee(msgspec.Struct):
    """One stored attendee. Fields that a write does not carry keep their value."""

    serial: int  # order of creation, from 0
    org_id: str
    event: str
    email: str  # lower case
    key: str  # SHA-256 of `email`, hexadecimal
    attendee_id: str
    created_at: float  # epoch seconds
    modified_at: float
    fields: dict[str, str] = {}
    extra: dict[str, Any] = {}
    writes: int = 0
    version: int | None = None  # the highest `x_version` that arrived
    regressions: int = 0  # writes whose `x_version` was lower than one before
    last_writes: list[Write] = []


class AttendeeStore:
    """All attendees of one sandbox, in memory and without a limit.

    `created`, `updated` and `regressions` count writes since the start or the last `clear`.
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._last_id = (0, -1)  # epoch milliseconds, counter
        self.clear()

    def __len__(self) -> int:
        return len(self._in_order)

    def __iter__(self) -> Iterator[Attendee]:
        """In the order they were created."""
        return iter(self._in_order)

    def clear(self) -> None:
        self._by_address: dict[tuple[str, str], dict[str, Attendee]] = {}
        self._in_order: list[Attendee] = []
        self.created = self.updated = self.regressions = 0

    def get(self, org_id: str, event: str, email: str) -> Attendee | None:
        return self._by_address.get((org_id, event), {}).get(email.lower())

    def find(self, key: str) -> list[Attendee]:
        """All attendees with this e-mail hash (64 lower-case hex digits), over all orgs and events; reads them all."""
        return [attendee for attendee in self._in_order if attendee.key == key]

    def put(self, org_id: str, record: Record, now: float) -> Attendee:
        """Create or update; `now` is epoch seconds."""
        attendees = self._by_address.setdefault((org_id, record.event), {})
        attendee = attendees.get(record.email)
        if attendee is None:
            attendee = attendees[record.email] = self._create(org_id, record, now)
        else:
            self.updated += 1
        attendee.fields.update(record.fields)
        if record.extra:
            attendee.extra.update(record.extra)
        attendee.modified_at = now
        attendee.writes += 1
        self._note(attendee, record, now)
        return attendee

    def edit(self, attendee: Attendee, fields: Mapping[str, str], now: float) -> None:
        """Somebody changes an attendee in RainFocus itself: no write of the API."""
        attendee.fields.update(fields)
        attendee.modified_at = now

    def page(
        self, *, org_id: str = "", event: str = "", after: int | None = None, limit: int = 50, newest: bool = False
    ) -> list[Attendee]:
        """At most `limit` attendees behind the serial `after`, oldest or newest first; "" means any."""
        found: list[Attendee] = []
        for attendee in self._from(after, newest):
            if len(found) >= limit:
                break
            if org_id in ("", attendee.org_id) and event in ("", attendee.event):
                found.append(attendee)
        return found

    def digest(self, *, org_id: str = "", event: str = "") -> tuple[str, int]:
        """`fold_digest` of the attendees of an org and an event ("" means any), and how many they are."""
        chosen = [a for a in self._in_order if org_id in ("", a.org_id) and event in ("", a.event)]
        return fold_digest((a.org_id, a.event, a.email, a.fields | a.extra) for a in chosen), len(chosen)

    def _create(self, org_id: str, record: Record, now: float) -> Attendee:
        key = hashlib.sha256(record.email.encode()).hexdigest()
        attendee = Attendee(len(self._in_order), org_id, record.event, record.email, key, self._next_id(now), now, now)
        self._in_order.append(attendee)
        self.created += 1
        return attendee

    def _note(self, attendee: Attendee, record: Record, now: float) -> None:
        body = orjson.dumps(record.fields | record.extra, option=orjson.OPT_SORT_KEYS)
        attendee.last_writes.append(Write(now, hashlib.sha256(body).hexdigest()[:16], record.version))
        del attendee.last_writes[:-WRITES_KEPT]
        if record.version is None:
            return
        if attendee.version is not None and record.version < attendee.version:
            attendee.regressions += 1
            self.regressions += 1
        else:
            attendee.version = record.version

    def _next_id(self, now: float) -> str:
        """13 digits of epoch milliseconds, a 3-digit counter within one, 4 alphanumerics: the shape of RainFocus."""
        millisecond, counter = max((int(now * 1000), 0), (self._last_id[0], self._last_id[1] + 1))
        self._last_id = (millisecond, counter) if counter < 1000 else (millisecond + 1, 0)
        return f"{self._last_id[0]:013}{self._last_id[1]:03}{''.join(self._random.choices(_ALPHANUMERIC, k=4))}"

    def _from(self, after: int | None, newest: bool) -> Iterator[Attendee]:
        if newest:
            start = len(self._in_order) if after is None else min(after, len(self._in_order))
            return (self._in_order[serial] for serial in range(start - 1, -1, -1))
        return (self._in_order[serial] for serial in range(0 if after is None else after + 1, len(self._in_order)))


def fold_digest(attendees: Iterable[tuple[str, str, str, Mapping[str, Any]]]) -> str:
    """One SHA-256 (hex) over (org id, event code, e-mail, fields): compare it with what you expect to be stored.

    Fields are without `email`, `event` and `x_version`; e-mails are lower case; the order of `attendees` is free. Each
    is one line ``[org, event, email, {fields}]`` of compact JSON with sorted keys; lines stand in the order of the
    first three.
    """
    total = hashlib.sha256()
    for org_id, event, email, fields in sorted(attendees, key=lambda attendee: attendee[:3]):
        total.update(orjson.dumps([org_id, event, email, dict(fields)], option=orjson.OPT_SORT_KEYS))
        total.update(b"\n")
    return total.hexdigest()
