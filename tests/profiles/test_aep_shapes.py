"""AEP's own shapes, known without configuration: payloads built from what Adobe documents (domain reference, 2.1)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.fold import fold_audiences
from engine.model import Event, Membership, Trait
from engine.profiles.aep_paths import ADDRESS_FIELDS, ADDRESSES, DEFAULT_PATHS, EMAIL_PATHS
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.formats import Parsed, Reader
from engine.profiles.identity import key_of

NOW = 1_790_000_000.0
SEGMENT, OTHER = "3f0c7a52-6d1e-4b0a-9a55-0c7b1c9f2e11", "b7d14a90-52c3-4f6e-8c1d-9e2f4a6b8c0d"
QUALIFIED = {"lastQualificationTime": "2026-10-02T08:15:30Z", "status": "realized"}
QUALIFIED_AT = 1790928930.0
LEA = "lea.martin@example.com"

XDM: dict[str, Any] = {
    "person": {"name": {"firstName": "Léa", "lastName": "Martin"}},
    "personalEmail": {"address": LEA},
    "segmentMembership": {"ups": {SEGMENT: QUALIFIED, OTHER: QUALIFIED | {"status": "exited"}}},
    "identityMap": {"ecid": [{"id": "31415926535897932384626433832795028841"}]},
}
SDK: dict[str, Any] = {
    "identityMap": {"Email": [{"id": LEA}]},
    "segmentMembership": {"ups": {SEGMENT: QUALIFIED}},
    "attributes": {"firstname": {"value": "Léa"}, "lastname": "Martin", "address2": {}, "city": {"value": "Lille"}},
}


def read(body: object, **settings: Any) -> Parsed:
    defaults: dict[str, Any] = {"mapping": {}, "extra_fields": frozenset(), "order": "arrival", "max_events": 1_000}
    reader = Reader(**(defaults | {"now": lambda: NOW} | settings))
    return reader.read(json.dumps(body).encode(), "application/json")


def event(body: object, **settings: Any) -> Event:
    parsed = read(body, **settings)
    assert parsed.rejected == []
    (only,) = parsed.events
    return only


def content(body: object, **settings: Any) -> dict[str, str]:
    found: dict[str, str] = msgspec.json.decode(event(body, **settings).content)
    return found


def dropped(body: object, **settings: Any) -> list[tuple[str, str]]:
    return [(it.field, it.reason) for it in read(body, **settings).dropped]


def identified(**more: Any) -> dict[str, Any]:
    return {"personalEmail": {"address": LEA}, **more}


# -- shape A: the HTTP API destination ---------------------------------------------------------------------------------


def test_a_profile_of_the_http_api_destination_is_understood_as_it_comes() -> None:
    one = event(XDM)
    assert one.key == key_of(LEA)
    assert msgspec.json.decode(one.content) == {"email": LEA, "firstname": "Léa", "lastname": "Martin"}
    assert one.audiences == {
        f"ups/{SEGMENT}": Membership(True, QUALIFIED_AT),
        f"ups/{OTHER}": Membership(False, QUALIFIED_AT),
    }


@pytest.mark.parametrize(
    "frame",
    [lambda it: it, lambda it: [it], lambda it: {"profiles": [it]}, lambda it: [it] * 10],
    ids=["object", "array", "envelope", "ten"],
)
def test_one_to_ten_profiles_a_call_in_every_frame(frame: Any) -> None:
    parsed = read(frame(XDM))
    assert {it.content for it in parsed.events} == {event(XDM).content}
    assert len(parsed.events) == parsed.records


def test_lines_of_profiles_are_a_frame_too() -> None:
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10)
    parsed = reader.read(b"\n".join(json.dumps(it).encode() for it in (XDM, SDK)), "application/x-ndjson")
    assert [it.key for it in parsed.events] == [key_of(LEA)] * 2


def test_each_standard_path_leads_to_its_field() -> None:
    profile = {
        "person": {"name": {"firstName": "Léa", "lastName": "Martin"}},
        "workEmail": {"address": LEA},
        "organizations": ["", "Atelier Nord", "Other"],
        "extendedWorkDetails": {"jobTitle": "Acheteuse"},
        "workPhone": {"number": "+33320000000"},
        "workAddress": {
            **{"street1": "12 rue Nationale", "street2": "B", "city": "Austin"},
            **{"stateProvince": "US-TX", "postalCode": "78701", "countryCode": "us"},
        },
    }
    assert content(profile) == {
        **{"email": LEA, "firstname": "Léa", "lastname": "Martin", "companyname": "Atelier Nord"},
        **{"jobtitle": "Acheteuse", "phone": "+33320000000", "address1": "12 rue Nationale", "address2": "B"},
        **{"city": "Austin", "state": "TX", "zip": "78701", "countryid": "US"},
    }


def test_personal_details_come_before_those_of_work() -> None:
    both = {
        "personalEmail": {"address": LEA},
        "workEmail": {"address": "lea@work.example"},
        "mobilePhone": {"number": "1"},
        "workPhone": {"number": "2"},
    }
    assert content(both) == {"email": LEA, "phone": "1"}
    assert content(both | {"mobilePhone": {"number": " "}})["phone"] == "2"


def test_an_address_is_taken_as_a_whole_and_never_mixed() -> None:
    home, work = {"city": "Lille"}, {"street1": "1 Main St", "city": "Austin"}
    assert content(identified(homeAddress=home, workAddress=work)) == {"email": LEA, "city": "Lille"}
    assert content(identified(homeAddress={"city": ""}, workAddress=work))["address1"] == "1 Main St"


@pytest.mark.parametrize(("code", "kept"), [("CA-QC", "QC"), ("QC", "QC"), ("us-tx", None)])
def test_a_subdivision_code_loses_its_country(code: str, kept: str | None) -> None:
    address = {"stateProvince": code, "countryCode": "CA"}
    assert content(identified(homeAddress=address)).get("state") == kept


def test_a_part_that_is_no_object_is_dropped_by_its_path() -> None:
    assert dropped(identified(person="Léa", homeAddress={"city": {"a": 1}})) == [
        ("person", "not_an_object"),
        ("city", "not_text"),
    ]


def test_the_name_of_a_tenant_is_reached_by_mapping_alone() -> None:
    profile = identified(_acme={"nick": "Lé", "shoe": 38})
    assert dropped(profile) == [("_acme", "unknown_field")]
    assert content(profile, mapping={"firstname": "_acme.nick"}) == {"email": LEA, "firstname": "Lé"}
    assert dropped(profile, mapping={"firstname": "_acme.nick"}) == []


def test_a_mapping_wins_over_the_standard_paths_and_these_over_nothing() -> None:
    mapping = {"firstname": "_acme.nick", "city": "workAddress.city"}
    profile = XDM | {"homeAddress": {"city": "Lille"}, "workAddress": {"city": "Austin"}}
    assert content(profile | {"_acme": {"nick": "Lé"}}, mapping=mapping)["firstname"] == "Lé"
    mapped = content(profile, mapping=mapping)
    assert (mapped["firstname"], mapped["city"]) == ("Léa", "Austin")


@pytest.mark.parametrize(
    ("given", "kept"), [("Le\u0301a", "Léa"), ("  L\x00éa\n", "Léa"), ("é" * 255, "é" * 255), ("x" * 256, None)]
)
@pytest.mark.parametrize("shape", ["xdm", "attributes"])
def test_values_are_cleaned_like_those_of_flat_records(shape: str, given: str, kept: str | None) -> None:
    """U-19: NFC, no control characters, at most 255; U-14: a bad field costs the field."""
    part = (
        {"person": {"name": {"firstName": given}}}
        if shape == "xdm"
        else {"attributes": {"firstname": {"value": given}}}
    )
    assert content(identified(**part)).get("firstname") == kept
    assert dropped(identified(**part)) == ([] if kept else [("firstname", "too_long")])


@pytest.mark.parametrize(
    ("country", "state", "kept", "foreign"), [("US", "TX", "TX", 0), ("FR", "Nord", "Nord", 2), ("US", "Nord", None, 0)]
)
def test_a_state_is_judged_by_the_country_of_its_address(
    country: str, state: str, kept: str | None, foreign: int
) -> None:
    """U-13."""
    one = event(identified(homeAddress={"countryCode": country, "stateProvince": state}))
    assert (json.loads(one.content).get("state"), one.traits & Trait.FOREIGN_STATE) == (kept, foreign)


# -- shape B: Destination SDK ------------------------------------------------------------------------------------------


def test_what_a_destination_sdk_template_writes_is_understood_as_it_comes() -> None:
    one = event({"audienceId": SEGMENT, "audienceNamespace": "ups", "profiles": [SDK]})
    assert msgspec.json.decode(one.content) == {
        **{"email": LEA, "firstname": "Léa", "lastname": "Martin", "city": "Lille"},
    }
    assert one.audiences == {f"ups/{SEGMENT}": Membership(True, QUALIFIED_AT)}


def test_an_absent_attribute_is_empty_or_null_and_says_nothing() -> None:
    attributes = {"email": {"value": LEA}, "city": {}, "zip": None, "phone": {"value": None}, "jobtitle": {"value": ""}}
    parsed = read({"attributes": attributes})
    assert (parsed.events[0].content, parsed.dropped) == (b'{"email":"%s"}' % LEA.encode(), [])


def test_attributes_are_known_in_any_case() -> None:
    attributes = {"Email": LEA, "firstName": {"value": "Léa"}, "jobTitle": "CTO", "countryID": "fr", "BADGE": "7"}
    expected = {"email": LEA, "firstname": "Léa", "jobtitle": "CTO", "countryid": "FR", "badge": "7"}
    assert content({"attributes": attributes}, extra_fields=frozenset({"badge"})) == expected
    assert (
        content({"audienceId": SEGMENT, **attributes, "firstName": "Léa"}, extra_fields=frozenset({"badge"}))
        == expected
    )


def test_an_attribute_of_another_kind_is_dropped_and_the_rest_stays() -> None:
    attributes = {"city": {"value": ["Lille"]}, "zip": {"other": 1}, "jobtitle": "CTO"}
    assert content(identified(attributes=attributes)) == {"email": LEA, "jobtitle": "CTO"}
    assert sorted(dropped(identified(attributes=attributes))) == [("city", "not_text"), ("zip", "not_text")]


# -- identities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["Email", "email", "EMAIL"])
def test_namespaces_are_known_in_any_case(namespace: str) -> None:
    assert content({"identityMap": {namespace: [{"id": LEA}]}}) == {"email": LEA}


@pytest.mark.parametrize("namespace", ["Email_LC_SHA256", "email_lc_sha256"])
def test_a_hash_of_the_identity_map_is_the_identity(namespace: str) -> None:
    one = event({"identityMap": {namespace: [{"id": key_of(LEA).hex().upper()}]}})
    assert (one.key, one.traits) == (key_of(LEA), Trait.NONE)


def test_a_template_that_hashes_what_it_calls_an_email_gives_a_hash() -> None:
    assert event({"identityMap": {"Email": [{"id": key_of(LEA).hex()}]}}).traits == Trait.NONE
    assert event({"identities": [{"type": "email", "id": key_of(LEA).hex()}]}).key == key_of(LEA)


def test_a_hash_that_adobe_made_before_trimming_is_not_held_against_the_address() -> None:
    untrimmed = key_of(f" {LEA} ").hex()
    one = event({"attributes": {"email": f" {LEA} "}, "identityMap": {"Email_LC_SHA256": [{"id": untrimmed}]}})
    assert (one.key, json.loads(one.content)["email"]) == (key_of(LEA), LEA)


def test_a_hash_of_somebody_else_in_the_identity_map_costs_no_attendee_with_an_address() -> None:
    """A stitched profile has several people's hashes; the plain address is who is meant."""
    identities = {"Email": [{"id": LEA}], "Email_LC_SHA256": [{"id": "ab" * 32}]}
    assert event({"identityMap": identities}).key == key_of(LEA)
    assert dropped({"identityMap": identities}) == []
    assert read({"attributes": {"email": LEA, "email_lc_sha256": "ab" * 32}}).rejected[0].reason == "identity_mismatch"


