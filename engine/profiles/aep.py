"""AEP's own shapes, unfolded into the record that `records` judges. Shapes: domain reference, 2.1; docs/aep.md.

Shape A is the profile of the HTTP API destination, an XDM tree; shape B is what a Destination SDK template writes:
``attributes``, ``identityMap`` or ``identities``, ``segmentMembership`` or ``AdobeExperiencePlatformSegments``. Both
may stand in one profile, and target fields by their plain names beside them: those win, then attributes, then XDM.

Whatever is not used (other namespaces, other attributes, a second address) is counted, and listed once a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

from engine.profiles.aep_audiences import AUDIENCE_KEYS, CallAudience, Memberships, audience_of
from engine.profiles.aep_paths import ADDRESS_FIELDS, ADDRESSES, DEFAULT_PATHS, EMAIL_PATHS, XDM_TREE
from engine.profiles.countries import STATES
from engine.profiles.identity import key_from_hex, normalise_email
from engine.profiles.json_exact import Ambiguous
from engine.profiles.parsed import Parsed

HASH = "email_lc_sha256"
_Claims = dict[str, list[tuple[str, object]]]
"""Who a profile may be: "email" or `HASH` -> (where it stands, what)."""

NAMESPACES = {"email": "email", "emails": "email", HASH: HASH, "emails (sha256, lowercased)": HASH}
"""Of an identity map, in lower case -> what its ids are."""
SECTIONS = ("attributes", "identityMap", "identities", "AdobeExperiencePlatformSegments", "segmentMembership")
_TOPS = frozenset({*SECTIONS, *AUDIENCE_KEYS})
_ADDRESS_PATHS = [[(name, f"{address}.{step}") for step, name in ADDRESS_FIELDS] for address in ADDRESSES]
_FREE_FORM = {"value"}  # of an attribute; one that is absent is {}
AEP_MARKS = frozenset({*SECTIONS, *AUDIENCE_KEYS, *XDM_TREE})
"""What stands at the top of a profile in one of AEP's shapes, and of no other."""


def is_aep(record: Mapping[str, object]) -> bool:
    """Whether a profile is in one of AEP's shapes: some key of theirs stands at its top."""
    return not AEP_MARKS.isdisjoint(record)


def in_identity_map(origin: str) -> bool:
    """Whether a value came from the identities that AEP keeps of a profile, and not from an attribute of its own."""
    return origin.startswith(("identityMap.", "identities."))


def is_address(value: object) -> bool:
    return _address(value) is not None


class Unfolder:
    """`fields`: every name that a record may have. `paths`: what a source's mapping looks at; that is not unknown.
    `now`: the time of a membership that was sent without one."""

    def __init__(self, fields: Iterable[str], paths: Iterable[str], now: Callable[[], float]) -> None:
        self.fields = frozenset(fields)
        self.mapped = frozenset(start for path in paths for start in _starts(path))
        self.now = now

    def unfold(
        self, record: Mapping[str, object], call: CallAudience | None, index: int, parsed: Parsed
    ) -> tuple[dict[str, object], dict[str, str]]:
        """(record by plain names, name -> where its value stood). What is refused on the way is noted in `parsed`."""
        return _Unfolding(self, index, parsed).run(record, call)


def _starts(path: str) -> list[str]:
    steps = path.split(".")
    return [".".join(steps[:count]) for count in range(1, len(steps) + 1)]


