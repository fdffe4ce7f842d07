"""The short way for the record as most producers write it: flat, text only, nothing to correct.

One typed decoding, a few searches in the encoded content, one hash. Whatever is not plainly in order is left to
`records`, which says what a record means; a property test holds the two together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from engine.model import Event, Membership, Trait
from engine.profiles.audiences import audience_id, keep_newest, membership_of, parse_time
from engine.profiles.countries import COUNTRIES, STATES
from engine.profiles.fields import MAX_LENGTH
from engine.profiles.identity import key_of, normalise_email
from engine.profiles.json_exact import MAX_RECORD_BYTES

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LENGTH)] | None


_EMAIL = int(Trait.EMAIL)  # plain numbers: joining IntFlags costs as much as decoding
_FOREIGN = int(Trait.EMAIL | Trait.FOREIGN_STATE)
_keys_of_nulls = re.compile(rb'"([^"]*)": ?null').findall  # where no quote is escaped
_ASIDE = {b"audiences", b"timestamp"}


class Standing(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One entry of ``audiences``."""

    status: str
    lastQualificationTime: str  # as AEP writes it


class Typed(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The fields in canonical order, absent and null alike; after them a reader's extra fields."""

    email: str
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


class TypedPath:
    """Reads records of the fields above and of `extra` (sorted)."""

    def __init__(self, extra: list[str], by_time: bool) -> None:
        names = {f"extra_{number}": name for number, name in enumerate(extra)}
        members = [(name, Text, None) for name in names]
        record = msgspec.defstruct(
            "Record", members, bases=(Typed,), rename=names, omit_defaults=True, forbid_unknown_fields=True, gc=False
        )
        self._decode: Any = msgspec.json.Decoder(record).decode
        self._encode = msgspec.json.Encoder().encode
        self._by_time = by_time

    def read(self, raw: bytes) -> Event | None:
        """The event of this record, or None when the exact path has to judge it."""
        if len(raw) > MAX_RECORD_BYTES or (b"\\" in raw and b'\\"' in raw):
            return None  # with an escaped quote the count below would mean nothing
        try:
            record: Typed = self._decode(raw)
            audiences, timestamp = self._aside(record)
        except (ValueError, RecursionError):
            return None
        email = normalise_email(record.email)
        if email is None or not _places_in_order(record):
            return None
        quotes = _quotes_aside(record)
        record.email, record.audiences, record.timestamp = email, None, None
        content = self._encode(record)
        missing = raw.count(b'"') - content.count(b'"') - quotes
        nulls = _keys_of_nulls(raw) if missing else ()
        if missing != 2 * len(nulls):
            return None  # some key stands twice
        if not _clean(content) or (nulls and not _single(nulls, content)):
            return None
        return Event(key_of(email), content, _traits(record), audiences, timestamp)

    def _aside(self, record: Typed) -> tuple[dict[str, Membership] | None, float | None]:
        audiences = None if not record.audiences else _standing(record.audiences)
        timestamp = record.timestamp if self._by_time else None
        return audiences, None if timestamp is None or timestamp == "" else parse_time(timestamp)


def _standing(entries: dict[str, Standing]) -> dict[str, Membership]:
    standing: dict[str, Membership] = {}
    for name, entry in entries.items():
        keep_newest(standing, audience_id(name), membership_of(entry.status, entry.lastQualificationTime))
    return standing


def _places_in_order(record: Typed) -> bool:
    country, state = record.countryid, record.state
    if country is not None and country not in COUNTRIES:
        return False
    return state is None or state in STATES.get(country or "US", (state,))


def _traits(record: Typed) -> int:
    foreign = record.state is not None and record.countryid is not None and record.countryid not in STATES
    return _FOREIGN if foreign else _EMAIL


def _quotes_aside(record: Typed) -> int:
    """How many quotes the audiences and the timestamp take, when no key stands twice in them."""
    quotes = 0 if record.audiences is None else 2 + 10 * len(record.audiences)
    if record.timestamp is not None:
        quotes += 4 if isinstance(record.timestamp, str) else 2
    return quotes


def _single(nulls: Sequence[bytes], content: bytes) -> bool:
    """Whether none of the keys that stand before a null stands anywhere else; False where that takes a closer look."""
    distinct = set(nulls)
    if len(distinct) < len(nulls) or distinct & _ASIDE:
        return False
    return not any(b"\\" in name or b'"' + name + b'":' in content for name in distinct)


def _clean(content: bytes) -> bool:
    """Whether every value is as the exact path would leave it: trimmed, printable, NFC; none is empty."""
    if b'" ' in content or b' "' in content or b"\\" in content:
        return False
    text = content.decode()
    return text.isprintable() and (text.isascii() or unicodedata.is_normalized("NFC", text))
