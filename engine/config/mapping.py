"""`[[source]] mapping`: target field = path, or a rule that says more. What a rule does: docs/configuration.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import field

from engine.config.kinds import Table, Text
from engine.config.problems import Reader, kind

PLACES = ("path", "first_of", "join", "constant")
TRANSFORMATIONS = ("trim", "lower", "upper", "lookup", "date", "boolean")
NOT_TEXT = ("audiences", "timestamp", "consents")
"""What a record holds beside fields and identities: taken as it is."""

_directives = re.compile(r"%(.?)", re.DOTALL)
_DIRECTIVES = "aAwdbBmyYHIpMSfjUWcxXGuV%"

PairOfTexts = Annotated[tuple[Text, ...], msgspec.Meta(max_length=2)]


class MappingRule(Table, frozen=True, kw_only=True):
    """One of `PLACES` is set; the rest transforms what is found there."""

    path: str = ""
    first_of: tuple[Text, ...] = ()
    join: tuple[Text, ...] = ()
    constant: str = ""
    separator: str = " "
    default: str = ""
    trim: bool = False
    lower: bool = False
    upper: bool = False
    lookup: dict[str, Text] = field(default_factory=dict)
    date: str = ""
    boolean: PairOfTexts = ()


def read_mapping(raw: Mapping[str, object], key: str, reader: Reader) -> dict[str, str | MappingRule]:
    """The mapping of one source, each fault reported under its own key."""
    read: dict[str, str | MappingRule] = {}
    for name, value in raw.items():
        where = f"{key}.{name}"
        if isinstance(value, str):
            read[name] = value
            faults = _path_faults("", value)
        elif isinstance(value, Mapping):
            read[name] = rule = reader.table(MappingRule, value, where)
            faults = _rule_faults(name, rule, value)
        else:
            faults = iter([("", f'expected a path or a table, got {kind(value)}; write {name} = "person.name"')])
        for inner, what in faults:
            reader.report(where + inner, what)
    return read


def _rule_faults(name: str, rule: MappingRule, given: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    places = [it for it in PLACES if it in given]
    if not places:
        yield "", f"says nowhere where the value is; set one of {', '.join(PLACES)}"
    for extra in places[1:]:
        yield f".{extra}", f"stands beside {places[0]}; keep one of {', '.join(PLACES)}"
    for place in places[:1]:
        yield from _place_faults(place, getattr(rule, place))
    transformations = [it for it in TRANSFORMATIONS if getattr(rule, it)]
    if name in NOT_TEXT:
        for it in (*transformations, *(it for it in ("join", "constant", "default") if getattr(rule, it))):
            yield f".{it}", f"{name} is no text and taken as it is; keep path or first_of alone"
        return
    if rule.constant:
        for it in (*transformations, *(["default"] if rule.default else [])):
            yield f".{it}", "does nothing to a constant; write the constant as it shall leave"
    if "separator" in given and not rule.join:
        yield ".separator", "only stands between the values of join; leave it out"
    yield from _transformation_faults(rule)


def _transformation_faults(rule: MappingRule) -> Iterator[tuple[str, str]]:
    if rule.lower and rule.upper:
        yield ".upper", "stands beside lower; keep one of them"
    if rule.date and rule.boolean:
        yield ".boolean", "stands beside date; keep one of them"
    if rule.boolean and len(rule.boolean) != 2:
        yield ".boolean", 'needs two texts, for true and for false, as ["yes", "no"]'
    if rule.date and (fault := _date_fault(rule.date)):
        yield ".date", fault
    for cased, change in ((rule.lower, str.lower), (rule.upper, str.upper)):
        for word in rule.lookup:
            if cased and change(word) != word:
                yield f".lookup.{word}", f"is never met, as the case is changed before; write {change(word)!r}"


def _place_faults(place: str, value: object) -> Iterator[tuple[str, str]]:
    if value == "" or value == ():
        yield f".{place}", "is empty; name a path, or a text for constant"
    elif place == "path":
        yield from _path_faults(".path", str(value))
    elif isinstance(value, tuple):
        for index, path in enumerate(value):
            yield from _path_faults(f".{place}[{index}]", path)


def _path_faults(inner: str, path: str) -> Iterator[tuple[str, str]]:
    if not path.strip():
        yield inner, 'is empty; write a path such as "person.name.firstName"'
    elif path.startswith("$") or "[" in path:
        yield (
            inner,
            "is no JSONPath; write steps with dots, in a list the number, as identityMap.Email.0.id",
        )
    elif "/" in path and "." not in path:
        yield inner, f"has slashes; write {path.strip('/').replace('/', '.')!r}"
    elif path != path.strip() or "" in path.split("."):
        yield (
            inner,
            "has an empty step or spaces around it; write one dot between steps, as person.name.firstName",
        )


def _date_fault(format: str) -> str:
    found = _directives.findall(format)
    if not found:
        return 'names no part of a date; write a format such as "%Y-%m-%d"'
    unknown = [it for it in found if it not in _DIRECTIVES or not it]
    return f"does not know %{unknown[0]}; use %Y, %m, %d, %H, %M, %S and the like" if unknown else ""
