"""The short way for profiles in AEP's shapes, where nothing has to be corrected.

What `aep` makes of a profile step by step, taken at once from a typed one: the paths of XDM and of a source's rules by
attribute, identities and memberships as they are nested. Two addresses, a membership without a time and the like are
left to the exact path; a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from engine.model import Consent, Event, Membership
from engine.profiles.aep import NAMESPACES, subdivision
from engine.profiles.aep_audiences import CallAudience
from engine.profiles.aep_paths import ADDRESS_FIELDS, ADDRESSES, DEFAULT_PATHS, EMAIL_PATHS, XDM_TREE
from engine.profiles.audiences import membership_of
from engine.profiles.consents import ConsentParser
from engine.profiles.fields import MAX_LENGTH, TARGET_FIELDS, as_text
from engine.profiles.identity import key_from_hex, key_of, normalise_email
from engine.profiles.json_exact import MAX_RECORD_BYTES
from engine.profiles.records import RECORD_KEYS
from engine.profiles.typed import (
    NotPlain,
    Typed,
    clean,
    escapes_quotes,
    fields_of,
    known_audience_id,
    record_type,
    time_of,
    traits_at,
)
from engine.profiles.typed_aep_shapes import Attribute, Beside, Named, Qualification, Value, decoder, steps_of
from engine.profiles.typed_consents import TypedConsents
from engine.profiles.typed_rules import TypedRules
from engine.profiles.typed_tree import Tree, attributes, getter, struct_type

_FIELDS = {name: paths for name, paths in DEFAULT_PATHS.items() if name != "companyname"}
_PATHS = (*EMAIL_PATHS, "organizations", *(path for paths in _FIELDS.values() for path in paths), *ADDRESSES)

Unused = tuple[int, str]
"""(place of the profile, path) of what is in it and not used"""


def xdm_tree() -> Tree:
    """XDM's own paths; rules may add theirs."""
    return deepcopy(XDM_TREE)


class TypedAepPath:
    """Reads profiles for the fields of `extra` (sorted) beside the twelve. `tree` begins as `xdm_tree`; `rules` look
    there too. `now`: the time of a membership in the call's audience."""

    def __init__(
        self,
        extra: list[str],
        by_time: bool,
        *,
        rules: TypedRules | None,
        tree: Tree,
        consents: ConsentParser | None,
        now: Callable[[], float],
    ) -> None:
        self._names = {name: name for name in TARGET_FIELDS} | fields_of(extra)
        rename = {attribute: name for name, attribute in self._names.items()}
        named = struct_type("Named", [(it, Attribute, None) for it in self._names.values()], rename, Named)
        self._extra = list(fields_of(extra).values())
        steps = steps_of(tree)
        self._decoders = [decoder(tree, steps, it) for it in (named, dict[str, Attribute])]
        self._encode = msgspec.json.Encoder().encode
        self._record = record_type(extra, {}, [])
        self._attribute_values = attrgetter(*self._names.values())
        self._tops = attrgetter(*attributes(tree).values())
        self._no_tops = tuple(default for _, _, default in steps)
        self._values = getter(tree, _PATHS)
        self._addresses = [_address_getter(tree, address) for address in ADDRESSES]
        self._by_time, self._rules, self._now = by_time, rules, now
        self._consents = None if consents is None else TypedConsents(consents)

    def read_all(self, raws: Sequence[bytes], call: CallAudience | None, unused: list[Unused]) -> list[Event] | None:
        """The events of these profiles, or None when some of them has to be judged by the exact path. What of them
        nobody uses is put into `unused`."""
        try:
            if max(map(len, raws)) > MAX_RECORD_BYTES or any(map(escapes_quotes, raws)):
                return None
            profiles = self._profiles(raws)
            if self._encode(profiles).count(b'"') != sum(raw.count(b'"') for raw in raws):
                return None  # some key stands twice, or before a null
            events = [self._event(profile, call, index, unused) for index, profile in enumerate(profiles)]
        except (ValueError, RecursionError):
            return None
        return events if clean(b",".join([event.content for event in events])) else None

    def _profiles(self, raws: Sequence[bytes]) -> list[Any]:
        """By the type that names all attributes, where nobody has another one. Raises ValueError."""
        named, free = self._decoders
        try:
            return list(map(named, raws))
        except ValueError:
            return list(map(free, raws))

    def _event(self, profile: Any, call: CallAudience | None, index: int, unused: list[Unused]) -> Event:
        record, free = self._with_attributes(profile.attributes)
        unused += [(index, path) for path in free]
        claims = [record.email] if record.email else []
        if self._tops(profile) != self._no_tops:
            claims += self._take_xdm(self._values(profile), record)
        for name, entries in (profile.identityMap or {}).items():
            kind = _kind(name)
            if kind == "email":
                claims += filter(_may_be_address, [it.id for it in entries])
            elif kind is None:
                unused.append((index, f"identityMap.{name}"))
        if not (claims or profile.identityMap or profile.segmentMembership or profile.attributes):
            raise NotPlain  # perhaps none of AEP's
        email = _agreed(claims) if claims else ""
        if self._rules is not None:
            email = self._apply(self._rules, profile, record) or email
        if not email:
            raise NotPlain
        record.email = email
        timestamp, consents = self._aside(profile)
        audiences = _standing(profile.segmentMembership or {}, call, self._now) or None
        content = self._encode(record)
        return Event(
            key_of(email), content, traits_at(record.countryid, record.state), audiences, timestamp, consents=consents
        )

    def _with_attributes(self, given: Any) -> tuple[Typed, Sequence[str]]:
        """A record of them, and the paths of those that are no fields."""
        if not given:
            return self._record(), ()
        if isinstance(given, Named):
            values: list[Any] = [it.value if type(it) is Value else it for it in self._attribute_values(given)]
            record = self._record(*values[: len(TARGET_FIELDS)])
            for attribute, value in zip(self._extra, values[len(TARGET_FIELDS) :], strict=True):
                setattr(record, attribute, value)
            return record, ()
        record = self._record()
        return record, list(self._free_attributes(given, record))

    def _free_attributes(self, given: Mapping[str, Value | str | None], record: Typed) -> Iterator[str]:
        """Fill the record; the paths of the others."""
        names = self._names
        for key, value in given.items():
            name = names.get(key) or names.get(key.lower())
            if name is None:
                if key.lower() in RECORD_KEYS:
                    raise NotPlain
                yield f"attributes.{key}"
                continue
            text = value.value if type(value) is Value else value
            if text and getattr(record, name) is None:
                setattr(record, name, text)

    def _take_xdm(self, values: tuple[Any, ...], record: Typed) -> Iterator[str]:
        """Whatever XDM says that no attribute has said. The addresses found are given back."""
        personal, work, organizations, *texts, home, mailing, office = values
        found = iter(texts)
        for name, paths in _FIELDS.items():
            for _ in paths:
                text = next(found)
                if text is not None and getattr(record, name) is None:
                    setattr(record, name, text)
        if organizations and record.companyname is None:
            record.companyname = (
                next(filter(None, organizations), None) if type(organizations) is list else organizations
            )
        for values_of, node in zip(self._addresses, (home, mailing, office), strict=True):
            if _take_address(values_of(node), record):
                break
        return filter(None, (personal, work))

    def _apply(self, rules: TypedRules, profile: Any, record: Typed) -> str | None:
        """The address that a rule has found, if any."""
        email: str | None = None
        for attribute, value in rules.find(profile):
            if not value:
                continue
            if attribute == "email" and (email := normalise_email(value)) is None:
                raise NotPlain
            setattr(record, attribute, value)
        return email

    def _aside(self, profile: Beside) -> tuple[float | None, dict[str, Consent] | None]:
        timestamp = time_of(profile.timestamp) if self._by_time else None
        if self._consents is None or profile.consents is msgspec.UNSET:
            return timestamp, None
        return timestamp, self._consents.read(profile.consents, timestamp)


