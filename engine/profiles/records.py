"""One record, judged to the letter: who it is, what of it is kept, and why the rest is not.

A record is a mapping with the target fields by name, the identity as ``email`` or ``email_lc_sha256``, and optionally
``audiences``, ``consents`` and ``timestamp``. Other ways to lay a profile out can be unfolded into such a mapping
before they come here. This path defines what a record means; `typed` is a shorter way to the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from engine.model import Consent, Event, Membership
from engine.profiles.audiences import parse_audiences, parse_time
from engine.profiles.consents import CONSENTS, ConsentParser
from engine.profiles.fields import TARGET_FIELDS, FieldRefused, check_field, check_state, traits_of
from engine.profiles.identity import key_from_hex, key_of, normalise_email
from engine.profiles.json_exact import Ambiguous
from engine.profiles.parsed import Parsed

HASH = "email_lc_sha256"
RECORD_KEYS = (HASH, "audiences", "timestamp", CONSENTS)
"""What a record may hold beside fields."""

_SIMPLE = tuple(name for name in TARGET_FIELDS if name not in ("email", "state"))


class Refused(ValueError):
    """The whole record is refused, for this field and reason."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class RecordJudge:
    """Judges the records of one source.

    `mapping` gives a field (or one of `RECORD_KEYS`) a dotted path that is looked up before its plain name, as a key
    of its own and then step by step; steps into a list are numbers. `consents`: the paths that are kept.
    """

    def __init__(
        self,
        mapping: Mapping[str, str],
        extra_fields: frozenset[str],
        order: str,
        consents: frozenset[str] = frozenset(),
    ) -> None:
        self._paths = {name: (path, path.split(".")) for name, path in mapping.items()}
        self._consent_parser = ConsentParser(consents) if consents else None
        columns = self._consent_parser.columns if self._consent_parser else ()
        kept = {name for name in extra_fields if not name.startswith(f"{CONSENTS}.")}
        self.extra = sorted(kept - {*TARGET_FIELDS, *RECORD_KEYS})
        self.by_time = order == "timestamp"
        tops = {top for path, steps in self._paths.values() for top in (path, steps[0])}
        self._known = frozenset({*TARGET_FIELDS, *RECORD_KEYS, *self.extra, *tops, *columns})
        self._order = (*TARGET_FIELDS, *self.extra)

    def knows(self, name: object) -> bool:
        """Whether a record's key is one that is looked at."""
        return name in self._known

    def identifiable(self, names: Iterable[str]) -> bool:
        """Whether one of these top-level names can hold an identity."""
        claims = {path for name in ("email", HASH) for path in (name, *self._paths.get(name, ())[:1])}
        return any(name in claims for name in names)

    def judge(self, record: object, index: int, parsed: Parsed) -> None:
        """Put the event of this record into `parsed`, or why there is none."""
        if not isinstance(record, Mapping):
            parsed.reject(index, "", "not_an_object")
        elif isinstance(record, Ambiguous):
            parsed.reject(index, "", "duplicate_key")
        else:
            try:
                key, email = self._identity(record, index, parsed)
            except Refused as refused:
                parsed.reject(index, refused.field, refused.reason)
            else:
                parsed.add(index, self._event(record, key, email, index, parsed))

    def _event(self, record: Mapping[str, object], key: bytes, email: str, index: int, parsed: Parsed) -> Event:
        values = self._fields(record, index, parsed)
        if email:
            values["email"] = email
        content = {name: values[name] for name in self._order if values.get(name)}
        state, country = content.get("state", ""), content.get("countryid", "")
        audiences = self._audiences(record, index, parsed)
        timestamp = self._timestamp(record, index, parsed) if self.by_time else None
        consents = self._consents(self._consent_parser, record, key, timestamp, index, parsed)
        for name in record:
            if name not in self._known:
                parsed.unknown(index, str(name))
        traits = traits_of(email=bool(email), state=state, country=country)
        return Event(key, msgspec.json.encode(content), traits, audiences, timestamp, consents=consents)

    def _fields(self, record: Mapping[str, object], index: int, parsed: Parsed) -> dict[str, str]:
        """All fields but the e-mail, "" for an absent one; what is refused is noted in `parsed`."""
        values: dict[str, str] = {}
        country: str | None = ""
        for name in (*_SIMPLE, *self.extra):
            try:
                values[name] = check_field(name, self._value(record, name))
            except FieldRefused as refused:
                parsed.drop(index, name, refused.reason)
                country = None if name == "countryid" else country
        if country is not None:
            country = values["countryid"]
        try:
            values["state"] = check_state(self._value(record, "state"), country)
        except FieldRefused as refused:
            parsed.drop(index, "state", refused.reason)
        return values

    def _identity(self, record: Mapping[str, object], index: int, parsed: Parsed) -> tuple[bytes, str]:
        """(key, normalised address or ""). Raises Refused."""
        email, hashed = self._claim(record, "email"), self._claim(record, HASH)
        address = normalise_email(email) if isinstance(email, str) else None
        key = key_from_hex(hashed) if isinstance(hashed, str) else None
        if address is None and key is None:
            raise _no_identity(email, hashed)
        if address is None:
            if email is not None:
                parsed.drop(index, "email", "not_an_email")
            return key or b"", ""
        if key is None:
            if hashed is not None:
                parsed.drop(index, HASH, "not_a_sha256")
        elif key not in _hashes_of(address, str(email)):
            raise Refused(HASH, "identity_mismatch")
        return key_of(address), address

    def _claim(self, record: Mapping[str, object], name: str) -> object:
        """What the record says under an identity; None when it says nothing. Raises Refused."""
        try:
            value = self._value(record, name)
        except FieldRefused as refused:
            raise Refused(name, refused.reason) from None
        return None if isinstance(value, str) and not value.strip() else value

    def _audiences(self, record: Mapping[str, object], index: int, parsed: Parsed) -> dict[str, Membership] | None:
        try:
            value = self._value(record, "audiences")
            if value is None:
                return None
            audiences, bad = parse_audiences(value)
        except FieldRefused as refused:
            parsed.drop(index, "audiences", refused.reason)
            return None
        for name, reason in bad:
            parsed.drop(index, f"audiences.{name}", reason)
        return audiences or None

    def _consents(
        self,
        parser: ConsentParser | None,
        record: Mapping[str, object],
        key: bytes,
        at: float | None,
        index: int,
        parsed: Parsed,
    ) -> dict[str, Consent] | None:
        """None when nothing is said, or nothing that some destination asks for."""
        if parser is None:
            return None
        try:
            columns = {path: self._value(record, name) for name, path in parser.columns.items()}
            consents, bad = parser.parse(self._value(record, CONSENTS), columns, key, at)
        except FieldRefused as refused:
            parsed.drop(index, CONSENTS, refused.reason)
            return None
        for place, reason in bad:
            parsed.drop(index, place, reason)
        return consents

    def _timestamp(self, record: Mapping[str, object], index: int, parsed: Parsed) -> float | None:
        """None, so that the event goes by its arrival, when there is no time or none that can be read."""
        try:
            value = self._value(record, "timestamp")
            return None if value is None or value == "" else parse_time(value)
        except FieldRefused as refused:
            parsed.drop(index, "timestamp", refused.reason)
            return None

    def _value(self, record: Mapping[str, object], name: str) -> object:
        """None when there is none. Raises FieldRefused when the way to it is ambiguous."""
        if name in self._paths:
            value = _follow(record, *self._paths[name])
            if value is not None and value != "":
                return value
        return record.get(name)


def _follow(record: Mapping[str, object], path: str, steps: list[str]) -> object:
    if path in record:
        return record[path]
    value: object = record
    for step in steps:
        if isinstance(value, Ambiguous):
            raise FieldRefused("duplicate_key")
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and step.isdecimal() and len(step) < 4 and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _no_identity(email: object, hashed: object) -> Refused:
    if email is not None:
        return Refused("email", "not_an_email")
    return Refused("email", "missing") if hashed is None else Refused(HASH, "not_a_sha256")


def _hashes_of(address: str, as_written: str) -> set[bytes]:
    """The hashes that mean this address: ours, and what AEP makes of the text; it lower-cases and may not trim."""
    return {key_of(address), key_of(as_written.lower()), key_of(as_written.strip().lower())}
