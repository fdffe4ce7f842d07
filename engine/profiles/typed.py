"""The short way for records as most producers write them: text only, nothing to correct.

Typed decoding, a few searches in the encoded content, one hash. Whatever is not plainly in order is left to `records`,
which says what a record means; property tests hold the two together. Records are taken together where there are many:
what has to be searched is searched once for all of them, and if anything is odd, each is looked at alone.

A decoder keeps the last of two equal keys, so that less is written again than was read: that no key stands twice is
seen by length, or, where there is white space or a letter was escaped, by the number of quotes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
from msgspec import UNSET

from engine.model import Consent, Event, Membership, Trait
from engine.profiles.audiences import audience_id, keep_newest, membership_of, parse_time
from engine.profiles.consents import ConsentParser
from engine.profiles.countries import COUNTRIES, STATES
from engine.profiles.identity import key_of, normalise_email
from engine.profiles.json_exact import MAX_RECORD_BYTES
from engine.profiles.typed_consents import TypedConsents
from engine.profiles.typed_rules import TypedRules
from engine.profiles.typed_tree import Member, Text, Tree, attributes, members, struct_type

_EMAIL = int(Trait.EMAIL)  # plain numbers: joining IntFlags costs as much as decoding
_FOREIGN = int(Trait.EMAIL | Trait.FOREIGN_STATE)
_untrimmed = re.compile(rb' (?:"|(?<=" ))').search  # begins with the rarer character, which is faster to find
_ASCII = bytes(range(128))
_FIRST_TO_COMPOSE = "\u0300"
"""Below it NFC changes nothing."""

_NOTHING = frozenset({b"null", b'""'})

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_time = msgspec.json.Decoder(str | float | None).decode
known_audience_id = lru_cache(4096)(audience_id)


class Standing(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One entry of ``audiences``."""

    status: str
    lastQualificationTime: str  # as AEP writes it


