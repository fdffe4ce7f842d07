"""How a source finds the value of a field in its records: `[[source]] mapping`, made ready to run.

A value is found, then transformed, always in this order: `boolean` or `date`, `trim`, `lower` or `upper`, `lookup`.
Where nothing is found the `default` stands, and without one what the record says under the field's own name. What a
rule means for its user: docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

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
        self._rule, self._text = rule, text
        self.paths = (rule.path,) if rule.path else rule.first_of or rule.join
        self._paths = [Path(it) for it in self.paths]
        self._transforms = bool(rule.trim or rule.lower or rule.upper or rule.lookup or rule.date or rule.boolean)
        self.origin = (
            f"constant {rule.constant!r}" if rule.constant else (" + " if rule.join else " | ").join(self.paths)
        )

    def value(self, record: Mapping[str, object]) -> object:
        """None or "" when there is none. Raises FieldRefused."""
        rule = self._rule
        if rule.constant:
            return rule.constant
        value = self._joined(record) if rule.join else self._first(record)
        if _is_nothing(value):
            return rule.default
        if self._transforms:
            value = self._transformed(value)
        return rule.default if rule.default and _is_nothing(value) else value

    def _at(self, path: Path, record: Mapping[str, object]) -> object:
        value = path.follow(record)
        if self._text and isinstance(value, Mapping) and value.keys() <= {"value"}:
            return value.get("value")
        return value

    def _first(self, record: Mapping[str, object]) -> object:
        for path in self._paths:
            if not _is_nothing(value := self._at(path, record)):
                return value
        return None

    def _joined(self, record: Mapping[str, object]) -> str:
        values = [value for path in self._paths if not _is_nothing(value := self._at(path, record))]
        return self._rule.separator.join(_text(value).strip() for value in values)

    def _transformed(self, value: object) -> str:
        rule = self._rule
        if rule.boolean:
            text = rule.boolean[0] if _truth(value) else rule.boolean[1]
        elif rule.date:
            text = datetime.fromtimestamp(parse_time(value), UTC).strftime(rule.date)
        else:
            text = _text(value)
        text = text.strip() if rule.trim or rule.lookup else text
        text = text.lower() if rule.lower else text.upper() if rule.upper else text
        return rule.lookup.get(text, text)


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


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