@pytest.mark.parametrize(("mail", "key"), [(LEA, key_of(LEA)), ("nobody", bytes.fromhex("ab" * 32))])
def test_so_it_is_with_an_address_that_a_mapping_found(mail: str, key: bytes) -> None:
    profile = {"_acme": {"mail": mail}, "identityMap": {"Email_LC_SHA256": [{"id": "ab" * 32}]}}
    assert event(profile, mapping={"email": "_acme.mail"}).key == key


def test_the_attribute_is_the_address_before_the_identity_map() -> None:
    identities = {"Email": [{"id": "other@example.com"}, {"id": LEA.upper()}]}
    profile = {"attributes": {"email": {"value": LEA}}, "identityMap": identities}
    assert content(profile) == {"email": LEA}
    assert dropped(profile) == [("identityMap.Email", "several_identities")]


def test_of_several_addresses_the_primary_one_is_taken_else_the_first() -> None:
    first, primary = {"id": "first@example.com"}, {"id": "primary@example.com", "primary": True}
    assert content({"identityMap": {"Email": [first, primary]}}) == {"email": "primary@example.com"}
    assert content({"identityMap": {"Email": [first, {"id": LEA}]}}) == {"email": "first@example.com"}


def test_an_address_that_is_none_does_not_stand_in_the_way_of_another() -> None:
    profile = {"attributes": {"email": "nobody"}, "identityMap": {"Email": [{"id": ""}, {"id": LEA}]}}
    assert content(profile) == {"email": LEA}
    assert dropped(profile) == [("attributes.email", "not_an_identity")]


