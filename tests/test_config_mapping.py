"""Every mistake in a mapping is named at start, with its key and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from engine import Config
from engine.config import MappingRule
from engine.errors import ConfigError


def problems(mapping: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"source": [{"mapping": mapping}]})
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("rule", "key", "hint"),
    [
        (7, "", "expected a path or a table, got a whole number"),
        ("", "", "is empty"),
        (" ", "", "is empty"),
        ("$.person.name", "", "dots"),
        ("a[0].b", "", "identityMap.Email.0.id"),
        ("/person/name", "", "'person.name'"),
        ("person..name", "", "one dot"),
        ("person.name ", "", "one dot"),
        ({}, "", "set one of path, first_of, join, constant"),
        ({"upper": True}, "", "set one of path"),
        ({"path": ""}, ".path", "is empty"),
        ({"path": "a..b"}, ".path", "one dot"),
        ({"path": 7}, ".path", "got a whole number"),
        ({"path": "a", "constant": "x"}, ".constant", "stands beside path"),
        ({"path": "a", "lowr": True}, ".lowr", "did you mean 'lower'?"),
        ({"path": "a", "upper": "yes"}, ".upper", "true or false"),
        ({"path": "a", "upper": True, "lower": True}, ".upper", "stands beside lower"),
        ({"first_of": []}, ".first_of", "is empty"),
        ({"first_of": "a"}, ".first_of", "expected a list"),
        ({"first_of": ["a", "b."]}, ".first_of[1]", "one dot"),
        ({"join": ["a", ""]}, ".join[1]", "expected a text"),
        ({"path": "a", "separator": "-"}, ".separator", "join"),
        ({"constant": "x", "upper": True}, ".upper", "constant"),
        ({"constant": "x", "default": "y"}, ".default", "constant"),
        ({"path": "a", "boolean": ["yes"]}, ".boolean", "two texts"),
        ({"path": "a", "boolean": ["a", "b", "c"]}, ".boolean", "length <= 2"),
        ({"path": "a", "boolean": ["a", "b"], "date": "%Y"}, ".boolean", "stands beside date"),
        ({"path": "a", "date": "YYYY-MM-DD"}, ".date", "%Y-%m-%d"),
        ({"path": "a", "date": "%Y-%Q"}, ".date", "%Q"),
        ({"path": "a", "date": "%Y %"}, ".date", "does not know %"),
        ({"path": "a", "lookup": {"x": ""}}, ".lookup.x", "expected a text"),
        ({"path": "a", "lookup": ["x"]}, ".lookup", "expected a table"),
        ({"path": "a", "upper": True, "lookup": {"de": "x"}}, ".lookup.de", "'DE'"),
    ],
)
def test_a_mistake_is_exactly_one_problem_of_its_key(rule: object, key: str, hint: str) -> None:
    (problem,) = problems({"jobtitle": rule})
    assert problem.startswith(f"configuration: source[0].mapping.jobtitle{key}: ")
    assert hint in problem


@pytest.mark.parametrize("name", ["audiences", "timestamp"])
@pytest.mark.parametrize(("rule", "key"), [({"path": "a", "upper": True}, "upper"), ({"constant": "x"}, "constant")])
def test_what_is_no_text_cannot_be_transformed(name: str, rule: dict[str, Any], key: str) -> None:
    (problem,) = problems({name: rule})
    assert problem.startswith(f"configuration: source[0].mapping.{name}.{key}: ")


def test_all_mistakes_are_named_at_once_and_with_their_lines(tmp_path: Any) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[[source]]\n[source.mapping]\ncity = "a..b"\nzip = { path = "a", loer = true }\n')
    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    assert [it.split(": ")[0].removeprefix(str(file)) for it in caught.value.problems] == [":3", ":4"]


def test_a_right_mapping_is_there_as_rules_and_shown_as_it_was_written() -> None:
    rule = {"first_of": ["a.b", "c"], "trim": True}
    config = Config.from_dict({"source": [{"mapping": {"city": "x.y", "jobtitle": rule}}]})
    assert config.sources[0].mapping == {"city": "x.y", "jobtitle": MappingRule(first_of=("a.b", "c"), trim=True)}
    shown = config.describe()["source"][0]["mapping"]
    assert shown["city"] == "x.y"
    assert (shown["jobtitle"]["first_of"], shown["jobtitle"]["trim"]) == (["a.b", "c"], True)


def test_a_field_of_a_rule_is_known_to_destinations() -> None:
    source = {"mapping": {"badge": {"constant": "7"}}}
    assert Config.from_dict({"source": [source], "destination": [{"fields": ["badge"], "rename": {"badge": "b"}}]})
