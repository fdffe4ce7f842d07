"""What a `[[source]] mapping` does to a record."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine import Config
from engine.assembly.readers import readers_of
from engine.profiles.formats import Parsed

LEA = "lea@example.com"


def read(rule: object, record: dict[str, Any], field: str = "jobtitle") -> Parsed:
    """The record through a source whose mapping is read as TOML's would be."""
    config = Config.from_dict({"source": [{"mapping": {field: rule}}]})
    reader, _ = readers_of(config, lambda: 0.0)["default"]
    return reader.read(json.dumps({"email": LEA, "jobtitle": "plain"} | record).encode(), "application/json")


def value(rule: object, record: dict[str, Any], field: str = "jobtitle") -> str | None:
    parsed = read(rule, record, field)
    content: dict[str, str] = msgspec.json.decode(parsed.events[0].content)
    return content.get(field)


def reason(rule: object, record: dict[str, Any]) -> tuple[str, str]:
    parsed = read(rule, record)
    assert "jobtitle" not in msgspec.json.decode(parsed.events[0].content)
    return parsed.dropped[0].field, parsed.dropped[0].reason


@pytest.mark.parametrize(
    ("rule", "record", "expected"),
    [
        ("a.b", {"a": {"b": "x"}}, "x"),
        ({"path": "a.b"}, {"a": {"b": "x"}}, "x"),
        ({"path": "a.1.b"}, {"a": [{}, {"b": "x"}]}, "x"),
        ({"path": "a", "trim": True}, {"a": "  x "}, "x"),
        ({"path": "a", "lower": True}, {"a": "ÀB"}, "àb"),
        ({"path": "a", "upper": True}, {"a": "àb"}, "ÀB"),
        ({"path": "a", "upper": True}, {"a": 7}, "7"),
        ({"first_of": ["a", "b.c"]}, {"b": {"c": "x"}}, "x"),
        ({"first_of": ["a", "b"]}, {"a": " ", "b": "x"}, "x"),
        ({"first_of": ["a", "b"]}, {"a": "y", "b": "x"}, "y"),
        ({"join": ["a", "b", "c"]}, {"a": " x ", "c": 7}, "x 7"),
        ({"join": ["a", "b"], "separator": ", "}, {"a": "x", "b": "y"}, "x, y"),
        ({"constant": "Attendee"}, {}, "Attendee"),
        ({"path": "a", "lookup": {"DE": "Germany"}}, {"a": " DE "}, "Germany"),
        ({"path": "a", "lookup": {"DE": "Germany"}}, {"a": "FR"}, "FR"),
        ({"path": "a", "upper": True, "lookup": {"DE": "Germany"}}, {"a": "de"}, "Germany"),
        ({"path": "a", "date": "%Y-%m-%d"}, {"a": "2026-10-02T23:15:30+0000"}, "2026-10-02"),
        ({"path": "a", "date": "%d.%m.%Y %H:%M"}, {"a": "2026-10-02T00:15:30+02:00"}, "01.10.2026 22:15"),
        ({"path": "a", "date": "%Y"}, {"a": 1790928930000}, "2026"),
        ({"path": "a", "boolean": ["yes", "no"]}, {"a": True}, "yes"),
        ({"path": "a", "boolean": ["yes", "no"]}, {"a": 0}, "no"),
        ({"path": "a", "boolean": ["Opted in", "Opted out"]}, {"a": " TRUE "}, "Opted in"),
        ({"path": "a", "boolean": ["1", "0"], "lookup": {"0": "none"}}, {"a": "n"}, "none"),
        ({"path": "a", "default": "Attendee"}, {}, "Attendee"),
        ({"path": "a", "default": "Attendee"}, {"a": "x"}, "x"),
        ({"path": "a"}, {"a": None}, "plain"),
        ({"join": ["a", "b"]}, {}, "plain"),
        ({"path": "attributes.nick"}, {"attributes": {"nick": {"value": "x"}}}, "x"),
        ({"path": "attributes.nick"}, {"attributes": {"nick": {}}}, "plain"),
        ({"path": "identityMap.CRMID.0.id"}, {"identityMap": {"CRMID": [{"id": "x"}]}}, "x"),
    ],
)
def test_a_rule_finds_and_transforms(rule: object, record: dict[str, Any], expected: str) -> None:
    assert value(rule, record) == expected


@pytest.mark.parametrize(
    ("rule", "given", "why"),
    [
        ({"path": "a", "date": "%Y"}, "soon", "not_a_time"),
        ({"path": "a", "date": "%Y"}, {"year": 2026}, "not_a_time"),
        ({"path": "a", "boolean": ["yes", "no"]}, "maybe", "not_a_boolean"),
        ({"path": "a", "boolean": ["yes", "no"]}, [True], "not_a_boolean"),
        ({"path": "a", "boolean": ["yes", "no"]}, 1.0, "not_a_boolean"),
        ({"path": "a", "upper": True}, {"b": 1}, "not_text"),
        ({"path": "a", "upper": True}, True, "not_text"),
        ({"join": ["a", "email"]}, ["x"], "not_text"),
        ({"path": "a"}, ["x"], "not_text"),
        ({"path": "a"}, "x" * 256, "too_long"),
    ],
)
def test_what_a_rule_cannot_transform_is_dropped_and_the_record_stays(rule: object, given: object, why: str) -> None:
    assert reason(rule, {"a": given}) == ("jobtitle", why)


def test_identities_may_be_transformed_too() -> None:
    rule = {"first_of": ["work", "private"], "lower": True}
    assert value(rule, {"private": " TOM@example.com "}, "email") == "tom@example.com"


@pytest.mark.parametrize("rule", ["a.mail", {"first_of": ["a.mail", "b"], "lower": True}])
@pytest.mark.parametrize("field", ["email", "email_lc_sha256"])
def test_an_identity_whose_path_is_ambiguous_costs_the_record(rule: object, field: str) -> None:
    """Which of two people is meant cannot be known, also where another address stands beside it."""
    config = Config.from_dict({"source": [{"mapping": {field: rule}}]})
    reader, _ = readers_of(config, lambda: 0.0)["default"]
    parsed = reader.read(b'{"email":"lea@example.com","a":{"mail":"a@a.com","mail":"b@b.com"}}', "application/json")
    assert [(it.field, it.reason) for it in parsed.rejected] == [(field, "duplicate_key")]


def test_audiences_and_their_times_are_found_by_path() -> None:
    standing = {"a": {"status": "realized", "lastQualificationTime": "2026-10-02"}}
    parsed = read({"first_of": ["x", "standing"]}, {"standing": standing}, "audiences")
    assert list(parsed.events[0].audiences or ()) == ["ups/a"]


def test_what_a_rule_looks_at_is_not_unknown() -> None:
    assert read({"join": ["a.b", "c"]}, {"a": {"b": "x", "d": 1}, "c": "y"}).dropped == []


def test_a_result_is_checked_like_any_value_of_its_field() -> None:
    parsed = read({"constant": "Atlantis"}, {}, "countryid")
    assert (parsed.dropped[0].field, parsed.dropped[0].reason) == ("countryid", "not_iso_3166_1")


@pytest.mark.parametrize(("format", "known"), [("auto", False), ("aep", True), ("profile", False)])
def test_the_format_of_a_source_is_that_of_its_reader(format: str, known: bool) -> None:
    """Nothing gives this profile away as AEP's but the source."""
    config = Config.from_dict({"source": [{"format": format}]})
    parsed = readers_of(config, lambda: 0.0)["default"][0].read(b'{"Email":"lea@example.com"}', "application/json")
    assert bool(parsed.events) is known
