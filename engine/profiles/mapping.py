"""Contents joined, and contents made into the records that leave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from engine.model import Trait
from engine.profiles.fields import TARGET_FIELDS, is_foreign, must_be_judged, traits_of
from engine.profiles.identity import key_of
from engine.profiles.records import HASH

FOREIGN_STATE_FIELD = "foreignstate"
"""Where RainFocus clients put a region outside US and CA (domain reference, 1.5)."""

_ENCODING_VERSION = 1  # part of the fingerprint: raise it when `Mapper.encode` gives other bytes for the same settings

_EMAIL, _FOREIGN_STATE = int(Trait.EMAIL), int(Trait.FOREIGN_STATE)  # plain numbers: IntFlags are slow to join

_Values = dict[str, msgspec.Raw]
_values = msgspec.json.Decoder(_Values).decode
_encode = msgspec.json.Encoder().encode
_rank = {name: rank for rank, name in enumerate(TARGET_FIELDS)}


class _Place(msgspec.Struct):
    state: str = ""
    countryid: str = ""


class _Email(msgspec.Struct):
    email: str = ""


_place = msgspec.json.Decoder(_Place).decode
_email = msgspec.json.Decoder(_Email).decode


def merge_contents(older: bytes, newer: bytes) -> tuple[bytes, int]:
    """(content, traits) of the two joined: every field of the newer, and what only the older has.

    Canonical order is kept. The traits are those of the joined content: a country from here beside a state from there
    is marked for the Mapper.
    """
    before, after = _values(older), _values(newer)
    merged = before | after
    content = newer if merged.keys() == after.keys() else _encode({name: merged[name] for name in _sorted(merged)})
    place = _place(content) if "state" in merged else _Place()
    return content, traits_of(email="email" in merged, state=place.state, country=place.countryid)


def _sorted(values: _Values) -> list[str]:
    return sorted(values, key=lambda name: (_rank.get(name, len(_rank)), name))


class Mapper:
    """Makes the records of one destination.

    `fields`: target fields that may leave ("*" alone: all), `email` always may. `rename`: target field -> name at
    RainFocus. `state_policy`: what happens to a state outside US and CA: "drop", "pass", or "foreignstate" (moved to
    that field). `event_param` and `event_code`: a first field of every record, if set. `flag_field`: where `encode`
    puts its flag.

    `apply_transformation` adds ``email_lc_sha256``, the key in hex, beside the plain address. It never takes the
    address's place: RainFocus cannot create an attendee from a hash (domain reference, U-5).
    """

    def __init__(
        self,
        *,
        fields: Sequence[str],
        rename: Mapping[str, str],
        state_policy: str,
        apply_transformation: bool,
        flag_field: str = "",
        event_param: str = "",
        event_code: str = "",
    ) -> None:
        self._only = None if "*" in fields else frozenset({"email", *fields})
        self._rename = dict(rename)
        self._state_policy = state_policy
        self._hashes = apply_transformation
        self._flag_field = flag_field
        self._event = {event_param: event_code} if event_param else {}
        self._prefix = _encode(self._event)[:-1] + b"," if self._event else b"{"
        self._hash_start = b"," + _encode(self._name(HASH)) + b':"'
        self._flag_start = b"," + _encode(self._name(flag_field)) + b":"
        only = sorted(self._only) if self._only is not None else ["*"]
        settings = [_ENCODING_VERSION, only, sorted(rename.items()), state_policy, apply_transformation]
        self.fingerprint: bytes = hashlib.sha256(_encode([*settings, flag_field, event_param, event_code])).digest()

    def encode(self, content: bytes, traits: int, flag: bool | None) -> bytes:
        """The record, one JSON object. Equal input gives equal bytes. None for `flag` leaves its field out."""
        if self._only is not None or self._rename or traits & _FOREIGN_STATE or len(content) == 2:
            return self._rebuild(content, traits, flag)
        end = b"}"
        if self._hashes and traits & _EMAIL:
            end = self._hash_start + _hash_of(content).encode() + b'"}'
        if self._flag_field and flag is not None:
            end = end[:-1] + self._flag_start + (b"true}" if flag else b"false}")
        return self._prefix + content[1:-1] + end

    def encode_all(self, contents: Sequence[bytes], traits: Sequence[int]) -> list[bytes]:
        """`encode` of each content with its traits, without a flag."""
        rebuilt = self._only is not None or self._rename or self._hashes or b"{}" in contents
        if rebuilt or [True for one in traits if one & _FOREIGN_STATE]:
            return [self.encode(content, one, None) for content, one in zip(contents, traits, strict=True)]
        prefix = self._prefix
        return [prefix + content[1:] for content in contents]

    def _rebuild(self, content: bytes, traits: int, flag: bool | None) -> bytes:
        values = _values(content)
        if self._only is not None:
            values = {name: value for name, value in values.items() if name in self._only}
        if traits & _FOREIGN_STATE and "state" in values:
            self._place_state(values, _place(content))
        record: dict[str, object] = {**self._event, **{self._name(name): value for name, value in values.items()}}
        if self._hashes and traits & _EMAIL:
            record[self._name(HASH)] = _hash_of(content)
        if self._flag_field and flag is not None:
            record[self._name(self._flag_field)] = flag
        return _encode(record)

    def _place_state(self, values: _Values, place: _Place) -> None:
        """Apply the policy, in place. A code that became wrong by a merge (TX beside CA) never leaves."""
        foreign = is_foreign(place.countryid)
        if (foreign and self._state_policy == "pass") or not must_be_judged(place.state, place.countryid):
            return
        state = values.pop("state")
        if foreign and self._state_policy == "foreignstate":
            values.setdefault(FOREIGN_STATE_FIELD, state)

    def _name(self, name: str) -> str:
        return self._rename.get(name, name)


def _hash_of(content: bytes) -> str:
    return key_of(_email(content).email).hex()
