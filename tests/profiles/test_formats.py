from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from engine.model import Membership, Rejection, Trait
from engine.profiles.formats import MEDIA_TYPES, BodyUnreadable, Parsed, Reader, TooManyEvents
from engine.profiles.identity import key_of

KEY = key_of("lea@example.com")
JSON = "application/json"


def reader(**settings: Any) -> Reader:
    defaults: dict[str, Any] = {"mapping": {}, "extra_fields": frozenset(), "order": "arrival", "max_events": 1_000}
    return Reader(**(defaults | settings))


def read(records: object, **settings: Any) -> Parsed:
    return reader(**settings).read(json.dumps(records).encode(), JSON)


def one(record: dict[str, Any], **settings: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """(content, what was dropped) of one record that is accepted."""
    parsed = read(record, **settings)
    assert parsed.rejected == []
    return msgspec.json.decode(parsed.events[0].content), [(it.field, it.reason) for it in parsed.dropped]


def refused(record: object, **settings: Any) -> tuple[str, str]:
    parsed = read([record], **settings)
    assert parsed.events == []
    return parsed.rejected[0].field, parsed.rejected[0].reason


# -- framing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ('{"email":"lea@example.com"}', JSON),
        ('\ufeff\r\n [{"email":"lea@example.com"}]\n', JSON),
        ('{"audienceId":"x","profiles":[{"email":"lea@example.com"}]}', JSON),
        ('{"pro\\u0066iles":[{"email":"lea@example.com"}]}', JSON),
        ('{"email":"lea@example.com"}', "application/x-ndjson"),
        ('\ufeff\n\n {"email":"lea@example.com"}\r\n \n', "application/ndjson"),
        ('{"email":"lea@example.com"}\n', "application/jsonl"),
        ("email\nlea@example.com\n", "text/csv"),
        ('\ufeff"email"\r\n"lea@example.com"', "text/csv"),
    ],
)
def test_every_format_gives_the_same_event(body: str, media_type: str) -> None:
    parsed = reader().read(body.encode(), media_type)
    assert [(it.key, it.content, it.traits) for it in parsed.events] == [(KEY, b'{"email":"lea@example.com"}', 1)]
    assert (parsed.records, parsed.indexes, parsed.rejected, parsed.dropped) == (1, [0], [], [])
    assert media_type in MEDIA_TYPES


@pytest.mark.parametrize(("body", "records"), [("[]", 0), ('{"profiles":[]}', 0), (" [ ] ", 0), ("[{}]", 1)])
def test_a_body_may_hold_no_profile(body: str, records: int) -> None:
    parsed = reader().read(body.encode(), JSON)
    assert (parsed.records, parsed.events) == (records, [])


@pytest.mark.parametrize(
    ("body", "media_type", "place"),
    [
        (b"", JSON, ""),
        (b" \n", JSON, ""),
        (b"7", JSON, "byte 0"),
        (b'"lea@example.com"', JSON, "byte 0"),
        (b'[{"email":"lea@example.com"}', JSON, "byte 28"),
        (b'[{"email":"lea@example.com"}}', JSON, "byte 28"),
        (b'[{"email":"lea@example.com"}] lea', JSON, "byte 31"),
        (b'[{"email":"lea@example.com"},]', JSON, "byte 29"),
        (b'{"email":lea@example.com}', JSON, "byte 9"),
        (b"\xef\xbb\xbf{'email':1}", JSON, "byte 4"),
        (b'{"profiles":{"email":"lea@example.com"}}', JSON, "byte 12"),
        (b'{"profiles":[],"profiles":[{"email":"lea@example.com"}]}', JSON, "byte 26"),
        ('[{"email":"lea@example.com"}]'.encode("utf-16"), JSON, "byte 0"),
        (b"", "text/csv", "line 1"),
        (b"email,email\nlea@example.com,x\n", "text/csv", "line 1"),
        (b"name;mail\nlea;lea@example.com\n", "text/csv", "line 1"),
        (b'email,city\nlea@example.com,"Lille\n', "text/csv", "line 2"),
        (b'email,city\nlea@example.com,"Li"lle\n', "text/csv", "line 2"),
        (b"email,city\nlea@example.com," + b"x" * 140_000, "text/csv", "line 2"),
        (b"email\nl\xe9a@example.com\n", "text/csv", "byte 7"),
        (b"email\nlea@example.com\n", "text/plain", ""),
    ],
)
def test_a_body_that_cannot_be_read_says_where_and_quotes_nothing(body: bytes, media_type: str, place: str) -> None:
    with pytest.raises(BodyUnreadable) as caught:
        reader().read(body, media_type)
    assert caught.value.place == place
    assert "lea" not in str(caught.value)
    assert caught.value.detail


