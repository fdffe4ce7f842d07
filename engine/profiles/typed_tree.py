"""Paths through nested objects as a type that msgspec decodes, so that values are had by attribute.

An object that is absent is there all the same, empty: one look takes the values at many paths, and what is written
again lacks it, as what was read did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from engine.profiles.fields import MAX_LENGTH

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LENGTH)] | None
Member = tuple[str, Any, Any]
"""(attribute, type, default)"""

Tree = dict[str, Any]
"""Step -> what is below; None where a value stands."""


class _Frozen(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What may be a default."""


def grow(tree: Tree, path: str) -> bool:
    """Add a path. False when it cannot stand beside those that are there, or has a step that may mean a list."""
    *way, last = steps = path.split(".")
    for step in way:
        below = tree.setdefault(step, {})
        if below is None:
            return False
        tree = below
    return not any(step.isdecimal() for step in steps) and tree.setdefault(last, None) is None


def attributes(tree: Tree) -> dict[str, str]:
    """Step -> the attribute that holds it: a step may be anything."""
    return {step: f"step_{number}" for number, step in enumerate(tree)}


def members(tree: Tree, types: Mapping[str, Any] | None = None, path: str = "") -> list[Member]:
    """One a step of the tree. `types`: path -> type of its value, where that is not `Text`."""
    return [(attribute, *_member(tree[step], types or {}, path + step)) for step, attribute in attributes(tree).items()]


def _member(tree: Tree | None, types: Mapping[str, Any], path: str) -> tuple[Any, Any]:
    if tree is None:
        return types.get(path, Text), None
    rename = {attribute: step for step, attribute in attributes(tree).items()}
    node = struct_type("Node", members(tree, types, f"{path}."), rename, _Frozen)
    return node, node()


def struct_type(name: str, members: list[Member], rename: Mapping[str, str], base: type[msgspec.Struct]) -> Any:
    """A type of these members beside those of `base`; `rename`: attribute -> name as it is written."""
    return msgspec.defstruct(
        *(name, members), bases=(base,), rename=rename, omit_defaults=True, forbid_unknown_fields=True, gc=False
    )


def getter(tree: Tree, paths: Iterable[str]) -> Any:
    """From a record to the tuple of the values at several paths."""
    return attrgetter(*(attribute_at(tree, path) for path in paths))


def attribute_at(tree: Tree, path: str) -> str:
    """The attributes on the way to a path, with dots."""
    step, _, below = path.partition(".")
    attribute, node = attributes(tree)[step], tree[step]
    return f"{attribute}.{attribute_at(node, below)}" if below and node is not None else attribute
