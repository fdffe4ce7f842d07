"""The way out without an engine: a token, and aiohttp with everything off that costs time and is not needed."""

from __future__ import annotations

import base64

import aiohttp

STORE_PATH = "/api/bench/v3/attendee/store"
CONCURRENCY = 32


async def token(url: str) -> str:
    """Of the sink or the sandbox, with the fixed credentials of the latter."""
    credentials = base64.b64encode(b"sandbox:sandbox").decode()
    headers = {"Authorization": f"Basic {credentials}"}
    form = {"grant_type": "client_credentials"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/oidc/token", data=form, headers=headers) as response,
    ):
        return str((await response.json())["access_token"])


def tuned_session(authorization: str, connections: int = CONCURRENCY) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Authorization": authorization, "Content-Type": "application/json"},
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        auto_decompress=False,
    )
