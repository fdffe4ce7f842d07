"""A source's rules, carried out on typed records.

Which rules can be: `short_ways`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from engine.profiles.fields import MAX_LENGTH
from engine.profiles.rules import Rule
from engine.profiles.typed_tree import Tree, attribute_at


class TypedRules:
    """`fields`: field -> the attribute that takes what its rule finds. Paths are looked up in `tree`, or are names in
    `plain` (name -> attribute)."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        fields: Mapping[str, str],
        tree: Tree,
        *,
        plain: Mapping[str, str] | None = None,
    ) -> None:
        own = plain or {}

        def attribute(path: str) -> str:
            return own[path] if path in own else attribute_at(tree, path)

        simple = {fields[name]: attribute(rule.paths[0]) for name, rule in rules.items() if rule.takes_as_is}
        self._simple, self._get = tuple(simple), _values(simple.values())
        self._others = [
            (fields[name], rule.of, _values(map(attribute, rule.paths)))
            for name, rule in rules.items()
            if not rule.takes_as_is
        ]

    def find(self, record: Any) -> list[tuple[str, Any]]:
        """(attribute, value or nothing) of every rule. Raises ValueError where the exact path has to judge."""
        found = list(zip(self._simple, self._get(record), strict=True))
        for attribute, conclude, values in self._others:
            value = conclude(values(record))
            if value is not None and len(str(value)) > MAX_LENGTH:
                raise ValueError("too_long")
            found.append((attribute, value))
        return found


def _values(attributes: Iterable[str]) -> Callable[[Any], tuple[Any, ...]]:
    """From a record to the values of these attributes, always as a tuple."""
    names = list(attributes)
    if not names:
        return lambda record: ()
    if len(names) == 1:
        get = attrgetter(names[0])
        return lambda record: (get(record),)
    return attrgetter(*names)
