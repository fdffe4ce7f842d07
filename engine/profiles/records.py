"""One record, judged to the letter: who it is, what of it is kept, and why the rest is not.

A record is a mapping with the target fields by name, the identity as ``email`` or ``email_lc_sha256``, and optionally
``audiences``, ``consents`` and ``timestamp``. AEP's ways to lay a profile out are unfolded into such a mapping first
(`aep`), and what a source maps is looked up in the record as it came (`rules`). This path defines what a record means;
`typed` is a shorter way to the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from engine.config import MappingRule
from engine.model import Consent, Event, Membership
from engine.profiles.aep import HASH as HASH
from engine.profiles.aep import Unfolder, in_identity_map, is_address, is_aep
from engine.profiles.aep_audiences import CallAudience
from engine.profiles.audiences import parse_audiences, parse_time
from engine.profiles.consents import CONSENTS, ConsentParser
from engine.profiles.fields import TARGET_FIELDS, FieldRefused, check_field, check_state, traits_of
from engine.profiles.identity import key_from_hex, key_of, normalise_email
from engine.profiles.json_exact import Ambiguous
from engine.profiles.parsed import Parsed
from engine.profiles.rules import Rule

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

    `mapping` gives a field (or one of `RECORD_KEYS`) a path, or a rule, that is looked up in the record as it came and
    wins over what stands under the plain name. `format`: "auto" unfolds what `is_aep`, "aep" everything, "profile"
    nothing. `now`: the time, for memberships that AEP sends without one. `consents`: the paths that are kept.
    """

    def __init__(
        self,
        mapping: Mapping[str, str | MappingRule],
        extra_fields: frozenset[str],
        order: str,
        format: str = "auto",
        now: Callable[[], float] = lambda: 0.0,
        *,
        check_phone: Callable[[str, str], str] | None = None,
        consents: frozenset[str] = frozenset(),
    ) -> None:
        self._check_phone = check_phone
        self.consent_parser = ConsentParser(consents) if consents else None
        self.rules = {name: Rule(it, text=name == HASH or name not in RECORD_KEYS) for name, it in mapping.items()}
        columns = self.consent_parser.columns if self.consent_parser else ()
        kept = {name for name in extra_fields if not name.startswith(f"{CONSENTS}.")}
        self.extra = sorted(kept - {*TARGET_FIELDS, *RECORD_KEYS})
        self.by_time = order == "timestamp"
        paths = [path for rule in self.rules.values() for path in rule.paths]
        fields = frozenset({*TARGET_FIELDS, *RECORD_KEYS, *self.extra, *columns})  # they are unfolded as they stand
        self._known = fields.union(*((path, path.partition(".")[0]) for path in paths))
        self._order = (*TARGET_FIELDS, *self.extra)
        self._format, self._unfolder = format, Unfolder(fields, paths, now)

    def knows(self, name: object) -> bool:
        """Whether a record's key is one that is looked at."""
        return name in self._known

    def identifiable(self, names: Iterable[str]) -> bool:
        """Whether one of these top-level names can hold an identity."""
        rules = [self.rules[name] for name in ("email", HASH) if name in self.rules]
        claims = {"email", HASH, *(path for rule in rules for path in rule.paths)}
        return any(name in claims for name in names)

    def judge(self, record: object, index: int, parsed: Parsed, call: CallAudience | None = None) -> None:
        """Put the event of this record into `parsed`, or why there is none. `call`: the audience of the whole call."""
        if not isinstance(record, Mapping):
            parsed.reject(index, "", "not_an_object")
        elif isinstance(record, Ambiguous):
            parsed.reject(index, "", "duplicate_key")
        else:
            try:
                plain, _ = self.plain(record, index, parsed, call)
                key, email = self._identity(plain, index, parsed)
            except Refused as refused:
                parsed.reject(index, refused.field, refused.reason)
            else:
                parsed.add(index, self._event(plain, key, email, index, parsed))
                if not self.unfolds(record, call):
                    self._note_unknown(record, index, parsed)

    def plain(
        self, record: Mapping[str, object], index: int, parsed: Parsed, call: CallAudience | None = None
    ) -> tuple[Mapping[str, object], Mapping[str, str]]:
        """(the record by plain names, unfolded and mapped; name -> where its value stood, if not under that name).
        Raises Refused."""
        plain, origins = record, dict[str, str]()
        if self.unfolds(record, call):
            plain, origins = self._unfolder.unfold(record, call, index, parsed)
        return self._mapped(record, plain, origins, index, parsed) if self.rules else (plain, origins)

    def unfolds(self, record: Mapping[str, object], call: CallAudience | None) -> bool:
        """Whether this record is taken for one of AEP's shapes."""
        return self._format == "aep" or (self._format == "auto" and (call is not None or is_aep(record)))

    def _note_unknown(self, record: Mapping[str, object], index: int, parsed: Parsed) -> None:
        for name in record:
            if name not in self._known:
                parsed.unknown(index, str(name))

    def _mapped(
        self,
        record: Mapping[str, object],
        unfolded: Mapping[str, object],
        origins: dict[str, str],
        index: int,
        parsed: Parsed,
    ) -> tuple[Mapping[str, object], Mapping[str, str]]:
        plain = dict(unfolded)
        for name, rule in self.rules.items():
            try:
                value = rule.value(record)
            except FieldRefused as refused:
                if name in ("email", HASH):
                    raise Refused(name, refused.reason) from None
                parsed.drop(index, name, refused.reason)
                value, plain[name] = None, None
            if value is not None and value != "":
                plain[name], origins[name] = value, rule.origin
        if "email" in self.rules and in_identity_map(origins.get(HASH, "")) and is_address(plain.get("email")):
            del plain[HASH]  # as where AEP's own path gave the address
        return plain, origins

    def _event(self, record: Mapping[str, object], key: bytes, email: str, index: int, parsed: Parsed) -> Event:
        values = self._fields(record, index, parsed)
        if email:
            values["email"] = email
        content = {name: values[name] for name in self._order if values.get(name)}
        state, country = content.get("state", ""), content.get("countryid", "")
        audiences = self._audiences(record, index, parsed)
        timestamp = self._timestamp(record, index, parsed) if self.by_time else None
        consents = self._consents(self.consent_parser, record, key, timestamp, index, parsed)
        traits = traits_of(email=bool(email), state=state, country=country)
        return Event(key, msgspec.json.encode(content), traits, audiences, timestamp, consents=consents)

    def _fields(self, record: Mapping[str, object], index: int, parsed: Parsed) -> dict[str, str]:
        """All fields but the e-mail, "" for an absent one; what is refused is noted in `parsed`."""
        values: dict[str, str] = {}
        country: str | None = ""
        for name in (*_SIMPLE, *self.extra):
            try:
                values[name] = "" if (value := record.get(name)) is None else check_field(name, value)
            except FieldRefused as refused:
                parsed.drop(index, name, refused.reason)
                country = None if name == "countryid" else country
        if country is not None:
            country = values["countryid"]
        if self._check_phone is not None and values.get("phone"):
            self._phone(values, country or "", index, parsed, self._check_phone)
        try:
            values["state"] = check_state(record.get("state"), country)
        except FieldRefused as refused:
            parsed.drop(index, "state", refused.reason)
        return values

    def _phone(
        self, values: dict[str, str], country: str, index: int, parsed: Parsed, check: Callable[[str, str], str]
    ) -> None:
        try:
            values["phone"] = check(values["phone"], country)
        except FieldRefused as refused:
            del values["phone"]
            parsed.drop(index, "phone", refused.reason)

    def _identity(self, record: Mapping[str, object], index: int, parsed: Parsed) -> tuple[bytes, str]:
        """(key, normalised address or ""). Raises Refused."""
        email, hashed = _claim(record, "email"), _claim(record, HASH)
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

    def _audiences(self, record: Mapping[str, object], index: int, parsed: Parsed) -> dict[str, Membership] | None:
        try:
            value = record.get("audiences")
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
            columns = {path: record.get(name) for name, path in parser.columns.items()}
            consents, bad = parser.parse(record.get(CONSENTS), columns, key, at)
        except FieldRefused as refused:
            parsed.drop(index, CONSENTS, refused.reason)
            return None
        for place, reason in bad:
            parsed.drop(index, place, reason)
        return consents

    def _timestamp(self, record: Mapping[str, object], index: int, parsed: Parsed) -> float | None:
        """None, so that the event goes by its arrival, when there is no time or none that can be read."""
        try:
            value = record.get("timestamp")
            return None if value is None or value == "" else parse_time(value)
        except FieldRefused as refused:
            parsed.drop(index, "timestamp", refused.reason)
            return None


def _claim(record: Mapping[str, object], name: str) -> object:
    """What the record says under an identity; None when it says nothing."""
    value = record.get(name)
    return None if isinstance(value, str) and not value.strip() else value


def _no_identity(email: object, hashed: object) -> Refused:
    if email is not None:
        return Refused("email", "not_an_email")
    return Refused("email", "missing") if hashed is None else Refused(HASH, "not_a_sha256")


def _hashes_of(address: str, as_written: str) -> set[bytes]:
    """The hashes that mean this address: ours, and what AEP makes of the text; it lower-cases and may not trim."""
    return {key_of(address), key_of(as_written.lower()), key_of(as_written.strip().lower())}