def test_one_address_said_twice_is_not_several() -> None:
    profile = {"personalEmail": {"address": LEA}, "identityMap": {"Email": [{"id": LEA.title()}]}}
    assert dropped(profile) == []


def test_identities_with_a_type_are_the_same_dialect() -> None:
    identities = [
        {"type": "external_id", "id": "7"},
        {"type": "email", "id": LEA},
        {"type": "email", "id": "b@b.example"},
    ]
    assert content({"identities": identities}) == {"email": LEA}
    assert dropped({"identities": identities}) == [
        ("identities.external_id", "unknown_field"),
        ("identities.email", "several_identities"),
    ]


def test_other_namespaces_are_counted_every_time_and_listed_once() -> None:
    parsed = read([XDM] * 40)
    assert [(it.index, it.field) for it in parsed.dropped] == [(0, "identityMap.ecid")]
    assert parsed.unknown_fields == 40
    assert parsed.unlisted == {"unknown_field": 39}


def test_names_without_end_do_not_flood_the_answer() -> None:
    parsed = read([identified(**{f"_tenant{number}_{it}": 1 for it in range(50)}) for number in range(50)])
    assert (len(parsed.dropped), parsed.unknown_fields) == (100, 2_500)


# -- audiences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "time",
    [
        "2026-10-02T08:15:30Z",
        "2026-10-02T08:15:30+0000",
        "2026-10-02T08:15:30.000+0000",
        "2026-10-02T08:15:30.000000Z",
        1790928930000,
    ],
)
def test_every_form_of_time_that_adobe_shows(time: object) -> None:
    membership = {"ups": {SEGMENT: {"lastQualificationTime": time, "status": "realized"}}}
    assert event(identified(segmentMembership=membership)).audiences == {
        f"ups/{SEGMENT}": Membership(True, QUALIFIED_AT)
    }


