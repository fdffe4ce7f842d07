"""How a source finds the value of a field in its records: `[[source]] mapping`, made ready to run.

A value is found, then transformed, always in this order: `boolean` or `date`, `trim`, `lower` or `upper`, `lookup`.
Where nothing is found the `default` stands, and without one what the record says under the field's own name. What a
rule means for its user: docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from engine.config import MappingRule
from engine.profiles.audiences import parse_time
from engine.profiles.fields import FieldRefused
from engine.profiles.json_exact import Ambiguous

_TRUE = frozenset({"true", "yes", "y", "t", "1", "on"})
_FALSE = frozenset({"false", "no", "n", "f", "0", "off"})


class Path:
    """A dotted path: looked up as a key of its own, then step by step; steps into a list are numbers."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        self.text, self._steps = text, text.split(".")

    def follow(self, record: Mapping[str, object]) -> object:
        """None where it leads nowhere. Raises FieldRefused("duplicate_key") where a step stands twice."""
        if self.text in record:
            return record[self.text]
        value: object = record
        for step in self._steps:
            if isinstance(value, Ambiguous):
                raise FieldRefused("duplicate_key")
            if isinstance(value, Mapping):
                value = value.get(step)
            elif isinstance(value, (list, tuple)) and step.isdecimal() and len(step) < 4 and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
        return value


class Rule:
    """`text`: the field is one, so that ``{"value": x}``, an attribute of Destination SDK, means x."""

    def __init__(self, spec: str | MappingRule, *, text: bool) -> None:
        rule = MappingRule(path=spec) if isinstance(spec, str) else spec
        self._text, self._constant, self._default = text, rule.constant, rule.default
        self._separator = rule.separator if rule.join else None
        self.paths = rule.paths
        self._paths = [Path(it) for it in self.paths]
        self._steps = list(_steps(rule))
        self.takes_as_is = bool(rule.path) and not (self._steps or rule.default)
        self.origin = (
            f"constant {rule.constant!r}" if rule.constant else (" + " if rule.join else " | ").join(self.paths)
        )

    def value(self, record: Mapping[str, object]) -> object:
        """None or "" when there is none. Raises FieldRefused."""
        return self.of(self._at(path, record) for path in self._paths)

    def of(self, values: Iterable[object]) -> object:
        """What the rule makes of the values at its paths, in order. None or "" for nothing. Raises FieldRefused."""
        if self._constant:
            return self._constant
        value = _first(values) if self._separator is None else self._joined(values, self._separator)
        if _is_nothing(value):
            return self._default
        for step in self._steps:
            value = step(value)
        return self._default if self._default and _is_nothing(value) else value

    def _at(self, path: Path, record: Mapping[str, object]) -> object:
        value = path.follow(record)
        if self._text and isinstance(value, Mapping) and value.keys() <= {"value"}:
            return value.get("value")
        return value

    def _joined(self, values: Iterable[object], separator: str) -> str:
        return separator.join(_text(value).strip() for value in values if not _is_nothing(value))


_Step = Callable[[Any], str | None]


def _steps(rule: MappingRule) -> Iterator[_Step]:
    """The transformations, in their order; each takes what the one before it gives. They raise FieldRefused."""
    if rule.boolean:
        yes, no = rule.boolean
        yield lambda value: yes if _truth(value) else no
    elif rule.date:
        yield lambda value: datetime.fromtimestamp(parse_time(value), UTC).strftime(rule.date)
    elif rule.trim or rule.lower or rule.upper or rule.lookup:
        yield _text
    if rule.trim or rule.lookup:
        yield str.strip
    if rule.lower or rule.upper:
        yield str.lower if rule.lower else str.upper
    if rule.lookup:
        yield lambda text: rule.lookup.get(text, text)


def _first(values: Iterable[object]) -> object:
    for value in values:
        if not _is_nothing(value):
            return value
    return None


def _is_nothing(value: object) -> bool:
    return value is None or (type(value) is str and (not value or value.isspace()))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise FieldRefused("not_text")


def _truth(value: object) -> bool:
    word = str(value).strip().lower() if isinstance(value, (str, bool, int)) else ""
    if word not in _TRUE and word not in _FALSE:
        raise FieldRefused("not_a_boolean")
    return word in _TRUE
