"""Secrets: what a wrong one does, and that neither they nor people's addresses show where they should not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from harness import Place, Sandbox, place_at, sandbox_at, until

pytestmark = pytest.mark.process

RIGHT, WRONG = "r1ght-s3cret", "wr0ng-s3cret"
LEA, TOM = "lea@people.example", "tom@people.example"
PAGES = (
    "/metrics",
    "/v1/status",
    "/v1/destinations",
    "/v1/runs",
    "/v1/runs?audience=*&format=flow",
    "/v1/outcomes?format=csv",
    "/v1/audit",
    "/v1/dead-letters",
    "/openapi.json",
    "/",
)
BODIES = (
    (f'{{"email": "{LEA}", "city"', "application/json", ""),
    (f'{{"email": "{LEA}", "email": "{TOM}"}}', "application/json", ""),
    (f'["{LEA}"]', "application/json", ""),
    (f'{{"email": "{LEA}@people.example"}}', "application/json", ""),
    (f'{{"email": "{LEA}"}}', "text/plain", ""),
    (f"email={LEA}", "application/x-www-form-urlencoded", ""),
    (f"email;city\n{LEA};Lille\n", "text/csv", ""),
    (f'{{"email": "{LEA}"}}', f"application/json; charset={LEA}", ""),
    (f'{{"email": "{LEA}"}}', "application/json", f"?source={LEA}"),
    (f'{{"email": "{LEA}"}}', "application/json", f"?lane={LEA}"),
)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with sandbox_at(tmp_path, "--client-secret", RIGHT) as running:
        yield running


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        made.tables["account"][0]["client_secret_file"] = "secret"
        made.write()
        (made.folder / "secret").write_text(RIGHT)
        yield made
        made.check_discreet(RIGHT, WRONG)


async def test_a_wrong_secret_dead_letters_nothing_and_a_corrected_file_is_enough(
    place: Place, sandbox: Sandbox
) -> None:
    (place.folder / "secret").write_text(WRONG)
    await place.serve()
    await place.posted(*({"email": f"p{number}@people.example", "city": "Lille"} for number in range(50)))

    async def open_for_a_reason() -> bool:
        shown = await place.destination()
        return (shown["state"], shown["reason"]) == ("open", "token: token_http_401")

    await until(open_for_a_reason, "nobody is told of the secret")
    counts = (await place.destination())["counts"]
    assert (counts["pending"], counts["dead_lettered"]) == (50, 0)
    assert "token_http_401" in await place.get("/metrics")
    assert await sandbox.attendees() == {}
    (place.folder / "secret").write_text(RIGHT)
    await place.settled()
    sums = (await place.balanced())["demo"]
    assert (sums["delivered"], sums["dead_lettered"]) == (50, 0)
    assert len(await sandbox.attendees()) == 50


async def test_no_address_secret_or_token_is_logged_answered_or_counted(place: Place, sandbox: Sandbox) -> None:
    await place.serve()
    await place.posted({"email": LEA, "city": "Lille", "countryid": "??"}, {"email": TOM, "city": "Tours"})
    await place.settled()
    await sandbox.faults({"kind": "error_code", "code": "27"})
    await place.posted({"email": LEA, "city": "Lyon"})
    await place.settled()
    await sandbox.faults({"kind": "reset_after", "probability": 0.5}, {"kind": "html_500", "probability": 0.5})
    await place.posted(*({"email": f"p{number}@people.example", "city": "Lille"} for number in range(30)))
    refused = [await _post(place, *body) for body in BODIES]
    assert all(400 <= status < 500 for status in refused), refused
    for path in (f"/v1/profiles/{LEA}", f"/v1/receipts/{LEA}", f"/v1/destinations/{LEA}", f"/{LEA}", f"/?x={LEA}"):
        await place.ask("GET", path)
    status, *_ = await place.ask("POST", "/v1/profiles/lookup", {"email": f"{LEA}@"})
    assert status == 400
    await place.kill()
    await sandbox.faults()
    await place.serve()
    await place.settled()
    await place.balanced()
    for path in PAGES:
        place.answers.append(str(await place.get(path)))
    assert len(place.log.read_text()) > 100


async def _post(place: Place, body: str, content_type: str, query: str) -> int:
    headers = {"Content-Type": content_type}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{place.url}/v1/profiles{query}", data=body.encode()) as response,
    ):
        place.answers.append(await response.text())
        return response.status
