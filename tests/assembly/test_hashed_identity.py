"""Addresses and their hashes, from the request to what RainFocus holds, over real HTTP."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from engine import Config
from engine.assembly.service import Service
from engine.profiles.identity import key_of, normalise_email
from engine.sandbox import running_sandbox

VECTOR = "a6ea4cde5da5ae7cc68baae894d1d6544fca26254433b0fff7c2cb4843b4a097"
"""Of ecid@adobe.com, as Adobe publishes it."""


def test_the_hash_is_the_one_that_adobe_publishes() -> None:
    assert hashlib.sha256(b"ecid@adobe.com").hexdigest() == VECTOR
    for spelling in ("ecid@adobe.com", "  ECID@adobe.com ", "Ecid@Adobe.Com\t"):
        normalised = normalise_email(spelling)
        assert normalised is not None
        assert key_of(normalised).hex() == VECTOR


async def stored(tmp_path: Path, records: list[dict[str, Any]], **destination: Any) -> tuple[list[Any], dict[str, Any]]:
    """(what the sandbox holds, the destination's counts) after these records, each a request of its own."""
    async with running_sandbox() as sandbox:
        config = Config.from_dict(
            {
                "ingress": {"port": 0},
                "account": [{"base_url": sandbox.url, "rate": {"requests_per_second": 200.0, "burst": 2}}],
                "destination": [{"batch": {"linger_ms": 300}} | destination],
            },
            base=tmp_path,
        )
        async with Service(config) as service, ClientSession(service.urls["ingress"]) as producer:
            for number, record in enumerate(records):
                wait = {"Prefer": "wait=20"} if number == len(records) - 1 else {}
                async with producer.post("/v1/profiles", json=record, headers=wait) as answer:
                    assert answer.status == 202, await answer.text()
            found = service.engine.control.destinations()[0]
        async with ClientSession(sandbox.url) as people, people.get("/_sandbox/attendees") as answer:
            held = (await answer.json())["attendees"]
            return [{"email": it["email"], **it["fields"], **it["extra"]} for it in held], found


@pytest.mark.parametrize(
    ("rename", "name"), [({}, "email_lc_sha256"), ({"email_lc_sha256": "hashedEmail"}, "hashedEmail")]
)
async def test_apply_transformation_sends_the_exact_hash_beside_the_address(
    tmp_path: Path, rename: dict[str, str], name: str
) -> None:
    people, _ = await stored(
        tmp_path, [{"email": " ECID@Adobe.com "}], apply_transformation=True, rename=rename, exits="ignore"
    )
    assert people == [{"email": "ecid@adobe.com", name: VECTOR}], "an attendee cannot be made of a hash alone"


async def test_without_it_no_hash_leaves(tmp_path: Path) -> None:
    people, _ = await stored(tmp_path, [{"email": "ecid@adobe.com", "email_lc_sha256": VECTOR}])
    assert people == [{"email": "ecid@adobe.com"}]


async def test_a_hash_alone_is_excluded_and_nothing_leaves(tmp_path: Path) -> None:
    people, found = await stored(tmp_path, [{"email_lc_sha256": VECTOR.upper(), "city": "Lehi"}])
    assert people == []
    assert found["excluded"] == {"no_email": 1}


async def test_a_hash_leaves_with_the_address_that_waits_for_it(tmp_path: Path) -> None:
    """Two namespaces, one person: what came under the hash is merged with what came under the address."""
    records = [{"email": "Ecid@adobe.com", "city": "Lehi"}, {"email_lc_sha256": VECTOR, "jobtitle": "Baker"}]
    people, found = await stored(tmp_path, records)
    assert people == [{"email": "ecid@adobe.com", "city": "Lehi", "jobtitle": "Baker"}]
    assert (found["counts"]["delivered"], found["counts"]["superseded"]) == (1, 1)
    assert found["excluded"] == {}


async def test_an_opt_out_reaches_the_store_as_address_and_flag(tmp_path: Path) -> None:
    records = [{"email": "ecid@adobe.com", "city": "Lehi", "consents": {"marketing": {"any": {"val": "n"}}}}]
    asks = [{"required": "marketing.email"}]
    people, found = await stored(tmp_path, records, consent=asks, exits="flag:optedin", apply_transformation=True)
    assert people == [{"email": "ecid@adobe.com", "email_lc_sha256": VECTOR, "optedin": False}]
    assert found["counts"]["delivered"] == 1