@pytest.mark.parametrize("media_type", sorted(MEDIA_TYPES))
def test_one_record_more_than_the_limit_refuses_the_body(media_type: str) -> None:
    few = {"text/csv": b"email\na@a.com\nb@b.com\n\n", JSON: b'[{"email":"a@a.com"},{}]'}.get(media_type, b"{}\n\n{}")
    assert reader(max_events=2).read(few, media_type).records == 2
    with pytest.raises(TooManyEvents) as caught:
        reader(max_events=1).read(few, media_type)
    assert caught.value.limit == 1


def test_a_body_of_a_million_elements_is_refused_without_being_taken_apart() -> None:
    body = b"[" + b"0," * 1_500_000 + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyEvents):
            reader(max_events=10).read(body, JSON)
        assert tracemalloc.get_traced_memory()[1] < len(body)
    finally:
        tracemalloc.stop()


def test_blank_lines_have_the_limit_of_records() -> None:
    assert reader(max_events=2).read(b"email\n\n\na@a.com\n\n\n\n\n", "text/csv").records == 1
    with pytest.raises(TooManyEvents):
        reader(max_events=2).read(b"email\n\n\n\na@a.com\n", "text/csv")


def test_programs_hand_in_no_more_than_the_limit_either() -> None:
    with pytest.raises(TooManyEvents):
        reader(max_events=1).read_mappings([{}, {}])


def test_a_bad_line_leaves_the_others_alone() -> None:
    lines = b'{"email":"a@a.com"}\n{"email":\n\n[1]\nlea@example.com\n{"email":"b@b.com"}'
    parsed = reader().read(lines, "application/x-ndjson")
    assert parsed.indexes == [0, 4]
    assert parsed.rejected == [
        Rejection(1, "", "not_json"),
        Rejection(2, "", "not_an_object"),
        Rejection(3, "", "not_json"),
    ]
    assert parsed.records == 5


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"email":"b@b.com","city":"\xff"}', "not_utf_8"),
        (b'{"email":"b@b.com","city":"a","city":"b"}', "duplicate_key"),
        (b'{"email":"b@b.com","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested_too_deeply"),
        (b'{"email":"b@b.com","city":"' + b"x" * 1_048_576 + b'"}', "record_too_large"),
        (b'{"email":"b@b.com"' + b" " * 1_048_576 + b"}", "record_too_large"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
    ],
)
@pytest.mark.parametrize(
    "frame", [b'{"email":"a@a.com"}\n%s\n{"email":"c@c.com"}', b'[{"email":"a@a.com"},%s,{"email":"c@c.com"}]']
)
def test_a_bad_record_leaves_the_others_alone(frame: bytes, bad: bytes, reason: str) -> None:
    parsed = reader().read(frame % bad, JSON if frame.startswith(b"[") else "application/x-ndjson")
    assert parsed.indexes == [0, 2]
    assert parsed.rejected == [Rejection(1, "", reason)]


@pytest.mark.parametrize("value", [b'"\\ud800"', b"NaN", b"-Infinity", b"1e999", b"1" * 5_000])
def test_a_value_that_json_cannot_hold_costs_one_field_not_the_body(value: bytes) -> None:
    parsed = reader().read(b'{"profiles":[{"email":"a@a.com","zip":%s},{"email":"b@b.com"}]}' % value, JSON)
    assert parsed.indexes == [0, 1]
    assert [(it.index, it.field) for it in parsed.dropped] == [(0, "zip")]


# -- one record -------------------------------------------------------------------------------------------------------


def test_the_content_is_in_canonical_order_whatever_order_it_came_in() -> None:
    record = {
        "zip": "59000",
        "vip": "yes",
        "city": "Lille",
        "badge": "7",
        "email": " Lea@Example.com",
        "firstname": "Léa",
    }
    parsed = read(record, extra_fields=frozenset({"vip", "badge"}))
    expected = '{"email":"lea@example.com","firstname":"Léa","city":"Lille","zip":"59000","badge":"7","vip":"yes"}'
    assert parsed.events[0].content.decode() == expected
    assert parsed.events[0].key == KEY


