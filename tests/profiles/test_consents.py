"""A record's consents: which shapes say the same, what is kept, and what is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.model import Consent
from engine.profiles.formats import Reader
from engine.profiles.identity import key_of

WANTED = frozenset({"marketing.any", "marketing.email", "idSpecific.marketing.email", "share"})
LEA = "lea@example.com"


def read(consents: Any, *, order: str = "arrival", wanted: frozenset[str] = WANTED, **record: Any) -> Any:
    reader = Reader(mapping={}, extra_fields=frozenset(), order=order, max_events=10, consents=wanted)
    return reader.read(json.dumps({"email": LEA, "consents": consents, **record}).encode(), "application/json")


def values(parsed: Any) -> dict[str, str] | None:
    (event,) = parsed.events
    return event.consents and {path: consent.value for path, consent in event.consents.items()}


@pytest.mark.parametrize(
    "consents",
    [
        {"marketing": {"email": {"val": "n", "time": "2026-10-02T08:15:30Z", "reason": "too many"}}},
        {"marketing": {"email": "n"}},
        {"marketing.email": "n"},
        {"marketing.email": {"val": "n"}},
        {"marketing.email.val": "N "},
        {"marketing": {"email": {"val": "n"}, "preferred": "email"}, "metadata": {"time": "2026-10-02T08:15:30Z"}},
    ],
)
def test_the_shapes_that_say_the_same(consents: Any) -> None:
    parsed = read(consents)
    assert values(parsed) == {"marketing.email": "n"}
    assert parsed.dropped == []


@pytest.mark.parametrize("value", ["y", "n", "p", "u", "LI", "CT", "CP", "VI", "PI"])
def test_every_value_of_xdm_is_known_in_either_case(value: str) -> None:
    assert values(read({"share": value.lower()})) == values(read({"share": {"val": value}})) == {"share": value}


def test_only_what_is_asked_for_is_kept() -> None:
    every = {"marketing": {"any": {"val": "y"}, "sms": {"val": "n"}, "push": "odd"}, "collect": {"val": "y"}}
    parsed = read(every)
    assert values(parsed) == {"marketing.any": "y"}
    assert parsed.dropped == []


def test_where_nobody_asks_nothing_is_kept_and_nothing_is_wrong() -> None:
    parsed = read({"marketing": 7}, wanted=frozenset())
    assert values(parsed) is None
    assert parsed.dropped == []


@pytest.mark.parametrize(
    ("consents", "field", "reason"),
    [
        ({"marketing.email": "no"}, "consents.marketing.email", "unknown_consent"),
        ({"marketing": {"email": {"val": True}}}, "consents.marketing.email", "unknown_consent"),
        ({"share": ["n"]}, "consents.share", "unknown_consent"),
        ("n", "consents", "not_an_object"),
        ([], "consents", "not_an_object"),
    ],
)
def test_a_bad_value_is_dropped_with_its_reason_and_never_the_record(consents: Any, field: str, reason: str) -> None:
    parsed = read(consents)
    assert values(parsed) is None
    assert [(it.field, it.reason) for it in parsed.dropped] == [(field, reason)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"email":"lea@example.com","consents":{"share":"y","share":"n"}}',
        b'{"email":"lea@example.com","consents":{"marketing":{"email":"y","email":"n"}}}',
        b'{"email":"lea@example.com","consents":{"marketing":{"email":{"val":"y","val":"n"}}}}',
    ],
)
def test_a_consent_that_stands_twice_counts_for_nothing(body: bytes) -> None:
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10, consents=WANTED)
    parsed = reader.read(body, "application/json")
    assert values(parsed) is None
    assert {it.reason for it in parsed.dropped} == {"duplicate_key"}


@pytest.mark.parametrize("namespace", ["Email", "email", "EMAIL"])
def test_what_is_said_for_the_address_itself_is_kept_without_it(namespace: str) -> None:
    others = {"ana@example.com": {"marketing": {"email": {"val": "y"}}}, "nobody": {"marketing": {"email": "n"}}}
    mine = {" Lea@Example.com": {"marketing": {"email": {"val": "n"}}}}
    parsed = read({"idSpecific": {"ECID": {LEA: {"marketing": {"email": "p"}}}, namespace: {**others, **mine}}})
    assert values(parsed) == {"idSpecific.marketing.email": "n"}


def test_a_hashed_identity_is_the_address_too() -> None:
    hashed = {"Email_LC_SHA256": {key_of(LEA).hex().upper(): {"marketing": {"email": {"val": "n"}}}}}
    assert values(read({"idSpecific": hashed})) == {"idSpecific.marketing.email": "n"}


def test_the_time_of_the_event_counts_for_sources_that_go_by_it() -> None:
    (event,) = read({"share": "n"}, order="timestamp", timestamp=1_790_000_000).events
    assert event.consents == {"share": Consent("n", 1_790_000_000.0)}
    (event,) = read({"share": "n"}, timestamp=1_790_000_000).events
    assert event.consents == {"share": Consent("n")}


def test_a_csv_has_a_column_a_consent() -> None:
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10, consents=WANTED)
    parsed = reader.read(
        b"email,consents.marketing.email,consents.share\nlea@example.com,n,\nana@example.com,,y\n", "text/csv"
    )
    kept = [{path: it.value for path, it in event.consents.items()} for event in parsed.events]
    assert kept == [{"marketing.email": "n"}, {"share": "y"}]
    assert parsed.dropped == []


def test_a_source_can_map_its_own_name_to_a_consent() -> None:
    mapping = {"consents.marketing.email": "newsletter.choice", "consents": "legal"}
    reader = Reader(mapping=mapping, extra_fields=frozenset(mapping), order="arrival", max_events=10, consents=WANTED)
    parsed = reader.read_mappings([{"email": LEA, "newsletter": {"choice": "n"}, "legal": {"share": "y"}}])
    assert values(parsed) == {"marketing.email": "n", "share": "y"}
    assert parsed.events[0].content == b'{"email":"lea@example.com"}'


def test_records_with_consents_take_the_short_way_too() -> None:
    """As long as there is nothing to report, and nothing that only counts for one address."""
    without = read(None).events[0]
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10, consents=WANTED)
    assert reader._typed is not None
    taken = reader._typed.read(b'{"email":"lea@example.com","consents":{"share":"n"}}')
    assert taken is not None
    assert taken.consents == {"share": Consent("n")}
    for odd in (b'{"share":"perhaps"}', b'{"share":"n","share":"y"}', b'{"idSpecific":{}}', b'["share"]'):
        assert reader._typed.read(b'{"email":"lea@example.com","consents":%s}' % odd) is None
    assert (without.content, without.consents) == (b'{"email":"lea@example.com"}', None)
