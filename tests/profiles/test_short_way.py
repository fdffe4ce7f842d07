"""The short ways through a body give what the exact path gives, to the last index and reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine import Config
from engine.assembly.readers import readers_of
from engine.model import Consent
from engine.profiles import formats
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.formats import JSON, BodyUnreadable, Parsed, Reader, TooManyEvents

NDJSON = "application/x-ndjson"
NOW = 1_790_000_000.0
RULES: dict[str, Any] = {
    "firstname": "given",
    "email": {"first_of": ["contact.mail", "mail"], "lower": True},
    "city": "address1",
    "address1": "city",
    "jobtitle": {"join": ["role.name", "role.level"], "separator": " / ", "default": "Attendee"},
    "companyname": {"path": "company", "trim": True, "upper": True},
    "countryid": {"path": "land", "lookup": {"Deutschland": "DE", "France": "FR"}},
    "badge": {"path": "wants.badge", "boolean": ["yes", "no"]},
    "zip": {"path": "since", "date": "%Y"},
    "lastname": {"constant": "Martin"},
}
CONSENT = [{"required": "marketing.email"}, {"required": "share"}]
MAX_EVENTS = 12


def reader(*, source: dict[str, Any] | None = None, consents: bool = False, exact: bool = False) -> Reader:
    """Of one source; `exact`: with nothing but the exact path."""
    destination: dict[str, Any] = {"name": "demo", "event_code": "demo27", "fields": ["*"]}
    if consents:
        destination["consent"] = CONSENT
    config = Config.from_dict(
        {
            "source": [{"name": "crm", **(source or {})}],
            "ingress": {"max_events": MAX_EVENTS},
            "account": [{"name": "demo"}],
            "destination": [destination],
        }
    )
    made = readers_of(config, lambda: NOW)["crm"][0]
    if exact:
        made._typed = None
    return made


def both(**how: Any) -> tuple[Reader, Reader]:
    return reader(**how), reader(**how, exact=True)


PAIRS = {
    "plain": both(),
    "timestamp": both(source={"order": "timestamp"}, consents=True),
    "consents": both(consents=True),
    "rules": both(source={"mapping": RULES}),
    "rules and consents": both(source={"mapping": RULES, "order": "timestamp"}, consents=True),
    "profile": both(source={"mapping": {"firstname": "person.first", "email": "mail"}, "format": "profile"}),
}


def outcome(reader: Reader, body: bytes, media_type: str) -> object:
    try:
        parsed = reader.read(body, media_type)
    except (BodyUnreadable, TooManyEvents) as error:
        return type(error)
    return msgspec.structs.asdict(parsed)


def same(name: str, body: bytes, media_type: str) -> Parsed | None:
    short, exact = PAIRS[name]
    found = outcome(short, body, media_type)
    assert found == outcome(exact, body, media_type)
    return None


emails = st.sampled_from(["lea@example.com", "Jo@Example.com ", "x", "é@exämple.com", "lea+a@example.com", "", " "])
texts = st.sampled_from(
    [
        *(
            "Léa",
            "Lille",
            " x",
            "x ",
            "",
            " ",
            "TX",
            "US",
            "FR",
            "XX",
            "a\tb",
            'q"q',
            "\\",
            "\x7f",
            "\u200b",
            "Le\u0301a",
        ),
        *("y" * 256, "2026-10-02T08:15:30Z", "yes", "maybe", "Deutschland", "null", '"', "ﬁ", "名"),
    ]
)
values = texts | st.none() | st.integers(-5, 2**40) | st.booleans() | st.just({"value": "x"}) | st.just([])
standings = st.dictionaries(
    st.sampled_from(["a", "ups/a", "UPS/a", "b", "c d", ""]),
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["realized", "Exited", "existing", "x"]),
            "lastQualificationTime": st.sampled_from(["2026-10-02T08:15:30Z", "1790000000000", "when", ""]),
        }
    ),
    max_size=3,
)
choices = st.sampled_from(["y", "n", "N", " y", "LI", "perhaps", ""])
consents = st.one_of(
    st.fixed_dictionaries(
        {}, optional={"marketing": st.fixed_dictionaries({}, optional={"email": choices}), "share": choices}
    ),
    st.fixed_dictionaries({"marketing.email": choices}),
    st.just({"idSpecific": {"Email": {"lea@example.com": {"marketing": {"email": "n"}}}}}),
    st.just({"marketing": {"email": {"val": "n"}}}),
    st.none() | texts,
)
names = st.sampled_from(
    [*TARGET_FIELDS, "badge", "mail", "given", "company", "land", "since", "other", "email_lc_sha256", "consents.share"]
)
pairs = st.tuples(names, texts | values) | st.one_of(
    st.tuples(st.just("email") | st.just("mail"), emails),
    st.tuples(st.just("contact"), st.fixed_dictionaries({}, optional={"mail": emails, "fax": texts})),
    st.tuples(st.just("role"), st.fixed_dictionaries({}, optional={"name": texts, "level": values})),
    st.tuples(st.just("wants"), st.fixed_dictionaries({}, optional={"badge": texts | st.booleans()})),
    st.tuples(st.just("person"), st.fixed_dictionaries({}, optional={"first": texts})),
    st.tuples(st.just("audiences"), standings),
    st.tuples(st.just("timestamp"), texts | st.integers(0, 2**40)),
    st.tuples(st.just("consents"), consents),
)
usual = st.builds(
    lambda email, rest: [("email", email), *rest.items()],
    emails,
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("firstname", "city", "given", "company"), st.sampled_from(["Léa", "Lille", "Ana", "名"])),
            "audiences": standings,
            "consents": consents,
            "mail": emails,
        },
    ),
)


def written(members: list[tuple[str, Any]], escaped: bool, spaced: bool) -> bytes:
    """One object with its members as they are, duplicates too."""
    comma, colon = (", ", ": ") if spaced else (",", ":")
    pairs = (json.dumps(key) + colon + json.dumps(value, ensure_ascii=escaped) for key, value in members)
    return ("{" + comma.join(pairs) + "}").encode("utf-8", "surrogatepass")


records = st.builds(written, usual | st.lists(pairs, max_size=6), st.booleans(), st.booleans())
odd_records = records | st.sampled_from(
    [b"", b"[]", b"{}", b"{", b"null", b'{"email":"a@a.com"} {"email":"b@a.com"}', b" "]
)


@given(st.sampled_from([*PAIRS]), st.lists(records, max_size=5), st.sampled_from([b",", b" , ", b",\n"]))
@example("plain", [b'{"email":"a@a.com","city":"a","city":"b"}', b'{"email":"b@a.com"}'], b",")
@example("rules", [b'{"mail":"a@a.com","given":"a","given":"b"}', b'{"mail":"b@a.com","city":"x"}'], b",")
def test_an_array_gives_the_same_on_both_ways(name: str, records: list[bytes], comma: bytes) -> None:
    same(name, b"[" + comma.join(records) + b"]", JSON)


@given(st.sampled_from([*PAIRS]), records)
def test_a_single_object_gives_the_same_on_both_ways(name: str, record: bytes) -> None:
    same(name, record, JSON)


@given(st.sampled_from([*PAIRS]), st.lists(odd_records, max_size=5), st.booleans())
def test_lines_give_the_same_on_both_ways(name: str, records: list[bytes], ended: bool) -> None:
    same(name, b"\n".join(records) + b"\n" * ended, NDJSON)


@pytest.mark.parametrize("media_type", [JSON, NDJSON])
@pytest.mark.parametrize("count", [1, 2, MAX_EVENTS, MAX_EVENTS + 1])
def test_as_many_records_as_are_allowed(media_type: str, count: int) -> None:
    records = [b'{"email":"p%d@example.com"}' % number for number in range(count)]
    body = b"[" + b",".join(records) + b"]" if media_type == JSON else b"\n".join(records)
    assert (outcome(PAIRS["plain"][0], body, media_type) is TooManyEvents) == (count > MAX_EVENTS)
    same("plain", body, media_type)


def test_one_odd_record_among_many_changes_nothing_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "TOGETHER", 3)
    for place in range(8):
        records = [b'{"email":"p%d@example.com","city":"Lille"}' % number for number in range(8)]
        records[place] = b'{"email":"odd@example.com","city":" Lille","shoe":"44"}'
        for body, media_type in ((b"[" + b",".join(records) + b"]", JSON), (b"\n".join(records), NDJSON)):
            parsed = PAIRS["plain"][0].read(body, media_type)
            assert parsed.indexes == list(range(8))
            assert [(one.index, one.field, one.reason) for one in parsed.dropped] == [(place, "shoe", "unknown_field")]
            same("plain", body, media_type)


USUAL = {
    "plain": {"email": "Lea@example.com", "firstname": "Léa", "city": "Lille", "countryid": "FR"},
    "consents": {"email": "lea@example.com", "consents": {"marketing": {"email": {"val": "n"}}, "share": "y"}},
    "timestamp": {"email": "lea@example.com", "timestamp": 1_790_000_000, "consents": {"share": "y"}},
    "rules": {
        "mail": "Lea@example.com",
        "given": "Léa",
        "company": " Acme ",
        "land": "France",
        "wants": {"badge": "true"},
        "role": {"name": "Head", "level": "2"},
        "since": "2026-10-02",
    },
}


@pytest.mark.parametrize("name", [*USUAL])
def test_what_most_producers_write_takes_the_short_way(name: str) -> None:
    """Otherwise the tests above would compare the exact path with itself."""
    typed = PAIRS[name][0]._typed
    assert typed is not None
    raw = msgspec.json.encode(USUAL[name])
    assert typed.read(raw) is not None
    assert typed.read_all([raw, raw]) is not None
    assert typed.read_array(b"[" + raw + b"," + raw + b"]") is not None
    same(name, b"[" + raw + b"]", JSON)


def test_what_a_rule_finds_is_what_the_exact_path_finds() -> None:
    typed = PAIRS["rules"][0]._typed
    assert typed is not None
    event = typed.read(msgspec.json.encode(USUAL["rules"]))
    assert event is not None
    assert json.loads(event.content) == {
        **{"email": "lea@example.com", "firstname": "Léa", "lastname": "Martin", "companyname": "ACME"},
        **{"jobtitle": "Head / 2", "countryid": "FR", "zip": "2026", "badge": "yes"},
    }


def test_times_of_consents_are_their_own_though_what_was_said_is_remembered() -> None:
    typed = PAIRS["timestamp"][0]._typed
    assert typed is not None
    for at in (1_790_000_000, 1_790_000_001):
        event = typed.read(b'{"email":"lea@example.com","timestamp":%d,"consents":{"share":"y"}}' % at)
        assert event is not None
        assert event.consents == {"share": Consent("y", float(at))}


@pytest.mark.parametrize(
    "mapping",
    [
        {"firstname": "identityMap.Email.0.id"},
        {"firstname": "person.name.firstName"},
        {"firstname": "a.b", "city": "a"},
        {"firstname": "a", "city": "a.b"},
        {"audiences": "segments"},
        {"email_lc_sha256": "hash"},
        {"firstname": "audiences.a.status"},
        {"firstname": "list.0"},
    ],
)
def test_other_rules_are_left_to_the_exact_path(mapping: dict[str, Any]) -> None:
    assert reader(source={"mapping": mapping})._typed is None