def test_empty_and_null_are_absent() -> None:
    record = {"email": "lea@example.com", "city": "", "zip": None, "phone": " ", "audiences": {}, "timestamp": None}
    assert one(record, order="timestamp") == ({"email": "lea@example.com"}, [])


def test_a_bad_optional_field_is_dropped_and_named() -> None:
    record = {
        "email": "lea@example.com",
        "countryid": "UK",
        "state": "TX",
        "city": True,
        "zip": 59000,
        "phone": "x" * 300,
    }
    content, dropped = one(record)
    assert content == {"email": "lea@example.com", "zip": "59000"}
    assert sorted(dropped) == [
        ("city", "not_text"),
        ("countryid", "not_iso_3166_1"),
        ("phone", "too_long"),
        ("state", "no_valid_country"),
    ]


def test_a_foreign_state_is_kept_and_marked() -> None:
    parsed = read({"email": "lea@example.com", "countryid": "fr", "state": "Nord"})
    assert parsed.events[0].traits == Trait.EMAIL | Trait.FOREIGN_STATE
    assert parsed.events[0].content == b'{"email":"lea@example.com","state":"Nord","countryid":"FR"}'


def test_unknown_fields_are_dropped_and_listed_up_to_a_limit() -> None:
    records = [{"email": "lea@example.com", **{f"field{n}": n for n in range(30)}} for _ in range(4)]
    parsed = read(records)
    assert (len(parsed.events), len(parsed.dropped), parsed.unknown_fields) == (4, 100, 120)
    assert parsed.dropped[0] == Rejection(0, "field0", "unknown_field")


def test_names_that_a_producer_chose_are_shown_short_and_without_an_address() -> None:
    names = [it for it, _ in one({"email": "lea@example.com", "tom@example.com": 1, "x" * 999: 1, "a\nb": 1})[1]]
    assert names == ["<email>", "x" * 64, "a?b"]


@pytest.mark.parametrize(
    ("record", "refusal"),
    [
        ({}, ("email", "missing")),
        ({"city": "Lille"}, ("email", "missing")),
        ({"email": None, "email_lc_sha256": ""}, ("email", "missing")),
        ({"Email": "lea@example.com"}, ("email", "missing")),
        ({"email": "lea"}, ("email", "not_an_email")),
        ({"email": 7}, ("email", "not_an_email")),
        ({"email": "lea", "email_lc_sha256": "7"}, ("email", "not_an_email")),
        ({"email_lc_sha256": "7"}, ("email_lc_sha256", "not_a_sha256")),
        ({"email_lc_sha256": ["ab" * 32]}, ("email_lc_sha256", "not_a_sha256")),
        ({"email": "lea@example.com", "email_lc_sha256": "ab" * 32}, ("email_lc_sha256", "identity_mismatch")),
    ],
)
def test_a_record_without_an_identity_is_rejected(record: dict[str, Any], refusal: tuple[str, str]) -> None:
    assert refused(record) == refusal


def test_a_hash_alone_is_accepted_without_a_plain_address() -> None:
    event = read({"email_lc_sha256": KEY.hex().upper(), "city": "Lille"}).events[0]
    assert (event.key, event.content, event.traits) == (KEY, b'{"city":"Lille"}', 0)


def test_one_valid_identity_is_enough() -> None:
    by_hash = read({"email": "lea", "email_lc_sha256": KEY.hex()})
    by_address = read({"email": "lea@example.com", "email_lc_sha256": "7"})
    assert by_hash.events[0].key == by_address.events[0].key == KEY
    assert by_hash.dropped == [Rejection(0, "email", "not_an_email")]
    assert by_address.dropped == [Rejection(0, "email_lc_sha256", "not_a_sha256")]
    assert by_hash.events[0].traits == 0


@pytest.mark.parametrize("hashed", ["lea@example.com", " lea@example.com "])
def test_a_hash_of_the_untrimmed_address_is_no_mismatch(hashed: str) -> None:
    record = {"email": " Lea@example.com ", "email_lc_sha256": key_of(hashed).hex()}
    assert read(record).events[0].key == KEY


# -- mapping ----------------------------------------------------------------------------------------------------------

MAPPING = {
    "firstname": "person.name.firstName",
    "email": "personalEmail.address",
    "badge": "ids.0.badge",
    "audiences": "standing",
}


