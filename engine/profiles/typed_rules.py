"""What a source's rules look at, as members of a typed record, and the rules carried out on one.

Taken are rules for fields whose paths are steps by name through objects. Where a source has any other rule, or paths
that contradict each other, its records are left to the exact path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from engine.profiles.fields import MAX_LENGTH
from engine.profiles.rules import Rule

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LENGTH)] | None
Member = tuple[str, Any, Any]
"""(attribute, type, default)"""

_Tree = dict[str, "_Tree | None"]
"""Step -> what is below; None where a value stands."""

_Get = Callable[[Any], Any]


class TypedRules:
    """`members` are those that a record needs beside its fields, under `names` (attribute -> name as it is written)."""

    def __init__(self, rules: Mapping[str, Rule], attributes: Mapping[str, str], tree: _Tree) -> None:
        self.names = {f"step_{number}": step for number, step in enumerate(tree)}
        self.members: list[Member] = [(attribute, _type(tree[step]), None) for attribute, step in self.names.items()]
        own = {**attributes, **{step: attribute for attribute, step in self.names.items()}}
        self._simple = [
            (attributes[name], _getter(rule.paths[0], own, tree)) for name, rule in rules.items() if rule.takes_as_is
        ]
        self._others = [
            (attributes[name], rule.of, [_getter(path, own, tree) for path in rule.paths])
            for name, rule in rules.items()
            if not rule.takes_as_is
        ]

    def apply(self, record: Any) -> None:
        """Put what the rules find under the fields' names, and take away what they looked at. Raises ValueError where
        the exact path has to judge."""
        found = [(attribute, get(record)) for attribute, get in self._simple]
        for attribute, conclude, getters in self._others:
            value = conclude([get(record) for get in getters])
            if value is not None and len(str(value)) > MAX_LENGTH:
                raise ValueError("too_long")
            found.append((attribute, value))
        for attribute in self.names:
            setattr(record, attribute, None)
        for attribute, value in found:
            if value:
                setattr(record, attribute, value)


def typed_rules(
    rules: Mapping[str, Rule], attributes: Mapping[str, str], reserved: frozenset[str]
) -> TypedRules | None:
    """None where these rules need the exact path. `attributes`: field -> attribute of a record; `reserved`: names at
    the top of a record that mean something else than text."""
    tree: _Tree = {}
    if not rules.keys() <= attributes.keys():
        return None
    for rule in rules.values():
        for path in rule.paths:
            first, *below = path.split(".")
            if first in reserved or (first in attributes and below):
                return None
            if first not in attributes and not _grow(tree, [first, *below]):
                return None
    return TypedRules(rules, attributes, tree)


def _grow(tree: _Tree, steps: list[str]) -> bool:
    """Whether this path can stand beside those that are there."""
    *way, last = steps
    node = tree
    for step in way:
        below = node.setdefault(step, {})
        if below is None:
            return False
        node = below
    return not any(step.isdecimal() for step in steps) and node.setdefault(last, None) is None


def _type(tree: _Tree | None) -> Any:
    if tree is None:
        return Text
    members = [(f"step_{number}", _type(below), None) for number, below in enumerate(tree.values())]
    rename = {f"step_{number}": step for number, step in enumerate(tree)}
    node = msgspec.defstruct("Node", members, rename=rename, omit_defaults=True, forbid_unknown_fields=True, gc=False)
    return node | None


def _getter(path: str, own: Mapping[str, str], tree: _Tree) -> _Get:
    first, *below = path.split(".")
    attributes = [own[first], *_attributes(below, tree.get(first))]
    return attrgetter(attributes[0]) if len(attributes) == 1 else _following([attrgetter(it) for it in attributes])


def _attributes(steps: list[str], tree: _Tree | None) -> Iterator[str]:
    for step in steps:
        assert tree is not None
        yield f"step_{[*tree].index(step)}"
        tree = tree[step]


def _following(getters: list[_Get]) -> _Get:
    def follow(record: Any) -> Any:
        for get in getters:
            if record is None:
                return None
            record = get(record)
        return record

    return follow