class Typed(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The fields in canonical order, absent and null alike; after them a reader's extra fields, and what rules ask."""

    email: str | None = None
    firstname: Text = None
    lastname: Text = None
    companyname: Text = None
    jobtitle: Text = None
    phone: Text = None
    address1: Text = None
    address2: Text = None
    city: Text = None
    state: Text = None
    zip: Text = None
    countryid: Text = None
    audiences: dict[str, Standing] | None = None
    timestamp: msgspec.Raw | msgspec.UnsetType = UNSET
    consents: msgspec.Raw | msgspec.UnsetType = UNSET


class NotPlain(ValueError):
    """The exact path has to judge."""


class TypedPath:
    """Reads records of the fields above and of `extra` (sorted), and what `rules` take from the paths of `tree`."""

    def __init__(
        self,
        extra: list[str],
        by_time: bool,
        *,
        rules: TypedRules | None = None,
        tree: Tree | None = None,
        consents: ConsentParser | None = None,
    ) -> None:
        looked_at = members(tree or {})
        self._looked_at = [(attribute, default) for attribute, _, default in looked_at]
        record = record_type(extra, tree or {}, looked_at)
        self._decode: Any = msgspec.json.Decoder(record).decode
        self._decode_all: Any = msgspec.json.Decoder(list[record]).decode  # type: ignore[valid-type]
        self._encode = msgspec.json.Encoder().encode
        self._by_time, self._rules = by_time, rules
        self._consents = None if consents is None else TypedConsents(consents)
        self._names = frozenset(field.encode_name for field in msgspec.structs.fields(record))

    def read(self, raw: bytes) -> Event | None:
        """The event of this record, or None when the exact path has to judge it."""
        events = self.read_all((raw,))
        return events[0] if events else None

    def read_all(self, raws: Sequence[bytes]) -> list[Event] | None:
        """The events of these records, if none of them needs a closer look."""
        if max(map(len, raws)) > MAX_RECORD_BYTES:
            return None
        try:
            return self._together(list(map(self._decode, raws)), raws, sum(map(len, raws)) + len(raws) + 1)
        except (ValueError, RecursionError):
            return None

    def read_spoken(self, raws: Sequence[bytes]) -> list[Event] | None:
        """The same of records of which some hold null or "" where that is as good as absent."""
        spoken = self._spoken(raws) if any(map(_may_say_nothing, raws)) else None
        return self.read_all(spoken) if spoken else None

    def read_array(self, body: bytes) -> list[Event] | None:
        """The same of a JSON array that is small enough to be decoded at once."""
        try:
            records = self._decode_all(body)
            return self._together(records, (body,), len(body)) if records else None
        except (ValueError, RecursionError):
            return None

    def _spoken(self, raws: Sequence[bytes]) -> list[bytes] | None:
        """The records without what says nothing, under the names that are looked at."""
        encode, names = self._encode, self._names
        try:
            records = list(map(_members, raws))
        except (ValueError, RecursionError):
            return None
        if not _nothing_lost([encode(records)], raws):
            return None
        return [
            encode({name: raw for name, raw in it.items() if name not in names or bytes(raw) not in _NOTHING})
            for it in records
        ]

    def _together(self, records: list[Typed], raws: Sequence[bytes], size: int) -> list[Event] | None:
        """`size`: that of an array of the records, if nothing in `raws` could be written shorter. Raises ValueError
        where one is not plain."""
        encode, rules, events, again = self._encode, self._rules, list[Event](), list[bytes]()
        for record in records:
            written = b""  # the record as it was read
            if rules:
                written = encode(record)
                self._apply(rules, record)
            email = normalise_email(record.email) if record.email else None
            if email is None:
                return None
            if email != record.email:
                record.email, size = email, -1
            audiences = timestamp = consents = None
            if record.audiences is not None or record.timestamp is not UNSET or record.consents is not UNSET:
                written = written or encode(record)
                audiences, timestamp, consents = self._aside(record)
            content = encode(record)
            again.append(written or content)
            traits = traits_at(record.countryid, record.state)
            events.append(Event(key_of(email), content, traits, audiences, timestamp, consents=consents))
        plain = _nothing_lost(again, raws, size) and clean(b",".join([event.content for event in events]))
        return events if plain else None

    def _apply(self, rules: TypedRules, record: Typed) -> None:
        """Put what the rules find under the fields' names, and take away what they looked at."""
        found = rules.find(record)
        for attribute, default in self._looked_at:
            setattr(record, attribute, default)
        for attribute, value in found:
            if value:
                setattr(record, attribute, value)

    def _aside(self, record: Typed) -> tuple[dict[str, Membership] | None, float | None, dict[str, Consent] | None]:
        """What is kept beside the content, and the record without it. Raises ValueError."""
        audiences = None if not record.audiences else _standing(record.audiences)
        timestamp = None
        if self._by_time and record.timestamp is not UNSET:
            timestamp = time_of(_time(record.timestamp))
        consents = None
        if self._consents is not None and record.consents is not UNSET:
            consents = self._consents.read(record.consents, timestamp)
        record.audiences, record.timestamp, record.consents = None, UNSET, UNSET
        return audiences, timestamp, consents


def record_type(extra: Iterable[str], tree: Tree, looked_at: list[Member]) -> type[Typed]:
    """`Typed` with these fields, and members for what rules look at."""
    names = fields_of(extra)
    rename = {attribute: name for name, attribute in {**names, **attributes(tree)}.items()}
    record = struct_type("Record", [*((names[name], Text, None) for name in extra), *looked_at], rename, Typed)
    return cast("type[Typed]", record)


def fields_of(extra: Iterable[str]) -> dict[str, str]:
    """Extra field -> the attribute that holds it."""
    return {name: f"extra_{number}" for number, name in enumerate(extra)}


def time_of(given: str | float | None) -> float | None:
    """Of an event, for sources that go by it. Raises ValueError."""
    return None if given is None or given == "" else parse_time(given)


def escapes_quotes(raw: bytes) -> bool:
    """With an escaped quote the counts mean nothing."""
    return b"\\" in raw and (b'\\"' in raw or b"\\u0022" in raw)


def _standing(entries: dict[str, Standing]) -> dict[str, Membership]:
    found = [
        (known_audience_id(name), membership_of(it.status, it.lastQualificationTime)) for name, it in entries.items()
    ]
    standing = dict(found)
    if len(standing) < len(found):  # one of them is written in two ways
        standing.clear()
        for audience, membership in found:
            keep_newest(standing, audience, membership)
    return standing


@lru_cache(4096)
def traits_at(country: str | None, state: str | None) -> int:
    """Raises NotPlain for a country or a state that is not as it would be kept."""
    if country is not None and country not in COUNTRIES:
        raise NotPlain
    if state is None:
        return _EMAIL
    codes = STATES.get(country or "US")
    if codes is None:
        return _FOREIGN
    if state not in codes:
        raise NotPlain
    return _EMAIL


def _may_say_nothing(raw: bytes) -> bool:
    """Whether some member of the record may be null or ""."""
    return any(nothing in raw for nothing in _NOTHING)


def _nothing_lost(again: Sequence[bytes], raws: Sequence[bytes], size: int = -1) -> bool:
    """Whether the records as they are written again hold all that was read. What is equal in length is equal: no text
    and no key is written longer than it was read."""
    if sum(map(len, again)) + len(again) + 1 == size:
        return True
    return not any(map(escapes_quotes, raws)) and _quotes(again) == _quotes(raws)


def _quotes(raws: Sequence[bytes]) -> int:
    return sum(raw.count(b'"') for raw in raws)


def clean(contents: bytes) -> bool:
    """Whether every value is as the exact path would leave it: trimmed, printable, NFC; none is empty. `contents` is
    that of the events, joined."""
    if _untrimmed(contents) or b"\\" in contents or b"\x7f" in contents:  # other controls are written escaped
        return False
    if contents.isascii():
        return True
    letters = contents.translate(None, _ASCII).decode()
    composed = max(letters) < _FIRST_TO_COMPOSE or unicodedata.is_normalized("NFC", contents.decode())
    return letters.isprintable() and composed