def test_a_mapped_path_is_looked_up_before_the_plain_name() -> None:
    record = {
        "person": {"name": {"firstName": "Léa"}},
        "personalEmail": {"address": "lea@example.com"},
        "firstname": "Lea",
        "email": "old@example.com",
        "ids": [{"badge": 7}],
        "standing": {"a": {"status": "realized", "lastQualificationTime": "2026-10-02"}},
        "other": 1,
    }
    settings = {"mapping": MAPPING, "extra_fields": frozenset(MAPPING)}
    assert one(record, **settings) == (
        {"email": "lea@example.com", "firstname": "Léa", "badge": "7"},
        [("other", "unknown_field")],
    )
    assert list(read(record, **settings).events[0].audiences or ()) == ["ups/a"]


@pytest.mark.parametrize("person", [None, {}, [], "Léa", {"name": None}, {"name": {"firstName": ""}}])
def test_where_the_path_leads_nowhere_the_plain_name_counts(person: object) -> None:
    content, _ = one({"email": "lea@example.com", "firstname": "Lea", "person": person}, mapping=MAPPING)
    assert content["firstname"] == "Lea"


def test_a_column_may_be_named_like_a_path() -> None:
    body = b"personalEmail.address,person.name.firstName\nlea@example.com,Lea\n"
    parsed = reader(mapping=MAPPING).read(body, "text/csv")
    assert parsed.events[0].content == b'{"email":"lea@example.com","firstname":"Lea"}'


def test_an_ambiguous_path_is_not_followed() -> None:
    body = b'{"email":"lea@example.com","person":{"name":{"firstName":"a"},"name":{"firstName":"b"}}}'
    parsed = reader(mapping=MAPPING).read(body, JSON)
    assert parsed.dropped == [Rejection(0, "firstname", "duplicate_key")]


# -- audiences and time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "realized"),
    [("realized", True), ("entered", True), ("existing", True), ("Realized", True), ("exited", False)],
)
def test_the_status_of_an_audience(status: str, realized: bool) -> None:
    entry = {"status": status, "lastQualificationTime": "2026-10-02T08:15:30Z", "name": "VIP"}
    audiences = read({"email": "lea@example.com", "audiences": {"3f0c": entry}}).events[0].audiences
    assert audiences == {"ups/3f0c": Membership(realized, 1790928930.0, "VIP")}


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2026-10-02T08:15:30Z", 1790928930.0),
        ("2026-10-02T08:15:30.250Z", 1790928930.25),
        ("2026-10-02T10:15:30.250000+0200", 1790928930.25),
        ("2026-10-02T08:15:30", 1790928930.0),
        ("2026-10-02", 1790899200.0),
        ("20261002", 1790899200.0),
        ("1790928930", 1790928930.0),
        (1790928930, 1790928930.0),
        (1790928930.5, 1790928930.5),
        (1790928930500, 1790928930.5),
    ],
)
def test_times_as_adobe_writes_them(time: object, seconds: float) -> None:
    entry = {"status": "realized", "lastQualificationTime": time}
    parsed = read({"email": "lea@example.com", "timestamp": time, "audiences": {"a/b": entry}}, order="timestamp")
    assert parsed.dropped == []
    assert parsed.events[0].timestamp == seconds
    assert parsed.events[0].audiences == {"a/b": Membership(True, seconds)}


@pytest.mark.parametrize(
    "time", ["soon", "", True, [], -1, 1e18, "1969-12-31", "9999999999999999999", "\uff12\uff10\uff12\uff16-10-02"]
)
def test_a_bad_entry_is_dropped_and_the_others_stay(time: object) -> None:
    good = {"status": "exited", "lastQualificationTime": 1790928930}
    bad = {"status": "realized", "lastQualificationTime": time}
    parsed = read({"email": "lea@example.com", "audiences": {"a/good": good, "a/bad": bad}})
    assert parsed.events[0].audiences == {"a/good": Membership(False, 1790928930.0)}
    assert parsed.dropped == [Rejection(0, "audiences.a/bad", "not_a_time")]


@pytest.mark.parametrize(
    ("name", "entry", "reason"),
    [
        ("a/b", {"status": "exiting", "lastQualificationTime": 1}, "unknown_status"),
        ("a/b", {"lastQualificationTime": 1}, "unknown_status"),
        ("a/b", {"status": "realized"}, "missing_time"),
        ("a/b", "realized", "not_an_object"),
        ("", {"status": "realized", "lastQualificationTime": 1}, "not_an_audience_id"),
        ("a b", {"status": "realized", "lastQualificationTime": 1}, "not_an_audience_id"),
    ],
)
def test_an_audience_that_cannot_be_folded_is_dropped(name: str, entry: object, reason: str) -> None:
    parsed = read({"email": "lea@example.com", "audiences": {name: entry}})
    assert parsed.events[0].audiences is None
    assert parsed.dropped == [Rejection(0, f"audiences.{name}", reason)]