class _Unfolding:
    """One profile on its way."""

    __slots__ = ("claims", "identities", "index", "memberships", "origins", "parsed", "plain", "unfolder", "xdm")

    def __init__(self, unfolder: Unfolder, index: int, parsed: Parsed) -> None:
        self.unfolder, self.index, self.parsed = unfolder, index, parsed
        self.plain: dict[str, object] = {}
        self.origins: dict[str, str] = {}
        self.xdm: dict[str, object] = {}
        self.claims: _Claims = {"email": [], HASH: []}
        self.identities: _Claims = {"email": [], HASH: []}
        self.memberships = Memberships(unfolder.now, self._drop)

    def run(self, record: Mapping[str, object], call: CallAudience | None) -> tuple[dict[str, object], dict[str, str]]:
        fields = self.unfolder.fields
        for key, value in record.items():
            if key in fields:
                self._put(key, value, key)
            elif key in XDM_TREE:
                self._walk(value, XDM_TREE[key], key)
            elif key not in _TOPS:
                self._other(key, str(key), value)
        for key in SECTIONS:
            if record.get(key) is not None:
                self._section(key, record[key])
        self._take_xdm()
        self._take_identity()
        self._take_audiences(call or audience_of(record, self._drop))
        return self.plain, self.origins

    def _put(self, name: str, value: object, path: str) -> None:
        """The first value that says something stays."""
        if value is None or (type(value) is str and (not value or value.isspace())):
            return
        if name in self.claims:
            self.claims[name] += [(path, it) for it in (value if isinstance(value, list) else [value])]
        elif name not in self.plain:
            self.plain[name] = value
            self.origins[name] = path

    def _other(self, key: object, path: str, value: object) -> None:
        """A name that differs from a field's in case alone is that field, as ``firstName``; others are unknown."""
        name = key.lower() if isinstance(key, str) else ""
        if name in self.unfolder.fields:
            self._put(name, value, path)
        else:
            self._unused(path)

    def _unused(self, path: str, reason: str = "unknown_field") -> None:
        if path not in self.unfolder.mapped:
            self.parsed.unused(self.index, path, reason)

    def _drop(self, path: str, reason: str) -> None:
        self.parsed.drop(self.index, path, reason)

    def _section(self, key: str, value: object) -> None:
        if isinstance(value, Ambiguous):
            self._drop(key, "duplicate_key")
        elif key == "identities":
            self._identities(value)
        elif not isinstance(value, Mapping):
            self._drop(key, "not_an_object")
        elif key == "attributes":
            self._attributes(value)
        elif key == "identityMap":
            self._identity_map(value)
        elif key == "segmentMembership":
            self.memberships.of_profile(value)
        else:
            self.memberships.added_and_removed(value)

    # -- attributes and XDM -------------------------------------------------------------------------------------------

    def _attributes(self, attributes: Mapping[Any, object]) -> None:
        fields, put = self.unfolder.fields, self._put
        for key, value in attributes.items():
            if type(value) is not str and _is_object(value) and value.keys() <= _FREE_FORM:
                value = value.get("value")
            if key in fields:
                put(key, value, f"attributes.{key}")
            else:
                self._other(key, f"attributes.{key}", value)

    def _walk(self, value: object, below: Any, path: str) -> None:
        """Collect what stands at the paths of the tree; the rest of this part of the profile is unknown."""
        if below is None:
            self.xdm[path] = value
        elif isinstance(value, Ambiguous):
            if path not in self.unfolder.mapped:  # else the mapping says so
                self._drop(path, "duplicate_key")
        elif _is_object(value):
            for key, inner in value.items():
                if key in below:
                    self._walk(inner, below[key], f"{path}.{key}")
                else:
                    self._unused(f"{path}.{key}")
        elif value is not None:
            self._drop(path, "not_an_object")

    def _take_xdm(self) -> None:
        xdm = self.xdm
        if not xdm:
            return
        for path in EMAIL_PATHS:
            self._put("email", xdm.get(path), path)
        for name, paths in DEFAULT_PATHS.items():
            for path in paths:
                if path in xdm:
                    self._put(name, _first(xdm[path]), path)
        self._take_address()

    def _take_address(self) -> None:
        """One address as a whole: a street of here and a city of there would be nobody's."""
        xdm = self.xdm
        for paths in _ADDRESS_PATHS:
            found = [(name, path) for name, path in paths if path in xdm and not _is_blank(xdm[path])]
            if found:
                for name, path in found:
                    self._put(name, subdivision(xdm[path]) if name == "state" else xdm[path], path)
                return

    # -- identity -----------------------------------------------------------------------------------------------------

    def _identity_map(self, namespaces: Mapping[Any, object]) -> None:
        for namespace, entries in namespaces.items():
            kind = NAMESPACES.get(str(namespace).lower())
            path = f"identityMap.{namespace}"
            if kind is None:
                self._unused(path)
            elif not isinstance(entries, list):
                self._drop(path, "not_a_list")
            else:
                for entry in sorted(entries, key=_is_secondary):
                    self._identity(kind, entry, path)

    def _identities(self, entries: object) -> None:
        if not isinstance(entries, list):
            self._drop("identities", "not_a_list")
            return
        for entry in entries:
            type_ = str(entry.get("type", "")) if isinstance(entry, Mapping) else ""
            kind = NAMESPACES.get(type_.lower())
            if kind is None:
                self._unused(f"identities.{type_}")
            else:
                self._identity(kind, entry, f"identities.{type_}")

    def _identity(self, kind: str, entry: object, path: str) -> None:
        id = entry.get("id") if isinstance(entry, Mapping) else entry
        if _is_blank(id):
            return
        if kind == "email" and _key(id) is not None:
            kind = HASH  # some templates hash what they still call an e-mail
        self.identities[kind].append((path, id))

    def _take_identity(self) -> None:
        """One address, else one hash. With an address the hashes of an identity map are not needed: the key is made of
        the address, and AEP may have hashed it before it was trimmed."""
        hashes = self.claims[HASH]
        email = self._choose(self.claims["email"] + self.identities["email"], _address)
        if email is not None:
            self.origins["email"], self.plain["email"] = email
        if email is None or not is_address(email[1]):
            hashes = hashes + self.identities[HASH]
        if (hashed := self._choose(hashes, _key)) is not None:
            self.origins[HASH], self.plain[HASH] = hashed

    def _choose(self, claims: list[tuple[str, object]], read: Callable[[object], object]) -> tuple[str, object] | None:
        """The first claim that can be read, else the first; others that mean somebody else are noted."""
        if len(claims) < 2:
            return claims[0] if claims else None
        chosen, meant = claims[0], None
        for path, value in claims:
            means = read(value)
            if means is None:
                self._unused(path, "not_an_identity")
            elif meant is None:
                chosen, meant = (path, value), means
            elif means != meant:
                self._unused(path, "several_identities")
        return chosen

    # -- audiences ----------------------------------------------------------------------------------------------------

    def _take_audiences(self, call: CallAudience | None) -> None:
        standing = self.memberships.standing
        if call is not None:
            self.memberships.of_call(call)
        given = self.plain.get("audiences")
        if standing and (given is None or isinstance(given, Mapping)):
            self.plain["audiences"] = {**standing, **(given or {})}
            self.origins.setdefault("audiences", "segmentMembership")


def _is_object(value: object) -> TypeGuard[Mapping[Any, object]]:
    """`type` is asked first: an instance check against an abstract class takes longer than all the rest."""
    return type(value) is dict or (type(value) is not str and isinstance(value, Mapping))


def _is_blank(value: object) -> bool:
    return value is None or (type(value) is str and (not value or value.isspace()))


def _first(value: object) -> object:
    """Of a list the first entry that is not empty."""
    return next(filter(None, value), None) if isinstance(value, list) else value


def _is_secondary(entry: object) -> bool:
    return not (isinstance(entry, Mapping) and entry.get("primary") is True)


def subdivision(value: object) -> object:
    """XDM writes a state after ISO 3166-2, as ``US-TX``; a target field holds ``TX``."""
    if isinstance(value, str) and value[2:3] == "-" and value[:2].upper() in STATES:
        return value[3:]
    return value


def _address(value: object) -> str | None:
    return normalise_email(value) if isinstance(value, str) else None


def _key(value: object) -> bytes | None:
    return key_from_hex(value) if isinstance(value, str) else None
