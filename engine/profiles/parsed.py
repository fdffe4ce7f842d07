"""What reading a body gives: the events, and by record what was refused and what was dropped."""

from __future__ import annotations

import msgspec

from engine.model import Event, Rejection
from engine.profiles.identity import mask

MAX_UNKNOWN_FIELDS = 100
"""Rows for unknown fields that one body gets in `dropped`; beyond that they are only counted."""

_MAX_NAME_LENGTH = 64


class BodyUnreadable(ValueError):
    """Nothing of the body can be used. `place` is a line or a byte; neither part quotes the body."""

    def __init__(self, detail: str, place: str = "") -> None:
        super().__init__(f"{detail} ({place})" if place else detail)
        self.detail = detail
        self.place = place


class TooManyEvents(ValueError):
    """The body holds more than `limit` records. None of them is used."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} records in one body")
        self.limit = limit


class Parsed(msgspec.Struct):
    """`events[i]` was made of record `indexes[i]`. Records count from 0 in the order of the body."""

    events: list[Event] = []
    rejected: list[Rejection] = []
    dropped: list[Rejection] = []
    records: int = 0
    indexes: list[int] = []
    unknown_fields: int = 0  # all of them, listed in `dropped` or not
    unlisted: dict[str, int] = {}  # reason -> what was dropped beside `dropped`
    listed: set[tuple[str, str]] = set()  # (field, reason) of what AEP's profiles carry beside what is used

    def add(self, index: int, event: Event) -> None:
        self.events.append(event)
        self.indexes.append(index)

    def add_all(self, events: list[Event]) -> None:
        """One event a record: of the next ones of the body."""
        self.events += events
        self.indexes += range(self.records, self.records + len(events))
        self.records += len(events)

    @classmethod
    def of(cls, events: list[Event]) -> Parsed:
        """Of a body in which every record was in order."""
        return cls(events=events, indexes=list(range(len(events))), records=len(events))

    def reject(self, index: int, field: str, reason: str) -> None:
        self.rejected.append(Rejection(index, _shown(field), reason))

    def drop(self, index: int, field: str, reason: str) -> None:
        self.dropped.append(Rejection(index, _shown(field), reason))

    def unknown(self, index: int, field: str) -> None:
        if self.unknown_fields < MAX_UNKNOWN_FIELDS:
            self.drop(index, field, "unknown_field")
        else:
            self._count("unknown_field")
        self.unknown_fields += 1

    def unused(self, index: int, field: str, reason: str) -> None:
        """Something that every profile of a producer may carry and nobody asked for: listed once a body, under the
        first record that has it, and counted every time."""
        if (field, reason) in self.listed or len(self.listed) == MAX_UNKNOWN_FIELDS:
            self._count(reason)
        else:
            self.listed.add((field, reason))
            self.drop(index, field, reason)
        self.unknown_fields += reason == "unknown_field"

    def _count(self, reason: str) -> None:
        self.unlisted[reason] = self.unlisted.get(reason, 0) + 1


def _shown(field: str) -> str:
    """A name that the producer chose, fit for an answer: short, printable, without an address."""
    if not field.isprintable():
        field = "".join(character if character.isprintable() else "?" for character in field)
    return mask(field[:_MAX_NAME_LENGTH]) if "@" in field else field[:_MAX_NAME_LENGTH]