@lru_cache(256)
def _kind(namespace: str) -> str | None:
    return NAMESPACES.get(namespace) or NAMESPACES.get(namespace.lower())


def _may_be_address(id: str) -> bool:
    """Beside an address, hashes are not looked at."""
    return "@" in id or bool(id and not id.isspace() and not key_from_hex(id))


def _agreed(claims: Sequence[str]) -> str:
    """The address that all of them mean."""
    first = claims[0]
    email = normalise_email(first)
    if email is None or (len(claims) > 1 and any(normalise_email(other) != email for other in claims)):
        raise NotPlain
    return email


def _standing(
    namespaces: Mapping[str, Mapping[str, Qualification]], call: CallAudience | None, now: Callable[[], float]
) -> dict[str, Membership]:
    standing: dict[str, Membership] = {}
    named_by_call: Qualification | None = None
    for namespace, entries in namespaces.items():
        for id, entry in entries.items():
            given = f"{namespace.lower()}/{id}"
            standing[known_audience_id(given)] = _membership(entry)
            if call is not None and given == call.id:
                named_by_call = entry
    if call is not None:
        id, own = known_audience_id(call.id), named_by_call
        if own is None:
            standing[id] = membership_of(call.status, now(), call.name)
        elif call.name and not own.name:
            standing[id] = membership_of(own.status, own.lastQualificationTime, call.name)
    return standing


def _membership(given: Qualification) -> Membership:
    if not given.name:
        return membership_of(given.status, given.lastQualificationTime)
    name = as_text(given.name)
    if len(name) > MAX_LENGTH:
        raise NotPlain
    return membership_of(given.status, given.lastQualificationTime, name)


def _address_getter(tree: Tree, address: str) -> Any:
    below = tree[address]
    assert below is not None
    return getter(below, [step for step, _ in ADDRESS_FIELDS])


def _take_address(values: Sequence[str | None], record: Typed) -> bool:
    """Whether this address says anything; then it is taken as a whole."""
    for (_, name), value in zip(ADDRESS_FIELDS, values, strict=True):
        if value is not None and getattr(record, name) is None:
            setattr(record, name, (subdivision(value) or None) if name == "state" else value)
    return any(values)
