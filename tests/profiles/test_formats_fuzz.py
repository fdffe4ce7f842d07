"""What holds for any body: two paths with one meaning, and no exception but the two that are promised."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Event
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.formats import MEDIA_TYPES, BodyUnreadable, Parsed, Reader, TooManyEvents
from engine.profiles.json_exact import decode_exact
from engine.profiles.records import RecordJudge
from engine.profiles.typed import TypedPath

EXTRA = frozenset({"vip", "odd name"})
READERS = [
    Reader(mapping=mapping, extra_fields=EXTRA, order=order, max_events=5)
    for mapping in ({}, {"city": "person.city", "vip": "0"})
    for order in ("arrival", "timestamp")
]

texts = st.sampled_from(
    [
        "Lille",
        "Léa",
        "Le\u0301a",
        "",
        " ",
        " x",
        "x ",
        "a\nb",
        'a"b',
        "a\\b",
        "\x7f",
        "\u200d",
        "null",
        '":null',
        "\ud800",
        "FR",
        "us",
        "US",
        "CA",
        "TX",
        "QC",
        "tx",
        "x" * 255,
        "x" * 256,
        "\xa0",
        "1790928930",
        "2026-10-02T08:15:30Z",
    ]
) | st.text(max_size=6)
emails = st.sampled_from(["lea@example.com", " Lea@Example.com", "léa@example.com", "lea", "", "a@b.c\n"])
others = st.none() | st.booleans() | st.integers(0, 99_999) | st.floats() | st.just([1]) | st.just({"a": None})
standings = st.fixed_dictionaries(
    {}, optional={"status": st.sampled_from(["realized", "exited", "x"]), "lastQualificationTime": texts | others}
)
good_standing = st.fixed_dictionaries({"status": st.just("exited"), "lastQualificationTime": st.just("2026-10-02")})
audiences = st.dictionaries(st.sampled_from(["a", "ups/a", "b", "c d"]), good_standing | standings, max_size=3)
usual = st.fixed_dictionaries(
    {"email": emails},
    optional={
        **dict.fromkeys(("firstname", "city", "state", "zip", "countryid", "vip", "odd name"), texts),
        "audiences": st.dictionaries(st.sampled_from(["a", "b"]), good_standing),
        "timestamp": texts | st.integers(0, 2**40),
    },
)
names = st.sampled_from([*TARGET_FIELDS, *EXTRA, "audiences", "timestamp", "email_lc_sha256", "other"])
unusual = st.lists(st.tuples(names, texts | others | emails | audiences), max_size=6)


def written(pairs: list[tuple[str, Any]], escaped: bool, spaced: bool) -> bytes:
    """A JSON object with its pairs as they are, duplicates too."""
    comma, colon = (", ", ": ") if spaced else (",", ":")
    members = (json.dumps(k) + colon + json.dumps(v, ensure_ascii=escaped) for k, v in pairs)
    return ("{" + comma.join(members) + "}").encode("utf-8", "surrogatepass")


records = st.builds(written, usual.map(lambda it: list(it.items())) | unusual, st.booleans(), st.booleans())


def judged(raw: bytes, order: str) -> Parsed:
    parsed = Parsed()
    RecordJudge({}, EXTRA, order).judge(decode_exact(raw), 0, parsed)
    return parsed


def taken(typed: TypedPath, raw: bytes) -> Event | None:
    """By the short way, as it is or without what says nothing."""
    events = typed.read_all([raw]) or typed.read_spoken([raw]) or [None]
    return events[0]


@given(records, st.sampled_from(["arrival", "timestamp"]))
def test_the_typed_path_gives_what_the_exact_path_gives_or_nothing(raw: bytes, order: str) -> None:
    event = taken(TypedPath(sorted(EXTRA), order == "timestamp"), raw)
    if event is not None:
        exact = judged(raw, order)
        assert exact.events == [event]
        assert exact.dropped == exact.rejected == []


ODD = [
    "",
    " ",
    " x",
    "x ",
    "Le\u0301a",
    "\x7f",
    "\xa0",
    'a"b',
    "a\\b",
    "a\nb",
    "x" * 255,
    "x" * 256,
    "null",
    "TX",
    "tx",
    "QC",
    "FR",
]


@pytest.mark.parametrize(
    "rest", [{}, {"countryid": "US"}, {"countryid": "CA"}, {"countryid": "FR"}, {"countryid": "XX"}]
)
@pytest.mark.parametrize("name", ["email", "city", "state", "countryid", "vip"])
@pytest.mark.parametrize("escaped", [True, False])
def test_one_odd_value_means_the_same_on_both_paths(name: str, rest: dict[str, str], escaped: bool) -> None:
    found = 0
    for odd in ODD:
        record = {"email": "lea@example.com", **rest, name: odd}
        raw = json.dumps(record, ensure_ascii=escaped).encode()
        event = taken(TypedPath(sorted(EXTRA), False), raw)
        if event is not None:
            found += 1
            exact = judged(raw, "arrival")
            assert (exact.events, exact.dropped) == ([event], [])
    assert found or name == "email" or rest == {"countryid": "XX"}


def test_the_typed_path_takes_the_usual_record() -> None:
    standing = {"ups/a": {"status": "realized", "lastQualificationTime": "2026-10-02T08:15:30Z"}}
    fields = dict.fromkeys(TARGET_FIELDS, "É") | {"email": " Lea@example.com", "countryid": "FR", "jobtitle": None}
    record = {"vip": "yes", **fields, "audiences": standing, "timestamp": 1790928930}
    for raw in (
        json.dumps(record).encode(),
        json.dumps(record, ensure_ascii=False).encode(),
        msgspec.json.encode(record),
    ):
        event = taken(TypedPath(["vip"], True), raw)
        assert isinstance(event, Event)
        assert event.timestamp == 1790928930.0
        assert list(event.audiences or ()) == ["ups/a"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"email":"a@a.com","city":"a","city":"b"}',
        b'{"email":"a@a.com","city":null,"city":"b"}',
        b'{"email":"a@a.com","city": null,"city":null}',
        b'{"email":"a@a.com","cit\\u0079":null,"city":"b"}',
        b'{"email":"a@a.com","timestamp":null,"timestamp":1}',
        b'{"email":"a@a.com","audiences":{"a":%s,"a":%s}}'
        % ((b'{"status":"exited","lastQualificationTime":"2026"}',) * 2),
        b'{"email":"a@a.com","timestamp":1,"timestamp":2}',
        b'{"email":"a@a.com","city":"nullnull","city":"b"}',
    ],
)
def test_the_typed_path_leaves_duplicates_to_the_exact_one(raw: bytes) -> None:
    assert taken(TypedPath([], False), raw) is None


def read(reader: Reader, body: bytes, media_type: str) -> Parsed | None:
    try:
        return reader.read(body, media_type)
    except (BodyUnreadable, TooManyEvents):
        return None


fragments = st.sampled_from(
    [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b'"',
        b"\\",
        b'{"email":"a@a.com"}',
        b'{"profiles":',
        b'"profiles":[',
        b"\n",
        b"\r",
        b"email,city",
        b"\xef\xbb\xbf",
        b"\xff",
        b"NaN",
        b"1e999",
        b'"\\ud800"',
        b"a@a.com",
        b"\x00",
        b"null",
        b" ",
        b"7" * 400,
    ]
)
bodies = st.binary(max_size=60) | st.lists(fragments | records, max_size=12).map(b"".join)


@given(bodies, st.sampled_from(sorted(MEDIA_TYPES)), st.sampled_from(READERS))
def test_no_body_raises_anything_else(body: bytes, media_type: str, reader: Reader) -> None:
    parsed = read(reader, body, media_type)
    if parsed is not None:
        refused = {it.index for it in parsed.rejected}
        assert len(parsed.events) + len(refused) == parsed.records
        assert sorted([*parsed.indexes, *refused]) == list(range(parsed.records))


@given(st.lists(records, max_size=4), st.sampled_from(READERS))
def test_one_record_means_the_same_in_every_frame(raws: list[bytes], reader: Reader) -> None:
    array = read(reader, b"[" + b",".join(raws) + b"]", "application/json")
    enveloped = read(reader, b'{"profiles":[' + b",\n".join(raws) + b"]}", "application/json")
    lines = read(reader, b"\n".join(raws), "application/x-ndjson")
    assert array == enveloped == lines


values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.integers(), inner, max_size=3),
)


@given(st.lists(values, max_size=4), st.sampled_from(READERS))
def test_no_mapping_raises(items: list[Any], reader: Reader) -> None:
    parsed = reader.read_mappings(items)
    assert parsed.records == len(items) == len(parsed.events) + len({it.index for it in parsed.rejected})


@given(st.lists(records, max_size=4), st.sampled_from(READERS))
def test_every_content_is_clean_json_in_canonical_order(raws: list[bytes], reader: Reader) -> None:
    parsed = read(reader, b"\n".join(raws), "application/x-ndjson")
    order = {name: rank for rank, name in enumerate([*TARGET_FIELDS, *sorted(EXTRA)])}
    for event in parsed.events if parsed else ():
        content = msgspec.json.decode(event.content, type=dict[str, str])
        assert msgspec.json.encode(content) == event.content
        assert sorted(content, key=order.__getitem__) == list(content)
        assert all(value.strip() for value in content.values())
        assert len(event.key) == 32
