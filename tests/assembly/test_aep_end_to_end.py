"""What docs/aep.md promises: AEP's calls, as they are, through the ingress into the attendee store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pebble import render

from engine import Config
from engine.assembly.service import Service
from engine.sandbox import Sandbox, Settings, running_sandbox

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SEGMENT, OTHER = "3f0c7a52-6d1e-4b0a-9a55-0c7b1c9f2e11", "b7d14a90-52c3-4f6e-8c1d-9e2f4a6b8c0d"
LEA = {"firstname": "Léa", "lastname": "Martin", "city": "Lille", "countryid": "FR"}
TOM = {"firstname": "Tom", "lastname": "Baker"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox(Settings(port=0)) as running:
        yield running


async def sent(
    sandbox: Sandbox, folder: Path, body: bytes, *, kind: str = "application/json", **destination: Any
) -> Any:
    """Post one call, wait until it is settled, and return the answer; what arrived is in the sandbox."""
    account = {"base_url": sandbox.url, "rate": {"requests_per_second": 500.0, "burst": 10}}
    config = {
        "ingress": {"port": 0},
        "source": [{"name": "aep"}],
        "account": [account],
        "destination": [destination] if destination else [{}],
    }
    async with Service(Config.from_dict(config, base=folder)) as service, httpx.AsyncClient() as client:
        headers = {"Content-Type": kind, "Prefer": "wait=10"}
        answer = await client.post(f"{service.urls['ingress']}/v1/profiles?source=aep", content=body, headers=headers)
        return answer.status_code, answer.json()


def stored(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """address -> everything else that arrived, known to RainFocus or not."""
    return {one.email: {k: it for k, it in (one.fields | one.extra).items() if k != "email"} for one in sandbox.store}


async def test_the_http_api_destination_arrives(sandbox: Sandbox, tmp_path: Path) -> None:
    status, answer = await sent(sandbox, tmp_path, (EXAMPLES / "aep_http_api.json").read_bytes())
    assert (status, answer["accepted"], answer["rejected"]) == (202, 2, [])
    assert [(it["field"], it["reason"]) for it in answer["dropped"]] == [
        ("identityMap.ecid", "unknown_field"),
        ("identityMap.Email", "several_identities"),
    ]
    assert stored(sandbox) == {
        "lea.martin@example.com": {
            **LEA,
            **{"companyname": "Atelier Nord", "jobtitle": "Acheteuse", "phone": "+33320000000"},
            **{"address1": "12 rue Nationale", "zip": "59000"},
        },
        "tom.baker@example.com": {
            **TOM,
            **{"address1": "500 Congress Ave", "address2": "Suite 4", "city": "Austin", "state": "TX", "zip": "78701"},
            "countryid": "US",
        },
    }


async def test_a_destination_sdk_template_s_output_arrives(sandbox: Sandbox, tmp_path: Path) -> None:
    status, answer = await sent(sandbox, tmp_path, (EXAMPLES / "aep_destination_sdk.json").read_bytes())
    assert (status, answer["accepted"], answer["dropped"]) == (202, 2, [])
    assert stored(sandbox) == {
        "lea.martin@example.com": LEA,
        "tom.baker@example.com": TOM | {"jobtitle": "CTO", "state": "TX", "countryid": "US"},
    }


@pytest.mark.parametrize(
    ("name", "people", "unused"),
    [
        (
            "aep_aggregation_key.json",
            {
                "lea.martin@example.com": {"firstname": "Léa", "city": "Lille"},
                "tom.baker@example.com": {"firstname": "Tom"},
            },
            [],
        ),
        (
            "aep_identities.json",
            {"lea.martin@example.com": {"firstname": "Léa"}},
            ["attributes.birthDate", "identities.external_id"],
        ),
    ],
)
async def test_the_other_dialects_arrive(
    sandbox: Sandbox, tmp_path: Path, name: str, people: dict[str, Any], unused: list[str]
) -> None:
    status, answer = await sent(sandbox, tmp_path, (EXAMPLES / name).read_bytes())
    assert (status, answer["rejected"], [it["field"] for it in answer["dropped"]]) == (202, [], unused)
    assert stored(sandbox) == people


@pytest.mark.parametrize(
    ("audience", "people"),
    [
        (SEGMENT, 2),
        (f"ups/{SEGMENT}", 2),
        (f"UPS/{SEGMENT}", 2),
        ("Summit registrants", 2),
        ("*", 2),
        (OTHER, 0),
        ("Workshop waiting list", 0),
        ("summit", 0),
    ],
)
async def test_an_audience_is_activated_by_id_or_by_name(
    sandbox: Sandbox, tmp_path: Path, audience: str, people: int
) -> None:
    body = (EXAMPLES / "aep_http_api.json").read_bytes()
    _, answer = await sent(sandbox, tmp_path, body, name="demo", audiences=[audience])
    assert len(stored(sandbox)) == people
    assert answer["destinations"]["demo"]["excluded"] == 2 - people


@pytest.mark.parametrize("name", ["aep_aggregation_key.json", "aep_destination_sdk.json"])
async def test_an_alias_or_a_name_in_the_template_activates_as_well(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    await sent(sandbox, tmp_path, (EXAMPLES / name).read_bytes(), name="demo", audiences=["Summit registrants"])
    assert len(stored(sandbox)) == 2


async def test_who_left_the_audience_is_excluded(sandbox: Sandbox, tmp_path: Path) -> None:
    body = (EXAMPLES / "aep_identities.json").read_bytes()
    _, answer = await sent(sandbox, tmp_path, body, name="demo", audiences=[OTHER])
    assert (stored(sandbox), answer["destinations"]["demo"]["excluded"]) == ({}, 1)


async def test_one_bad_profile_costs_one_profile(sandbox: Sandbox, tmp_path: Path) -> None:
    """U-16: AEP reads the status alone and never sends a 4xx again."""
    profiles = json.loads((EXAMPLES / "aep_http_api.json").read_bytes())
    bad = {"person": {"name": {"firstName": "x"}}, "identityMap": {"ECID": [{"id": "1"}]}}
    status, answer = await sent(sandbox, tmp_path, json.dumps([profiles[0], bad, profiles[1]]).encode())
    assert (status, answer["accepted"]) == (207, 2)
    assert answer["rejected"] == [{"index": 1, "field": "email", "reason": "missing"}]
    assert len(stored(sandbox)) == 2


async def test_a_hash_alone_reaches_nobody_and_meets_its_address(sandbox: Sandbox, tmp_path: Path) -> None:
    """U-5."""
    hashed = {
        "identityMap": {"Email_LC_SHA256": [{"id": "4ac33642f890c6f67bfe402b440a7a30e10980927d5e85134a7325873b417b57"}]}
    }
    _, answer = await sent(sandbox, tmp_path, json.dumps(hashed | {"attributes": {"city": "Lille"}}).encode())
    assert (stored(sandbox), answer["destinations"]["demo"]["excluded"]) == ({}, 1)


async def test_the_largest_call_that_aep_makes_is_taken_with_the_limits_as_they_are(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """U-17: 10,000 profiles with every attribute, the most that configurable aggregation gathers."""
    fields = ("firstname", "lastname", "companyname", "jobtitle", "phone", "address1", "address2", "city", "zip")
    attributes = {name: {"value": "x" * 18} for name in fields}
    standing = {"ups": {SEGMENT: {"lastQualificationTime": "2026-10-02T08:15:30Z", "status": "realized"}}}
    profiles = [
        {
            "identityMap": {"Email": [{"id": f"attendee.{n}@example.com"}]},
            "segmentMembership": standing,
            "attributes": attributes,
        }
        for n in range(10_000)
    ]
    body = json.dumps({"audienceId": SEGMENT, "profiles": profiles}).encode()
    ingress = {"port": 0, "answer_timeout_seconds": 60.0}  # a busy machine is no failure
    config = {"ingress": ingress, "account": [{"base_url": sandbox.url}], "destination": [{"dry_run": True}]}
    async with Service(Config.from_dict(config, base=tmp_path)) as service, httpx.AsyncClient(timeout=60) as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post(f"{service.urls['ingress']}/v1/profiles", content=body, headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 10_000)
    assert len(body) > 6_000_000


async def test_no_name_leaves_that_nobody_asked_for_and_each_under_the_name_it_was_given(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """U-12: the names at RainFocus are a tenant's own."""
    body = (EXAMPLES / "aep_destination_sdk.json").read_bytes()
    await sent(sandbox, tmp_path, body, name="demo", rename={"firstname": "first"}, fields=["firstname", "city"])
    assert stored(sandbox)["lea.martin@example.com"] == {"first": "Léa", "city": "Lille"}


