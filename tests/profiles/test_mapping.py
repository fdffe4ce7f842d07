from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Trait
from engine.profiles.fields import TARGET_FIELDS, traits_of
from engine.profiles.identity import key_of
from engine.profiles.mapping import Mapper, merge_contents

EMAIL, FOREIGN = Trait.EMAIL, Trait.EMAIL | Trait.FOREIGN_STATE


def content(**fields: str) -> bytes:
    order = [*TARGET_FIELDS, *sorted(fields.keys() - set(TARGET_FIELDS))]
    return msgspec.json.encode({name: fields[name] for name in order if name in fields})


LEA = content(email="lea@example.com", firstname="Léa", city="Lille", vip="yes")
NORD = content(email="lea@example.com", state="Nord", countryid="FR")


def mapper(**settings: Any) -> Mapper:
    defaults: dict[str, Any] = {"fields": ("*",), "rename": {}, "state_policy": "drop", "apply_transformation": False}
    return Mapper(**(defaults | settings))


# -- merging ----------------------------------------------------------------------------------------------------------


def test_the_newer_fields_win_and_the_older_ones_stay() -> None:
    newer = content(email="lea@example.com", jobtitle="CEO", city="Paris")
    merged = content(email="lea@example.com", firstname="Léa", jobtitle="CEO", city="Paris", vip="yes")
    assert merge_contents(LEA, newer) == (merged, EMAIL)


def test_a_hash_only_update_joins_the_plain_address() -> None:
    assert merge_contents(LEA, content(city="Paris"))[1] == EMAIL
    assert merge_contents(content(city="Paris"), LEA) == (LEA, EMAIL)
    assert merge_contents(content(city="Paris"), content(zip="75000")) == (content(city="Paris", zip="75000"), 0)
    assert merge_contents(b"{}", LEA) == merge_contents(LEA, b"{}") == (LEA, EMAIL)


@pytest.mark.parametrize(
    ("older", "newer", "traits"),
    [
        ({"state": "TX"}, {"countryid": "US"}, 0),
        ({"state": "TX"}, {"countryid": "FR"}, Trait.FOREIGN_STATE),
        ({"state": "TX", "countryid": "US"}, {"countryid": "CA"}, Trait.FOREIGN_STATE),
        ({"state": "Nord", "countryid": "FR"}, {"state": "TX", "countryid": "US"}, 0),
        ({"countryid": "CA"}, {"state": "TX"}, Trait.FOREIGN_STATE),
        ({"city": "Lille"}, {"state": "TX"}, 0),
    ],
)
def test_state_and_country_are_judged_together_once_joined(
    older: dict[str, str], newer: dict[str, str], traits: int
) -> None:
    assert merge_contents(content(**older), content(**newer))[1] == traits


contents = st.dictionaries(
    st.sampled_from([*TARGET_FIELDS, "vip", "badge"]), st.sampled_from(["TX", "FR", 'é"\\', "US"])
)


@given(contents, contents, contents)
def test_merging_is_a_fold(first: dict[str, str], second: dict[str, str], third: dict[str, str]) -> None:
    a, b, c = content(**first), content(**second), content(**third)
    left = merge_contents(merge_contents(a, b)[0], c)
    right = merge_contents(a, merge_contents(b, c)[0])
    assert left == right
    assert left[0] == content(**(first | second | third))
    place = msgspec.json.decode(left[0])
    traits = traits_of(email="email" in place, state=place.get("state", ""), country=place.get("countryid", ""))
    assert left[1] == traits


# -- encoding ---------------------------------------------------------------------------------------------------------


def test_a_record_begins_with_the_event_code() -> None:
    record = mapper(event_param="event", event_code='acme"27').encode(LEA, EMAIL, None)
    assert record == b'{"event":"acme\\"27",' + LEA[1:]
    assert mapper().encode(LEA, EMAIL, None) == LEA


@pytest.mark.parametrize("body", [b"{}", content(city="Lille")])
def test_a_content_of_any_size_gives_json(body: bytes) -> None:
    record = mapper(event_param="event", event_code="a", flag_field="left").encode(body, 0, True)
    assert json.loads(record) == {"event": "a", **json.loads(body), "left": True}


def test_only_the_listed_fields_leave_and_the_address_always() -> None:
    assert mapper(fields=("city",)).encode(LEA, EMAIL, None) == content(email="lea@example.com", city="Lille")
    assert mapper(fields=("email",)).encode(LEA, EMAIL, None) == content(email="lea@example.com")


def test_fields_leave_under_their_new_names() -> None:
    record = mapper(rename={"email": "mail", "city": "town"}).encode(LEA, EMAIL, None)
    assert record.decode() == '{"mail":"lea@example.com","firstname":"Léa","town":"Lille","vip":"yes"}'


