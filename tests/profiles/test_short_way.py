"""The short ways through a body give what the exact path gives, to the last index and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine import Config
from engine.assembly.readers import readers_of
from engine.model import Consent
from engine.profiles import formats
from engine.profiles.aep_audiences import CallAudience
from engine.profiles.aep_paths import ADDRESS_FIELDS, ADDRESSES
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.formats import JSON, BodyUnreadable, Reader, TooManyEvents

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
STANDING = b'{"status":"realized","lastQualificationTime":"2026-10-02T08:15:30Z"}'


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
        made._typed = made._typed_aep = None
    return made


def both(**how: Any) -> tuple[Reader, Reader]:
    return reader(**how), reader(**how, exact=True)


PAIRS = {
    "plain": both(),
    "timestamp": both(source={"order": "timestamp"}, consents=True),
    "consents": both(consents=True),
    "rules": both(source={"mapping": RULES}),
    "rules and consents": both(source={"mapping": RULES, "order": "timestamp"}, consents=True),
    "aep": both(source={"format": "aep", "order": "timestamp"}, consents=True),
    "aep rules": both(
        source={
            "mapping": {
                "firstname": "_acme.first",
                "city": {"first_of": ["workAddress.city", "homeAddress.city"], "upper": True},
                "email": "_acme.mail",
                "badge": "town",
            }
        }
    ),
    "profile": both(source={"mapping": {"firstname": "person.first", "email": "mail"}, "format": "profile"}),
}


def outcome(reader: Reader, body: bytes, media_type: str) -> object:
    try:
        parsed = reader.read(body, media_type)
    except (BodyUnreadable, TooManyEvents) as error:
        return type(error)
    return msgspec.structs.asdict(parsed)


def same(name: str, body: bytes, media_type: str) -> bool:
    short, exact = PAIRS[name]
    found, expected = outcome(short, body, media_type), outcome(exact, body, media_type)
    assert found == expected
    return found == expected


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
@example("plain", [b'{"email":"a@a.com","city":null,"shoe":null}', b'{"email":"b@a.com","city":""}'], b",")
@example("plain", [b'{"email":"%s@a.com","city":"a","city":"b"}' % (11 * "İ").encode()], b",")
@example(
    "plain", [b'{"email":"a@a.com","city":"a","city":"b","audiences":{"a%s":%s}}' % (4 * rb"\u0022", STANDING)], b","
)
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


ids = st.sampled_from(["a", "b", "ups/a", "A", " ", "x y"])
identities = st.lists(
    st.fixed_dictionaries(
        {"id": emails | st.just("ab" * 32)},
        optional={"primary": st.booleans(), "authenticatedState": texts, "xid": texts},
    ),
    max_size=2,
)
qualification = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["realized", "Exited", "existing", "x"]),
        "lastQualificationTime": st.sampled_from(["2026-10-02T08:15:30.123Z", 1_790_000_000_123, "when", None]),
    },
    optional={"name": texts, "mappedAs": texts},
)
plain = st.sampled_from(["Léa", "Lille", "Ana", "US-TX", "TX", "US", " x", ""])
xdm = {
    "person": st.fixed_dictionaries(
        {}, optional={"name": st.dictionaries(st.sampled_from(["firstName", "lastName", "x"]), plain)}
    ),
    "organizations": st.lists(plain | st.none(), max_size=2) | plain,
    "extendedWorkDetails": st.fixed_dictionaries({"jobTitle": plain}),
    "mobilePhone": st.fixed_dictionaries({"number": plain | st.integers(0, 9)}),
    "homePhone": st.fixed_dictionaries({"number": plain}),
    **dict.fromkeys(
        ADDRESSES, st.dictionaries(st.sampled_from([step for step, _ in ADDRESS_FIELDS]), plain, max_size=4)
    ),
    "personalEmail": st.fixed_dictionaries({"address": emails}),
    "workEmail": st.fixed_dictionaries({"address": emails}),
    "identityMap": st.dictionaries(
        st.sampled_from(["Email", "email", "ECID", "Email_LC_SHA256"]), identities, max_size=2
    ),
    "segmentMembership": st.dictionaries(
        st.sampled_from(["ups", "UPS", "csv", ""]), st.dictionaries(ids, qualification, max_size=2), max_size=2
    ),
    "attributes": st.dictionaries(
        st.sampled_from(["firstname", "firstName", "email", "city", "vip", "badge", "timestamp"]),
        plain | emails | st.none() | st.fixed_dictionaries({}, optional={"value": plain}),
        max_size=4,
    ),
    "timestamp": texts | st.integers(0, 2**40),
    "consents": consents,
    "_acme": st.fixed_dictionaries({}, optional={"first": plain, "mail": emails, "other": plain}),
    "town": plain,
    "email": emails,
    "audiences": standings,
}
good = {
    "personalEmail": st.just({"address": "lea@example.com"}),
    "identityMap": st.just({"Email": [{"id": "Lea@example.com"}], "Email_LC_SHA256": [{"id": "ab" * 32}]}),
    "segmentMembership": st.just({"ups": {"a": {"status": "realized", "lastQualificationTime": 1_790_000_000_123}}}),
    "attributes": st.just({"firstName": {"value": "Léa"}, "city": "Lille", "vip": {}}),
}
members_of_xdm = st.sampled_from([*xdm]).flatmap(
    lambda name: st.tuples(st.just(name), good.get(name, xdm[name]) | xdm[name])
)
profiles = st.builds(
    written, st.lists(members_of_xdm, max_size=6, unique_by=lambda it: it[0]), st.booleans(), st.booleans()
)
twice = st.builds(written, st.lists(members_of_xdm, max_size=4), st.booleans(), st.booleans())
calls = st.sampled_from(
    [
        {},
        {"aggregationKey": {"segmentId": "a", "segmentNamespace": "ups", "segmentAlias": "The A"}},
        {"audienceId": "c", "audienceStatus": "exited"},
        {"audienceId": "c", "audienceStatus": "x"},
        {"audienceName": "x y"},
    ]
)


@given(st.sampled_from(["plain", "aep", "aep rules", "rules"]), st.lists(profiles | twice | records, max_size=3), calls)
@example("plain", [b'{"personalEmail":{"address":"a@a.com"},"personalEmail":{"address":"b@a.com"}}'], {})
@example("plain", [b'{"identityMap":{"Email":[{"id":"a@a.com"}]},"segmentMembership":{"ups":{"a":{},"a":{}}}}'], {})
@example("aep rules", [b'{"identityMap":{"Email":[{"id":"a@a.com"}]},"attributes":{"badge":{"value":"yes"}}}'], {})
@example("aep rules", [b'{"_acme":{"mail":"a@a.com"},"attributes":{}}'], {})
def test_profiles_in_aeps_shapes_give_the_same_on_both_ways(name: str, raws: list[bytes], call: dict[str, Any]) -> None:
    body = (
        b'{"profiles":['
        + b",".join(raws)
        + b"]"
        + b"".join(b",%s:%s" % (json.dumps(key).encode(), json.dumps(value).encode()) for key, value in call.items())
        + b"}"
    )
    same(name, body, JSON)
    same(name, b"[" + b",".join(raws) + b"]", JSON)
    same(name, b"\n".join(raws), NDJSON)


XDM = {
    "person": {"name": {"firstName": "Léa", "lastName": "Martin"}},
    "personalEmail": {"address": "Lea@example.com"},
    "organizations": ["Acme"],
    "mobilePhone": {"number": "+33 1"},
    "homeAddress": {"city": "Houston", "stateProvince": "US-TX", "countryCode": "US"},
    "identityMap": {"Email": [{"id": "lea@example.com"}]},
    "segmentMembership": {
        "ups": {"a": {"status": "realized", "lastQualificationTime": "2026-10-02T08:15:30Z", "name": "A"}}
    },
}
SDK = {
    "attributes": {"firstname": {"value": "Léa"}, "lastName": "Martin", "city": {}},
    "identityMap": {"email": [{"id": "lea@example.com", "primary": True}]},
    "segmentMembership": {"ups": {"a": {"status": "exited", "lastQualificationTime": 1_790_000_000_123}}},
}
ACME = {**XDM, "_acme": {"first": "Ana", "mail": "ana@example.com"}, "workAddress": {"city": "Lille"}, "town": "yes"}


@pytest.mark.parametrize(
    ("name", "profile"),
    [("plain", XDM), ("plain", SDK), ("aep", XDM), ("aep", SDK), ("aep rules", XDM), ("aep rules", ACME)],
)
@pytest.mark.parametrize("call", [None, CallAudience("ups/a", "The A"), CallAudience("csv/b", "B", "exited")])
def test_what_aep_sends_takes_the_short_way(name: str, profile: dict[str, Any], call: CallAudience | None) -> None:
    typed = PAIRS[name][0]._typed_aep
    assert typed is not None
    raw = msgspec.json.encode(profile)
    assert typed.read_all([raw, raw], call, []) is not None
    same(name, b"[" + raw + b"]", JSON)


@pytest.mark.parametrize("example", ["aep_destination_sdk", "aep_aggregation_key"])
def test_the_examples_of_the_documentation_take_the_short_way(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (Path(__file__).parents[2] / "examples" / f"{example}.json").read_bytes()
    short, exact = both()
    expected = outcome(exact, body, JSON)
    monkeypatch.setattr(short, "_read_exactly", None)
    assert outcome(short, body, JSON) == expected


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
        {"firstname": "person.name"},
        {"firstname": "organizations"},
        {"firstname": "a.b", "city": "a"},
        {"firstname": "a", "city": "a.b"},
        {"audiences": "segments"},
        {"email_lc_sha256": "hash"},
        {"firstname": "audiences.a.status"},
        {"firstname": "list.0"},
    ],
)
def test_other_rules_are_left_to_the_exact_path(mapping: dict[str, Any]) -> None:
    made = reader(source={"mapping": mapping})
    assert (made._typed, made._typed_aep) == (None, None)


FLAT = {"email": "lea@example.com", "firstname": "Léa", "city": "Lille", "countryid": "FR"}
LONG = "y" * 200
QUALIFIED = {"status": "realized", "lastQualificationTime": "2026-10-02T08:15:30Z"}
ONE_CHANGE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *(
        ("plain", FLAT, {"firstname": odd})
        for odd in (" x", "x ", "\x7f", "Le\u0301a", "a\u200b", "a\tb", 'q"q', "", None)
    ),
    *(("plain", FLAT, {"countryid": odd}) for odd in ("fr", "XX", "US", None)),
    *(("plain", FLAT, {"state": odd}) for odd in ("TX", "Nord")),
    ("plain", {**FLAT, "countryid": "US"}, {"state": "Nord"}),
    ("plain", FLAT, {"audiences": {"a": QUALIFIED, "ups/a": QUALIFIED | {"status": "exited"}}}),
    ("plain", FLAT, {"email_lc_sha256": "ab" * 32}),
    *(
        ("consents", FLAT, {"consents": odd})
        for odd in ({"share": "perhaps"}, {"share": ""}, [], "y", {"share": {"val": "n"}})
    ),
    ("consents", FLAT, {"consents": {"idSpecific": {"Email": {"lea@example.com": {"marketing": {"email": "n"}}}}}}),
    ("consents", FLAT, {"consents.share": "n"}),
    ("rules", {"mail": "lea@example.com"}, {"role": {"name": LONG, "level": LONG}}),
    ("rules", {"mail": "lea@example.com"}, {"contact": {"mail": "jo@example.com"}}),
    ("rules", {"mail": "lea@example.com"}, {"mail": "nobody"}),
    ("rules", {"mail": "lea@example.com"}, {"wants": {"badge": "maybe"}}),
    ("rules", {"mail": "lea@example.com", "city": "A", "address1": "B"}, {"city": None}),
    ("rules", {"mail": "lea@example.com"}, {"email": "jo@example.com"}),
    ("rules", {"mail": "lea@example.com"}, {"given": {"value": "Jo"}}),
    *(("plain", XDM, {"workEmail": {"address": odd}}) for odd in ("jo@example.com", "nobody", " ", " lea@example.com")),
    *(("plain", XDM, {"identityMap": {"Email": [{"id": odd}]}}) for odd in ("jo@example.com", "ab" * 32, "", "x")),
    ("plain", XDM, {"identityMap": {"ECID": [{"id": "7"}], "email": [{"id": "lea@example.com"}]}}),
    ("plain", XDM, {"segmentMembership": {"ups": {"a": QUALIFIED}, "UPS": {"a": QUALIFIED | {"status": "exited"}}}}),
    ("plain", XDM, {"segmentMembership": {"ups": {"a": QUALIFIED | {"name": LONG + LONG}}}}),
    ("plain", XDM, {"segmentMembership": {"ups": {"a": QUALIFIED | {"name": "a\tb "}}}}),
    ("plain", XDM, {"segmentMembership": {"ups": {"a": {"status": "realized"}}}}),
    ("plain", XDM, {"segmentMembership": {"a": QUALIFIED}}),
    ("plain", XDM, {"homeAddress": {"street1": " "}, "mailingAddress": {"city": "Paris"}}),
    ("plain", XDM, {"homeAddress": {}, "mailingAddress": {"city": "Paris"}, "workAddress": {"postalCode": "1"}}),
    ("plain", XDM, {"homeAddress": {"stateProvince": "US-", "state": "TX", "countryCode": "US"}}),
    ("plain", XDM, {"organizations": [None, "", "Acme"]}),
    ("plain", XDM, {"organizations": "Acme"}),
    ("plain", XDM, {"homePhone": {"number": "2"}}),
    ("plain", XDM, {"firstname": "Jo"}),
    ("plain", XDM, {"attributes": {"firstname": "Jo", "firstName": "Ann", "email": "lea@example.com"}}),
    ("plain", XDM, {"attributes": {"email": "jo@example.com"}}),
    ("plain", XDM, {"attributes": {"birthDate": None, "audiences": "x"}}),
    ("plain", XDM, {"attributes": {"birthDate": None, "city": {"value": "Lyon"}}}),
    ("aep rules", ACME, {"_acme": {"mail": "nobody"}}),
    ("aep rules", ACME, {"_acme": {"mail": "Jo@example.com"}, "personalEmail": {"address": "x"}}),
    ("aep rules", ACME, {"_acme": {"other": "x"}}),
]
CALLS = [
    {},
    {"aggregationKey": {"segmentId": "a", "segmentNamespace": "ups", "segmentAlias": "Another name"}},
    {"audienceId": "c", "audienceNamespace": "CSV", "audienceStatus": "exited"},
    {"audienceId": "c d"},
]


@pytest.mark.parametrize("call", CALLS)
def test_one_change_to_a_usual_profile_means_the_same_on_both_ways(call: dict[str, Any]) -> None:
    for name, profile, change in ONE_CHANGE:
        changed = msgspec.json.encode(profile | change)
        beside = msgspec.json.encode(profile)
        for raws in ([changed], [beside, changed, beside]):
            envelope = {"profiles": list(map(msgspec.Raw, raws)), **call}
            assert same(name, msgspec.json.encode(envelope), JSON)
            assert call or same(name, b"\n".join(raws), NDJSON)


@pytest.mark.parametrize("profile", [FLAT, XDM, SDK])
def test_a_key_that_stands_twice_is_seen_on_both_ways(profile: dict[str, Any]) -> None:
    raw = msgspec.json.encode(profile)
    for name, value in profile.items():
        for twice in (
            raw[:-1] + b',"%s":%s}' % (name.encode(), msgspec.json.encode(value)),
            raw[:-1] + b',"%s":null}' % name.encode(),
        ):
            assert same("plain", b"[" + raw + b"," + twice + b"]", JSON)


def test_an_object_with_profiles_is_an_envelope_though_a_source_maps_that_name() -> None:
    how = {"source": {"mapping": {"firstname": "profiles"}}}
    short, exact = both(**how)
    for body in (b'{"email":"lea@example.com","profiles":"x"}', b'{"profiles":[{"email":"lea@example.com"}]}'):
        assert outcome(short, body, JSON) == outcome(exact, body, JSON)
