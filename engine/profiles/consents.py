"""A record's ``consents``: XDM's object, or the same flat, as far as some destination asks for it.

``{"marketing": {"email": {"val": "n"}}}``, ``{"marketing": {"email": "n"}}`` and ``{"marketing.email": "n"}`` say the
same, and so does a field ``consents.marketing.email`` of the record, which a CSV can hold. What is said under
``idSpecific.Email.ADDRESS`` is kept if the address is the record's own, and then without it, as
``idSpecific.marketing.email``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from engine.model import Consent
from engine.profiles.fields import FieldRefused
from engine.profiles.identity import key_from_hex, key_of, normalise_email
from engine.profiles.json_exact import Ambiguous

CONSENTS = "consents"
FOR_THE_ADDRESS = "idSpecific"

VALUES = {value.lower(): value for value in ("y", "n", "p", "u", "LI", "CT", "CP", "VI", "PI")}
_NAMESPACES: dict[str, Callable[[str], bytes | None]] = {
    "email": lambda id: key_of(address) if (address := normalise_email(id)) is not None else None,
    "email_lc_sha256": key_from_hex,
}


class ConsentParser:
    """Finds the consents under some paths. Without any, nothing is looked at and nothing is kept."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._own = sorted(path for path in wanted if not path.startswith(f"{FOR_THE_ADDRESS}."))
        self._address = sorted(path.partition(".")[2] for path in wanted if path.startswith(f"{FOR_THE_ADDRESS}."))
        self.columns = {f"{CONSENTS}.{path}": path for path in self._own}

    def parse(
        self, tree: object, columns: Mapping[str, object], key: bytes, at: float | None
    ) -> tuple[dict[str, Consent] | None, list[tuple[str, str]]]:
        """({path: consent} or None, [(place, why it was dropped)]). `tree` is the record's ``consents``, `columns` what
        stands beside it by path, `key` the record's own. Raises FieldRefused for a tree that is none."""
        found: dict[str, Consent] = {}
        bad: list[tuple[str, str]] = []
        for path, value in self._values(tree, columns, key):
            known = VALUES.get(value.strip().lower()) if isinstance(value, str) else None
            if known is not None:
                found.setdefault(path, Consent(known, at))
            elif value is not None and value != "":
                bad.append((f"{CONSENTS}.{path}", "duplicate_key" if value is Ambiguous else "unknown_consent"))
        return found or None, bad

    def _values(self, tree: object, columns: Mapping[str, object], key: bytes) -> Iterator[tuple[str, object]]:
        if tree is not None and tree != "":
            if not isinstance(tree, Mapping):
                raise FieldRefused("not_an_object")
            if isinstance(tree, Ambiguous):
                raise FieldRefused("duplicate_key")
            yield from ((path, _value(tree, path)) for path in self._own)
            for said in _of_address(tree.get(FOR_THE_ADDRESS), key) if self._address else ():
                yield from ((f"{FOR_THE_ADDRESS}.{path}", _value(said, path)) for path in self._address)
        yield from columns.items()


def _of_address(tree: object, key: bytes) -> Iterator[Mapping[str, object]]:
    """What is said for the identity with this key, in whatever case its namespace is written."""
    for namespace, entries in tree.items() if isinstance(tree, Mapping) else ():
        key_in = _NAMESPACES.get(str(namespace).lower())
        for id, said in entries.items() if key_in and isinstance(entries, Mapping) else ():
            if isinstance(said, Mapping) and key_in and key_in(str(id)) == key:
                yield said


def _value(tree: Mapping[str, object], path: str) -> object:
    """The value under a path, None when there is none, `Ambiguous` itself where a key on the way stands twice."""
    for flat in (path, f"{path}.val"):
        if flat in tree:
            return _plain(tree[flat])
    node: object = tree
    for step in path.split("."):
        if isinstance(node, Ambiguous):
            return Ambiguous
        node = node.get(step) if isinstance(node, Mapping) else None
    return _plain(node)


def _plain(node: object) -> object:
    if isinstance(node, Ambiguous):
        return Ambiguous
    return node.get("val") if isinstance(node, Mapping) else node
