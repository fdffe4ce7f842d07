"""The short way for records as most producers write them: text only, nothing to correct.

Typed decoding, a few searches in the encoded content, one hash. Whatever is not plainly in order is left to `records`,
which says what a record means; property tests hold the two together. Records are taken together where there are many:
what has to be searched is searched once for all of them, and if anything is odd, each is looked at alone.

That no key stands twice is seen by counting: a decoder keeps the last of two, so that fewer quotes are written again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec

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
_keys_of_nulls = re.compile(rb'"([^"]*)": ?null').findall  # where no quote is escaped
_untrimmed = re.compile(rb' (?:"|(?<=" ))').search  # begins with the rarer character, which is faster to find
_ASIDE = {b"audiences", b"timestamp", b"consents"}

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
    timestamp: str | float | None = None
    consents: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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

    def read(self, raw: bytes) -> Event | None:
        """The event of this record, or None when the exact path has to judge it."""
        if len(raw) > MAX_RECORD_BYTES or escapes_quotes(raw):
            return None
        try:
            record: Typed = self._decode(raw)
            quotes, events = self._events([record])
        except (ValueError, RecursionError):
            return None
        content = events[0].content
        missing = raw.count(b'"') - quotes
        nulls = _keys_of_nulls(raw) if missing else ()
        if missing != 2 * len(nulls):
            return None  # some key stands twice
        if not clean(content, events) or (nulls and not _single(nulls, content)):
            return None
        return events[0]

    def read_all(self, raws: Sequence[bytes]) -> list[Event] | None:
        """The events of these records, if none of them needs a closer look."""
        try:
            if max(map(len, raws)) > MAX_RECORD_BYTES:
                return None
            return self._together(list(map(self._decode, raws)), sum(raw.count(b'"') for raw in raws), raws)
        except (ValueError, RecursionError):
            return None

    def read_array(self, body: bytes) -> list[Event] | None:
        """The same of a JSON array that is small enough to be decoded at once."""
        try:
            records = self._decode_all(body)
            return self._together(records, body.count(b'"'), (body,)) if records else None
        except (ValueError, RecursionError):
            return None

    def _together(self, records: list[Typed], quotes: int, raws: Sequence[bytes]) -> list[Event] | None:
        if any(map(escapes_quotes, raws)):
            return None
        counted, events = self._events(records)
        contents = b",".join([event.content for event in events])
        return events if counted == quotes and clean(contents, events) else None

    def _events(self, records: list[Typed]) -> tuple[int, list[Event]]:
        """(quotes of the records as they were decoded, their events). Raises ValueError where one is not plain."""
        encode, rules = self._encode, self._rules
        quotes = encode(records).count(b'"') if rules else 0
        events: list[Event] = []
        for record in records:
            if rules:
                self._apply(rules, record)
            email = normalise_email(record.email) if record.email else None
            if email is None:
                raise NotPlain
            record.email = email
            traits = traits_in_order(record)
            audiences = timestamp = consents = None
            if record.audiences is not None or record.timestamp is not None or record.consents is not msgspec.UNSET:
                quotes += 0 if rules else _quotes_aside(record)
                audiences, timestamp, consents = self._aside(record)
            content = encode(record)
            if not rules:
                quotes += content.count(b'"')
            events.append(Event(key_of(email), content, traits, audiences, timestamp, consents=consents))
        return quotes, events

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
        timestamp = time_of(record.timestamp) if self._by_time else None
        consents = None
        if self._consents is not None and record.consents is not msgspec.UNSET:
            consents = self._consents.read(record.consents, timestamp)
        record.audiences, record.timestamp, record.consents = None, None, msgspec.UNSET
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


def traits_in_order(record: Typed) -> int:
    """Raises NotPlain for a country or a state that is not as it would be kept."""
    country, state = record.countryid, record.state
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


def _quotes_aside(record: Typed) -> int:
    """How many quotes the audiences, the timestamp and the consents take, when no key stands twice in them."""
    quotes = 0 if record.audiences is None else 2 + 10 * len(record.audiences)
    if record.timestamp is not None:
        quotes += 4 if isinstance(record.timestamp, str) else 2
    if record.consents is not msgspec.UNSET:
        quotes += 2 + bytes(record.consents).count(b'"')
    return quotes


def _single(nulls: Sequence[bytes], content: bytes) -> bool:
    """Whether none of the keys that stand before a null stands anywhere else; False where that takes a closer look."""
    distinct = set(nulls)
    if len(distinct) < len(nulls) or distinct & _ASIDE:
        return False
    return not any(b"\\" in name or b'"' + name + b'":' in content for name in distinct)


def clean(contents: bytes, events: list[Event]) -> bool:
    """Whether every value is as the exact path would leave it: trimmed, printable, NFC; none is empty. `contents` is
    that of the events, joined."""
    if _untrimmed(contents) or b"\\" in contents or b"\x7f" in contents:  # other controls are written escaped
        return False
    if contents.isascii():
        return True
    return _is_printable(b"".join([event.content for event in events if not event.content.isascii()]).decode())


def _is_printable(text: str) -> bool:
    return text.isprintable() and unicodedata.is_normalized("NFC", text)