@pytest.mark.parametrize(("status", "realized"), [("Realized", True), ("existing", True), ("EXITED", False)])
def test_statuses_in_any_case_and_the_legacy_one(status: str, realized: bool) -> None:
    membership = {"UPS": {SEGMENT: QUALIFIED | {"status": status}}}
    assert event(identified(segmentMembership=membership)).audiences == {
        f"ups/{SEGMENT}": Membership(realized, QUALIFIED_AT)
    }


def test_an_unknown_status_is_counted_and_changes_nothing() -> None:
    membership = {"ups": {SEGMENT: QUALIFIED | {"status": "exiting"}, OTHER: QUALIFIED}}
    assert list(event(identified(segmentMembership=membership)).audiences or ()) == [f"ups/{OTHER}"]
    assert dropped(identified(segmentMembership=membership)) == [(f"audiences.ups/{SEGMENT}", "unknown_status")]


def test_an_audience_keeps_the_name_that_came_with_it() -> None:
    entry = QUALIFIED | {"name": " Summit registrants ", "createdAt": 1648553325000, "mappingCreatedAt": 1649856570000}
    one = event(identified(segmentMembership={"CustomerAudienceUpload": {"7": entry}}))
    assert one.audiences == {"customeraudienceupload/7": Membership(True, QUALIFIED_AT, "Summit registrants")}