def test_one_audience_under_two_names_keeps_the_newer_qualification() -> None:
    entries = {
        "ups/a": {"status": "exited", "lastQualificationTime": 2},
        "a": {"status": "realized", "lastQualificationTime": 1},
    }
    assert read({"email": "lea@example.com", "audiences": entries}).events[0].audiences == {
        "ups/a": Membership(False, 2.0)
    }


@pytest.mark.parametrize("name", ["UPS/A", "ups/A", "Ups/A", "A"])
def test_the_case_of_a_namespace_means_nothing_and_that_of_an_id_does(name: str) -> None:
    entry = {"status": "realized", "lastQualificationTime": "2026-10-02T00:00:00Z"}
    parsed = read({"email": "lea@example.com", "audiences": {name: entry}})
    assert parsed.events[0].audiences == {"ups/A": Membership(True, 1790899200.0)}
    assert parsed.dropped == []


def test_the_time_of_an_event_is_kept_only_where_it_decides() -> None:
    record = {"email": "lea@example.com", "timestamp": "2026-10-02T08:15:30Z"}
    assert read(record).events[0].timestamp is None
    assert read(record, order="timestamp").events[0].timestamp == 1790928930.0
    bad = read(record | {"timestamp": "soon"}, order="timestamp")
    assert (bad.events[0].timestamp, bad.dropped) == (None, [Rejection(0, "timestamp", "not_a_time")])
    assert read(record | {"timestamp": "soon"}).dropped == []


# -- CSV --------------------------------------------------------------------------------------------------------------


def test_csv_cells_are_quoted_after_rfc_4180() -> None:
    body = 'email,companyname,address1\r\nlea@example.com,"Martin, ""Fils"" & Co","12 rue\r\n2e étage"\r\n'
    event = reader().read(body.encode(), "text/csv").events[0]
    assert msgspec.json.decode(event.content) == {
        "email": "lea@example.com",
        "companyname": 'Martin, "Fils" & Co',
        "address1": "12 rue 2e étage",
    }


def test_a_ragged_row_is_rejected_and_the_others_stay() -> None:
    parsed = reader().read(b"email,city\na@a.com,Lille\nb@b.com\n\nc@c.com,Lille,x\nd@d.com,\n", "text/csv")
    assert parsed.indexes == [0, 3]
    assert parsed.rejected == [Rejection(1, "", "ragged_row"), Rejection(2, "", "ragged_row")]


def test_an_unknown_column_is_listed_once() -> None:
    parsed = reader().read(b"email,shoe size,\na@a.com,7,x\nb@b.com,8,\n", "text/csv")
    assert parsed.dropped == [Rejection(0, "shoe size", "unknown_field")]
    assert len(parsed.events) == 2


# -- programs ---------------------------------------------------------------------------------------------------------


class Attendee(msgspec.Struct, rename={"first": "firstname"}):
    email: str
    first: str = ""
    zip: int | None = None
    timestamp: datetime | None = None


def test_programs_hand_in_mappings_and_structs() -> None:
    moment = datetime(2026, 10, 2, 8, 15, 30, tzinfo=UTC)
    items = [{"email": "lea@example.com", "firstname": "Lea", "zip": 59000, "timestamp": moment}]
    structs = [Attendee("lea@example.com", "Lea", 59000, moment)]
    by_time = reader(order="timestamp")
    assert by_time.read_mappings(items) == by_time.read_mappings(structs)
    event = by_time.read_mappings(iter(items)).events[0]
    assert event.content == b'{"email":"lea@example.com","firstname":"Lea","zip":"59000"}'
    assert event.timestamp == 1790928930.0


class Odd(msgspec.Struct):
    email: object


@pytest.mark.parametrize("item", ["lea@example.com", None, 7, Odd(object())])
def test_what_is_no_record_is_rejected_not_raised(item: Any) -> None:
    assert reader().read_mappings([item]).rejected == [Rejection(0, "", "not_an_object")]


def test_a_mapping_with_other_keys_than_text_does_not_raise() -> None:
    items: list[Any] = [{"email": "lea@example.com", 7: "x", None: "y"}]
    assert [it.field for it in reader().read_mappings(items).dropped] == ["7", "None"]