async def test_the_metric_counts_what_the_answer_does_not_list(sandbox: Sandbox, tmp_path: Path) -> None:
    config = {"ingress": {"port": 0}, "account": [{"base_url": sandbox.url}]}
    profiles = json.loads((EXAMPLES / "aep_http_api.json").read_bytes())[:1] * 10
    async with Service(Config.from_dict(config, base=tmp_path)) as service, httpx.AsyncClient() as client:
        answer = await client.post(f"{service.urls['ingress']}/v1/profiles", json=profiles)
        assert len(answer.json()["dropped"]) == 1
        page = (await client.get(f"{service.urls['ingress']}/metrics")).text
    assert 'engine_fields_dropped_total{reason="unknown_field"} 10.0' in page


# -- the template ------------------------------------------------------------------------------------------------------

INPUT = {
    "profiles": [
        {
            "identityMap": {
                "Email": [{"id": "lea.martin@example.com"}, {"id": "l.m@example.com"}],
                "ECID": [{"id": "7"}],
            },
            "segmentMembership": {
                "ups": {
                    SEGMENT: {"lastQualificationTime": "2026-10-02T08:15:30.000+0000", "status": "realized"},
                    OTHER: {"lastQualificationTime": "2026-09-30T17:02:11Z", "status": "exited"},
                }
            },
            "attributes": {"firstname": {"value": "Léa"}, "city": {"value": "Lille"}, "address2": {}},
        },
        {
            "identityMap": {"Email": [{"id": "tom.baker@example.com"}]},
            "segmentMembership": {
                "ups": {SEGMENT: {"lastQualificationTime": "2026-10-02T08:15:31Z", "status": "realized"}}
            },
            "attributes": {},
        },
    ]
}
DESTINATION = {"namespaceSegmentNames": {"ups": {SEGMENT: "Summit registrants", OTHER: "Workshop waiting list"}}}


async def test_what_the_template_in_the_documentation_writes_is_taken(sandbox: Sandbox, tmp_path: Path) -> None:
    body = render((EXAMPLES / "aep_template.peb").read_text(), input=INPUT, destination=DESTINATION)
    json.loads(body)
    await sent(sandbox, tmp_path, body.encode(), name="demo", audiences=["Summit registrants"])
    assert stored(sandbox) == {
        "lea.martin@example.com": {"firstname": "Léa", "city": "Lille"},
        "tom.baker@example.com": {},
    }


def test_the_destination_server_holds_that_template() -> None:
    server = json.loads((EXAMPLES / "aep_destination_server.json").read_text())
    assert server["httpTemplate"]["requestBody"]["value"] == (EXAMPLES / "aep_template.peb").read_text()