def test_a_name_that_is_none_is_dropped_and_the_standing_stays() -> None:
    membership = {"ups": {SEGMENT: QUALIFIED | {"name": ["x"]}, OTHER: QUALIFIED | {"name": "x" * 256}}}
    assert dropped(identified(segmentMembership=membership)) == [
        (f"audiences.ups/{SEGMENT}.name"[:64], "not_text"),
        (f"audiences.ups/{OTHER}.name"[:64], "too_long"),
    ]


def test_entries_without_a_namespace_are_of_the_segmentation_service() -> None:
    assert event(identified(segmentMembership={SEGMENT: QUALIFIED})).audiences == {
        f"ups/{SEGMENT}": Membership(True, QUALIFIED_AT)
    }


@pytest.mark.parametrize(
    "beside",
    [
        {"audienceId": SEGMENT},
        {"audienceId": SEGMENT, "audienceNamespace": "UPS"},
        {"aggregationKey": {"segmentId": SEGMENT, "segmentNamespace": "ups", "identityNamespaces": ["email"]}},
    ],
    ids=["bare", "audienceId", "aggregationKey"],
)
def test_the_audience_of_a_call_counts_for_every_profile_that_does_not_tell_its_own(beside: dict[str, Any]) -> None:
    flat, own = (
        {"email": "b@b.example"},
        {"identityMap": {"Email": [{"id": LEA}]}, "segmentMembership": {"ups": {SEGMENT: QUALIFIED}}},
    )
    of_call, told = read(beside | {"profiles": [flat, own]}).events
    assert of_call.audiences == {f"ups/{SEGMENT}": Membership(True, NOW)}
    assert told.audiences == {f"ups/{SEGMENT}": Membership(True, QUALIFIED_AT)}


@pytest.mark.parametrize("key", [b'"audienceId"', b'"audience\\u0049d"'])
def test_a_value_that_json_cannot_hold_does_not_cost_the_call_its_audience(key: bytes) -> None:
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10, now=lambda: NOW)
    body = b'{"profiles":[{"email":"a@b.example","city":NaN},{"email":"c@d.example"}],%s:"7"}' % key
    parsed = reader.read(body, "application/json")
    assert [it.audiences for it in parsed.events] == [{"ups/7": Membership(True, NOW)}] * 2


def test_a_profile_that_is_sent_alone_names_its_audience_at_its_top() -> None:
    assert event({"audienceId": "7", "audienceNamespace": "AAM", "attributes": {"email": LEA}}).audiences == {
        "aam/7": Membership(True, NOW)
    }


def test_the_status_and_alias_of_the_aggregation_key_count() -> None:
    key = {"segmentId": SEGMENT, "segmentAlias": "Summit registrants", "segmentStatus": "exited"}
    of_call, own = read({"aggregationKey": key, "profiles": [identified(), SDK]}).events
    assert of_call.audiences == {f"ups/{SEGMENT}": Membership(False, NOW, "Summit registrants")}
    assert own.audiences == {f"ups/{SEGMENT}": Membership(True, QUALIFIED_AT, "Summit registrants")}


@pytest.mark.parametrize("key", [7, [], "x"])
def test_an_aggregation_key_that_is_none_costs_no_profile(key: object) -> None:
    parsed = read({"aggregationKey": key, "profiles": [identified()]})
    assert (len(parsed.events), parsed.dropped[0].reason) == (1, "not_an_object")


def test_audiences_added_and_removed_count_from_the_moment_they_came() -> None:
    segments = {"add": [SEGMENT, "CustomerAudienceUpload/7", "Summit registrants"], "remove": [OTHER, 7]}
    profile = {"identities": [{"type": "email", "id": LEA}], "AdobeExperiencePlatformSegments": segments}
    assert event(profile).audiences == {
        f"ups/{SEGMENT}": Membership(True, NOW),
        "customeraudienceupload/7": Membership(True, NOW),
        "ups/Summit%20registrants": Membership(True, NOW, "Summit registrants"),
        f"ups/{OTHER}": Membership(False, NOW),
    }
    assert dropped(profile) == [("AdobeExperiencePlatformSegments.remove", "not_text")]


def test_a_time_of_its_own_wins_over_the_moment_of_arrival() -> None:
    profile = SDK | {"AdobeExperiencePlatformSegments": {"remove": [SEGMENT]}}
    assert event(profile).audiences == {f"ups/{SEGMENT}": Membership(True, QUALIFIED_AT)}


