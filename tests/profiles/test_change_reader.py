"""What RainFocus pushes is understood in every wrapping, record by record, and says whose change it is."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Event, Kind, Trait
from engine.profiles.changes import ChangeReader, join_changes
from engine.profiles.formats import BodyUnreadable, TooManyEvents
from engine.profiles.identity import key_of

JSON, NDJSON = "application/json", "application/x-ndjson"
ID = "1700000000000001AbCd"
# The fields that the source's page names, with invented values.
RECORD: dict[str, Any] = {
    "attendee": {
        "registered": "Yes",
        "attendeeId": ID,
        "externalId": "1700000000000002EfGh",
        "clientId": "8EFC.e",
        "email": " Lea.Martin@Example.com",
    },
    "transmissionId": "1700000000000003IjKl",
    "eventType": "SessionScheduled",
    "timestamp": "2026-04-01T00:41:57.000Z",
    "event": {"name": "Acme 2027"},
    "session": {"sessionId": "1700000000000004MnOp", "code": "GS3", "title": "Opening", "length": 90},
    "sessiontime": {"sessiontimeId": "1700000000000005QrSt", "startTime": "2027-03-22 10:00:00", "room": "B32"},
}
LEA = hashlib.sha256(b"lea.martin@example.com").digest()


def read(body: object, media_type: str = JSON, max_events: int = 100) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ChangeReader(max_events=max_events).read(raw, media_type)


def one(body: object) -> Event:
    parsed = read(body)
    assert (len(parsed.events), parsed.rejected) == (1, [])
    event: Event = parsed.events[0]
    return event


def envelope(record: object) -> dict[str, Any]:
    return {"header": {"datasetId": "d", "imsOrgId": "o"}, "body": {"xdmMeta": {"schemaRef": {}}, "xdmEntity": record}}


WRAPPINGS = {
    "alone": RECORD,
    "in an array": [RECORD],
    "as a message": envelope(RECORD),
    "as a message without xdmEntity": {"header": {}, "body": RECORD},
    "as a batch of messages": {"messages": [envelope(RECORD)]},
    "below a tenant": {"_id": "x", "timestamp": "…", "_acme": RECORD},
    "flat": {f"{kind}.{name}": value for kind in ("attendee", "session") for name, value in RECORD[kind].items()},
}


@pytest.mark.parametrize("body", WRAPPINGS.values(), ids=WRAPPINGS)
def test_it_is_read_however_it_is_wrapped(body: object) -> None:
    event = one(body)
    assert (event.key, event.kind, event.attendee_id, event.traits) == (LEA, Kind.CHANGE, ID, 0)


def test_one_a_line_too_and_a_broken_line_is_one_record() -> None:
    line = json.dumps(RECORD).encode()
    parsed = read(line + b"\n\n{nonsense\n" + line, NDJSON)
    assert (parsed.records, parsed.indexes) == (3, [0, 2])
    assert [(it.index, it.reason) for it in parsed.rejected] == [(1, "not_json")]


def test_the_record_is_kept_as_it_came() -> None:
    raw = b'{ "attendee" : {"email": "a@example.com", "score": 1.10, "big": 12345678901234567890123} }'
    (kept,) = msgspec.json.decode(one(raw).content, type=list[dict[str, msgspec.Raw]])
    assert bytes(kept["record"]) == raw.replace(b" ", b"")


def test_equal_records_have_one_id_and_others_another() -> None:
    def id_of(record: dict[str, Any]) -> str:
        return str(json.loads(one(record).content)[0]["id"])

    assert id_of(RECORD) == id_of(json.loads(json.dumps(RECORD, indent=3)))
    assert id_of(RECORD) != id_of(RECORD | {"transmissionId": "1700000000000009ZzZz"})


def test_an_address_that_comes_as_its_hash_is_the_same_person() -> None:
    hashed = RECORD | {"attendee": {"email": LEA.hex().upper()}}
    assert one(hashed).key == LEA


@pytest.mark.parametrize(
    ("record", "entity"),
    [
        ({"attendee": {"attendeeId": ID}, "session": {"sessionId": "s1"}}, f"attendee:{ID}"),
        ({"lead": {"leadId": "l1"}, "session": {"sessionId": "s1"}}, "lead:l1"),
        ({"session": {"sessionId": "s1"}, "sessiontime": {"sessiontimeId": "t1"}}, "sessiontime:t1"),
        ({"session": {"sessionId": "s1"}}, "session:s1"),
        ({"exhibitor": {"exhibitorId": "x1", "name": "Ex"}}, "exhibitor:x1"),
        ({"attendee": {"email": ""}, "session": {"sessionId": "s1"}}, "session:s1"),
    ],
)
def test_without_an_address_it_is_about_what_has_an_id(record: dict[str, Any], entity: str) -> None:
    """One entity, one key: what is forwarded of it stays in order. No ledger knows the key."""
    event = one(record)
    assert event.key == key_of(f"rainfocus:{entity}")
    assert event.traits == Trait.ENTITY


def test_every_record_is_judged_alone() -> None:
    parsed = read([RECORD, {"event": {"name": "x"}}, 7, {"attendee": {"email": "no address"}}, RECORD])
    assert parsed.indexes == [0, 4]
    assert [(it.index, it.field, it.reason) for it in parsed.rejected] == [
        (1, "attendee.email", "missing"),
        (2, "", "not_an_object"),
        (3, "attendee.email", "missing"),
    ]
    assert [(it.index, it.field, it.reason) for it in parsed.dropped] == [(3, "attendee.email", "not_an_email")]


def test_what_is_no_id_is_dropped_and_named() -> None:
    parsed = read({"attendee": {"email": "a@example.com", "attendeeId": "<script>"}})
    assert parsed.events[0].attendee_id == ""
    assert [(it.field, it.reason) for it in parsed.dropped] == [("attendee.attendeeId", "not_an_id")]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"attendee":{"email":"a@b.co"},"x":NaN}', "not_json"),
        (b'{"attendee":{"email":"a@b.co"},"x":"\\ud800"}', "not_json"),
        (b'{"attendee":{"email":"a@b.co"},"attendee":1}', "duplicate_key"),
        (b'{"attendee":{"email":"a@b.co"},"x":"' + b"y" * (1 << 20) + b'"}', "record_too_large"),
        (b'{"attendee":{"email":"a@b.co"},"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested_too_deeply"),
        (b'{"attendee":{"email":"a@b.co"},"x":"\xff"}', "not_utf_8"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_alone(raw: bytes, reason: str) -> None:
    parsed = read(b"\n".join([raw, json.dumps(RECORD).encode()]), NDJSON)
    assert ([it.reason for it in parsed.rejected], parsed.indexes) == ([reason], [1])


@pytest.mark.parametrize("body", [b"", b"nonsense", b'{"messages": {}}', b'{"a": 1} trailing', b'[{"a": 1}'])
def test_a_body_that_is_none_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(BodyUnreadable):
        read(body)


def test_csv_is_not_how_changes_come() -> None:
    with pytest.raises(BodyUnreadable):
        read(b"email\na@example.com\n", "text/csv")


def test_a_body_may_carry_so_many_records() -> None:
    assert len(read([RECORD] * 3, max_events=3).events) == 3
    for body in ([RECORD] * 4, {"messages": [envelope(RECORD)] * 4}):
        with pytest.raises(TooManyEvents):
            read(body, max_events=3)


def test_changes_that_are_joined_follow_each_other() -> None:
    """None replaces another, unlike profiles."""
    first, second, third = (one(RECORD | {"eventType": name}).content for name in ("A", "B", "C"))
    content, traits = join_changes(join_changes(first, second)[0], third)
    assert content == join_changes(first, join_changes(second, third)[0])[0]
    assert [it["record"]["eventType"] for it in json.loads(content)] == ["A", "B", "C"]
    assert traits == 0


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), lambda it: st.lists(it)))
def test_nothing_but_its_own_errors(body: object) -> None:
    with suppress(BodyUnreadable, TooManyEvents):
        read(body)