@pytest.mark.parametrize(("flag", "end"), [(True, b',"left":true}'), (False, b',"left":false}'), (None, b"}")])
def test_the_flag_is_the_last_field(flag: bool | None, end: bytes) -> None:
    assert mapper(flag_field="left").encode(LEA, EMAIL, flag) == LEA[:-1] + end
    renamed = mapper(flag_field="exit", rename={"exit": "left"}, fields=("firstname", "city", "vip"))
    assert renamed.encode(LEA, EMAIL, flag) == LEA[:-1] + end


@pytest.mark.parametrize(
    ("policy", "fields", "sent"),
    [
        ("drop", ("*",), {"countryid": "FR"}),
        ("pass", ("*",), {"state": "Nord", "countryid": "FR"}),
        ("foreignstate", ("*",), {"countryid": "FR", "foreignstate": "Nord"}),
        ("foreignstate", ("state",), {"foreignstate": "Nord"}),
        ("foreignstate", ("city",), {}),
        ("pass", ("city",), {}),
    ],
)
def test_the_policy_decides_about_a_state_outside_us_and_ca(
    policy: str, fields: tuple[str, ...], sent: dict[str, str]
) -> None:
    record = mapper(state_policy=policy, fields=fields).encode(NORD, FOREIGN, None)
    assert json.loads(record) == {"email": "lea@example.com", **sent}


@pytest.mark.parametrize("policy", ["drop", "pass", "foreignstate"])
@pytest.mark.parametrize(("state", "country"), [("TX", "CA"), ("QC", "US"), ("Nord", "")])
def test_a_code_that_a_merge_made_wrong_never_leaves(policy: str, state: str, country: str) -> None:
    fields = {"email": "lea@example.com", "state": state} | ({"countryid": country} if country else {})
    record = json.loads(mapper(state_policy=policy).encode(content(**fields), FOREIGN, None))
    assert record == {name: value for name, value in fields.items() if name != "state"}


def test_an_own_foreignstate_wins_over_a_moved_state() -> None:
    own = content(email="lea@example.com", state="Nord", countryid="FR", foreignstate="Flandre")
    record = json.loads(mapper(state_policy="foreignstate").encode(own, FOREIGN, None))
    assert record == {"email": "lea@example.com", "countryid": "FR", "foreignstate": "Flandre"}
    assert "foreignstate" not in json.loads(mapper(fields=("city",)).encode(own, FOREIGN, None))


@pytest.mark.parametrize("settings", [{}, {"rename": {"city": "town"}}])
def test_the_transformation_adds_the_hash_beside_the_address(settings: dict[str, Any]) -> None:
    hashing = mapper(apply_transformation=True, flag_field="left", **settings)
    record = json.loads(hashing.encode(LEA, EMAIL, False))
    assert (record["email"], record["email_lc_sha256"]) == ("lea@example.com", key_of("lea@example.com").hex())
    assert "email_lc_sha256" not in json.loads(hashing.encode(content(city="Lille"), 0, False))


@given(contents, st.booleans(), st.sampled_from([True, False, None]))
def test_splicing_gives_what_rebuilding_gives(fields: dict[str, str], hashes: bool, flag: bool | None) -> None:
    settings = {"apply_transformation": hashes, "flag_field": "left", "event_param": "event", "event_code": "a"}
    body, traits = content(**fields), EMAIL if "email" in fields else Trait.NONE
    rebuilt = mapper(rename={"nothing": "else"}, **settings).encode(body, traits, flag)
    assert mapper(**settings).encode(body, traits, flag) == rebuilt


def test_the_fingerprint_covers_every_setting() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"fields": ("city",)},
        {"rename": {"city": "town"}},
        {"state_policy": "pass"},
        {"apply_transformation": True},
        {"flag_field": "left"},
        {"event_param": "event"},
        {"event_code": "acme27"},
    ]
    assert len({mapper(**change).fingerprint for change in changes}) == len(changes)
    assert len(mapper().fingerprint) == 32


def test_the_order_of_settings_does_not_change_the_fingerprint() -> None:
    one = mapper(fields=("city", "zip"), rename={"city": "town", "zip": "code"})
    other = mapper(fields=("zip", "city", "zip"), rename={"zip": "code", "city": "town"})
    assert one.fingerprint == other.fingerprint


@given(st.lists(st.tuples(contents, st.booleans()), max_size=5), st.booleans(), st.sampled_from([{}, {"city": "town"}]))
def test_many_records_are_what_each_would_be(
    people: list[tuple[dict[str, str], bool]], hashes: bool, rename: dict[str, str]
) -> None:
    made = mapper(apply_transformation=hashes, rename=rename, event_param="event", event_code="a", flag_field="left")
    bodies = [content(**fields) for fields, _ in people]
    traits = [(EMAIL if "email" in fields else Trait.NONE) | (FOREIGN if foreign else 0) for fields, foreign in people]
    alone = [made.encode(body, one, None) for body, one in zip(bodies, traits, strict=True)]
    assert made.encode_all(bodies, traits) == alone