@pytest.mark.parametrize("order", [1, -1], ids=["as they were made", "overtaken"])
def test_calls_that_overtake_each_other_end_in_the_newest_standing(order: int) -> None:
    """U-18: nothing promises the order of AEP's calls."""
    entered = {"ups": {SEGMENT: QUALIFIED}}
    left = {"ups": {SEGMENT: {"lastQualificationTime": "2026-10-02T08:15:31.000+0000", "status": "exited"}}}
    first, then = [event(identified(segmentMembership=it)).audiences for it in (entered, left)][::order]
    assert fold_audiences(first, then) == {f"ups/{SEGMENT}": Membership(False, QUALIFIED_AT + 1)}


def test_flat_records_behind_an_aep_one_mean_what_they_mean_alone() -> None:
    flat = {"email": "b@b.example", "firstname": "Bo"}
    assert read([XDM, flat, flat]).events[1:] == read([flat, flat]).events


# -- which shape it is -------------------------------------------------------------------------------------------------


def test_a_flat_record_is_what_it_was() -> None:
    flat = {"email": LEA, "firstname": "Léa", "audiences": {SEGMENT: QUALIFIED}, "firstName": "x", "shoe": 1}
    parsed = read(flat)
    assert json.loads(parsed.events[0].content) == {"email": LEA, "firstname": "Léa"}
    assert [(it.field, it.reason) for it in parsed.dropped] == [
        ("firstName", "unknown_field"),
        ("shoe", "unknown_field"),
    ]


def test_plain_names_win_over_attributes_and_these_over_xdm() -> None:
    profile = XDM | {"firstname": "plain", "attributes": {"firstname": "attribute", "lastname": {"value": "attribute"}}}
    assert content(profile) == {"email": LEA, "firstname": "plain", "lastname": "attribute"}


def test_the_format_may_be_forced_either_way() -> None:
    assert read(XDM, format="profile").rejected[0].reason == "missing"
    assert content({"Email": LEA, "firstName": "Léa"}, format="aep") == {"email": LEA, "firstname": "Léa"}
    assert read({"Email": LEA}).rejected[0].reason == "missing"


def test_programs_hand_in_aep_profiles_too() -> None:
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10, now=lambda: NOW)
    assert [it.key for it in reader.read_mappings([XDM, SDK]).events] == [key_of(LEA)] * 2


def test_key_that_stands_twice_is_named_by_its_part() -> None:
    body = (
        b'{"personalEmail":{"address":"%s"},"person":{"name":{"firstName":"a"},"name":{"firstName":"b"}},'
        % LEA.encode()
    )
    body += b'"segmentMembership":{"ups":{},"ups":{}},"attributes":{"city":"a","city":"b"}}'
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10)
    parsed = reader.read(body, "application/json")
    assert json.loads(parsed.events[0].content) == {"email": LEA}
    assert {(it.field, it.reason) for it in parsed.dropped} == {
        (name, "duplicate_key") for name in ("person", "segmentMembership", "attributes")
    }


def test_one_profile_without_an_identity_fails_alone_and_by_its_number() -> None:
    nobody = {"person": {"name": {"firstName": "x"}}, "identityMap": {"ECID": [{"id": "1"}]}}
    parsed = read([XDM, nobody, {"attributes": {"email": "x"}}, 7, SDK])
    assert parsed.indexes == [0, 4]
    assert [(it.index, it.field, it.reason) for it in parsed.rejected] == [
        (1, "email", "missing"),
        (2, "email", "not_an_email"),
        (3, "", "not_an_object"),
    ]


def test_the_table_of_the_documentation_is_the_one_in_use() -> None:
    page = (Path(__file__).parents[2] / "docs" / "aep.md").read_text("utf-8")
    table = dict(re.findall(r"^\| `([a-z0-9]+)` \| (.*) \|$", page, re.MULTILINE))
    assert set(table) == set(TARGET_FIELDS)
    for name, paths in DEFAULT_PATHS.items():
        assert re.findall(r"`([\w.]+)`", table[name]) == list(paths)
    assert re.findall(r"`([\w.]+)`", table["email"]) == [*EMAIL_PATHS, "identityMap"]
    for step, name in ADDRESS_FIELDS:
        assert f"`{step}`" in table[name]
    assert ", ".join(f"`{address}`" for address in ADDRESSES) in page
