"""The token endpoint."""

from __future__ import annotations

import pytest

GRANT = {"grant_type": "client_credentials"}


async def test_a_token_is_given_for_credentials_in_the_header_or_in_the_body(start, basic) -> None:
    client = await start(token_seconds=90)
    in_body = {**GRANT, "client_id": "sandbox", "client_secret": "sandbox"}
    for request in ({"data": in_body}, {"data": GRANT, "headers": basic("sandbox", "sandbox")}):
        async with client.session.post("/oidc/token", **request) as reply:
            body = await reply.json()
        assert (reply.status, body["token_type"], body["expires_in"]) == (200, "Bearer", 90)
        assert reply.headers["Cache-Control"] == "no-store"
        assert client.sandbox.tokens.valid(body["access_token"], client.clock.monotonic())


async def test_credentials_in_the_header_may_be_form_encoded(start, basic) -> None:
    client = await start()
    client.sandbox.settings.client_secret = "a:b c%"
    headers = basic("sandbox", "a%3Ab+c%25")
    async with client.session.post("/oidc/token", data=GRANT, headers=headers) as reply:
        assert reply.status == 200


@pytest.mark.parametrize(
    ("form", "header", "status", "error"),
    [
        ({**GRANT, "client_id": "sandbox", "client_secret": "wrong"}, "", 401, "invalid_client"),
        ({**GRANT, "client_id": "sandbox"}, "", 401, "invalid_client"),
        (GRANT, "", 401, "invalid_client"),
        (GRANT, "Basic ?", 401, "invalid_client"),
        (GRANT, "Basic c2FuZGJveA==", 401, "invalid_client"),
        ({"client_id": "sandbox", "client_secret": "sandbox"}, "", 400, "invalid_request"),
        (
            {"grant_type": "password", "client_id": "sandbox", "client_secret": "sandbox"},
            "",
            400,
            "unsupported_grant_type",
        ),
        (b"\xff", "", 400, "invalid_request"),
    ],
)
async def test_a_bad_token_request_says_what_oauth_says(start, form, header, status, error) -> None:
    client = await start()
    headers = {"Authorization": header} if header else {}
    async with client.session.post("/oidc/token", data=form, headers=headers) as reply:
        assert (reply.status, await reply.json()) == (status, {"error": error})


async def test_the_same_seed_gives_the_same_tokens_one_after_the_other(start) -> None:
    first, second = await start(), await start()
    assert first.token == second.token
    assert await first.fetch_token() != second.token
    assert first.sandbox.tokens.issued == 2


async def test_without_a_seed_tokens_do_not_outlive_a_restart(start) -> None:
    first, second = await start(seed=None), await start(seed=None)
    assert first.token != second.token


async def test_revoked_tokens_are_refused_until_a_new_one_is_fetched(start, attendee) -> None:
    client = await start()
    async with client.session.post("/_sandbox/revoke-tokens") as reply:
        assert await reply.json() == {"revoked": 1}
    assert (await client.store(attendee()))[0] == 401
    await client.fetch_token()
    assert (await client.store(attendee()))[0] == 200
