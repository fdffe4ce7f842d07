"""What holds for anything that looks a little like AEP: no exception, one bad profile costs one profile."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from engine import Config
from engine.assembly.readers import readers_of
from engine.model import Membership
from engine.profiles.aep_paths import ADDRESS_FIELDS, ADDRESSES, DEFAULT_PATHS, EMAIL_PATHS
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.formats import BodyUnreadable, Parsed, Reader, TooManyEvents
from engine.profiles.json_exact import RecordUnreadable, decode_exact, decode_once

NOW = 1_790_000_000.0
RULES = {
    "city": {"first_of": ["person.city", "attributes.town"], "upper": True},
    "jobtitle": {"join": ["person.name.firstName", "0.a"], "lookup": {"x": "y"}},
    "badge": {"path": "identityMap.Email.0.id", "boolean": ["yes", "no"]},
    "phone": {"path": "segmentMembership.ups.a.lastQualificationTime", "date": "%Y-%m"},
}


def plain_reader(format: str) -> Reader:
    return Reader(
        mapping={},
        extra_fields=frozenset({"badge"}),
        order="timestamp",
        max_events=8,
        format=format,
        now=lambda: NOW,
    )


def ruled_reader() -> Reader:
    source = {"mapping": RULES, "format": "aep"}
    return readers_of(Config.from_dict({"source": [source], "ingress": {"max_events": 8}}), lambda: NOW)["default"][0]


READERS = [plain_reader("auto"), plain_reader("aep"), plain_reader("profile"), ruled_reader()]

paths = [*EMAIL_PATHS, *(path for paths in DEFAULT_PATHS.values() for path in paths)]
paths += [f"{address}.{step}" for address in ADDRESSES for step, _ in ADDRESS_FIELDS]
steps = sorted({step for path in paths for step in path.split(".")})
words = st.sampled_from(
    [
        *steps,
        *TARGET_FIELDS,
        *(
            "segmentMembership",
            "ups",
            "UPS",
            "a",
            "a b",
            "status",
            "lastQualificationTime",
            "name",
            "realized",
            "exited",
        ),
        *("identityMap", "Email", "email_lc_sha256", "ECID", "id", "primary", "identities", "type", "email"),
        *("attributes", "value", "AdobeExperiencePlatformSegments", "add", "remove", "aggregationKey", "segmentId"),
        *("segmentAlias", "segmentStatus", "audienceId", "audienceNamespace", "audiences", "consents", "_acme", "town"),
        *("profiles", "lea@example.com", "x", "", " ", "2026-10-02T08:15:30Z", "ab" * 32, "\ud800", "TX", "US-TX"),
    ]
)
leaves = words | st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats() | st.text(max_size=4)
anything: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)
sections = st.sampled_from(
    [
        *("person", "homeAddress", "personalEmail", "organizations", "segmentMembership", "identityMap", "identities"),
        *(
            "attributes",
            "AdobeExperiencePlatformSegments",
            "aggregationKey",
            "audienceId",
            "audiences",
            "email",
            "_acme",
        ),
    ]
)
profiles = st.dictionaries(sections, anything, max_size=5)
GOOD = {"personalEmail": {"address": "good@example.com"}, "segmentMembership": {"ups": {"a": {"status": "realized"}}}}


def parsed_or_none(reader: Reader, body: bytes, media_type: str) -> Parsed | None:
    try:
        return reader.read(body, media_type)
    except (BodyUnreadable, TooManyEvents):
        return None


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@given(st.lists(profiles | anything, max_size=4), profiles, st.sampled_from(READERS))
def test_any_json_is_judged_and_nothing_raises(records: list[Any], beside: dict[str, Any], reader: Reader) -> None:
    body = encoded(beside | {"profiles": records})
    parsed = parsed_or_none(reader, body, "application/json")
    assert parsed is not None
    refused = [it.index for it in parsed.rejected]
    assert sorted([*parsed.indexes, *refused]) == list(range(len(records)))
    for event in parsed.events:
        assert len(event.key) == 32
        assert all(
            isinstance(it, Membership) and math.isfinite(it.qualified_at) for it in (event.audiences or {}).values()
        )
        content = msgspec.json.decode(event.content, type=dict[str, str])
        assert all(value.strip() for value in content.values())


@given(st.lists(profiles | anything, max_size=3), st.integers(0, 3), st.sampled_from(READERS[:2]))
def test_a_good_profile_gets_through_whatever_stands_beside_it(records: list[Any], at: int, reader: Reader) -> None:
    at = min(at, len(records))
    parsed = parsed_or_none(reader, encoded([*records[:at], GOOD, *records[at:]]), "application/json")
    assert parsed is not None
    assert at in parsed.indexes
    assert at not in [it.index for it in parsed.rejected]


@given(st.lists(profiles, max_size=3), st.sampled_from(READERS))
def test_a_profile_means_the_same_in_every_frame(records: list[Any], reader: Reader) -> None:
    raws = [encoded(it) for it in records]
    array = parsed_or_none(reader, b"[" + b",".join(raws) + b"]", "application/json")
    lines = parsed_or_none(reader, b"\n".join(raws), "application/x-ndjson")
    mappings = reader.read_mappings(json.loads(raw) for raw in raws) if b"\xed" not in b"".join(raws) else array
    assert array == lines == mappings


written = st.recursive(
    st.sampled_from(
        ['"a"', '"\\u0022"', '"\\""', "null", "1", "1.0", "1e999", "NaN", "-0.0", "1" * 30, '"\\ud800"', "true"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda it: "[" + ",".join(it) + "]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"\\u0061"', '"b"', '""', '"\\u0022"']), inner), max_size=4).map(
            lambda it: "{" + ",".join(f"{key}:{value}" for key, value in it) + "}"
        )
    ),
    max_leaves=8,
)


def outcome(decode: Any, raw: bytes) -> object:
    try:
        value = decode(raw)
    except RecordUnreadable as error:
        return error.reason
    return _typed(value)


def _typed(value: object) -> object:
    """With types: 1 is not 1.0, true is not 1, an ambiguous object is not a plain one, and NaN is itself."""
    if isinstance(value, dict):
        return type(value).__name__, [(key, _typed(it)) for key, it in value.items()]
    if isinstance(value, list):
        return [_typed(it) for it in value]
    return type(value).__name__, repr(value)


@given(written.map(str.encode) | st.binary(max_size=20))
@example(b'{"a":"\\u0022\\u0022","a":"x"}')
@example(b'{"a":{"b":1,"b":2}}')
@example(b"[1111111111111111111111111111111]")
def test_the_short_way_to_decode_gives_what_the_exact_one_gives(raw: bytes) -> None:
    assert outcome(decode_once, raw) == outcome(decode_exact, raw)
