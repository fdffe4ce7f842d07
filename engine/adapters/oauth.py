"""The one shared token of an account: OAuth 2.0 client credentials (RFC 6749 §4.4)."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import random
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus

import aiohttp
import anyio
import msgspec
from aiohttp import ClientResponse, ClientSession
from yarl import URL

from engine.core import retry_after
from engine.core.backoff import Backoff
from engine.errors import ConfigError
from engine.metrics import AccountMetrics
from engine.ports import Clock

ASSUMED_LIFE_SECONDS = 3600.0  # domain reference U-3: what a token lives when `expires_in` is missing or odd
SHORTEST_LIFE_SECONDS, LONGEST_LIFE_SECONDS = 1.0, 7 * 86_400.0
TIMEOUT_SECONDS = 10.0

_TOKEN = re.compile(r"[\x21-\x7e]+")  # it travels in a header


logger = logging.getLogger("engine.oauth")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Where the client id and the secret come from: read anew for every request, so that a rotated secret counts.
    Both may raise ConfigError."""

    client_id: Callable[[], str]
    client_secret: Callable[[], str]
    placement: str = "basic"  # or "post": in the body

    def __repr__(self) -> str:
        return f"<Credentials [{self.placement}]>"

    def request(self) -> tuple[dict[str, str], dict[str, str]]:
        """Headers and form fields. "basic" encodes both parts as RFC 6749 §2.3.1 wants it; ids and secrets of letters,
        digits, '-', '_' and '.' look the same either way."""
        id, secret = self.client_id(), self.client_secret()
        form = {"grant_type": "client_credentials"}
        if self.placement == "post":
            return {}, form | {"client_id": id, "client_secret": secret}
        pair = base64.b64encode(f"{quote_plus(id)}:{quote_plus(secret)}".encode()).decode("ascii")
        return {"Authorization": f"Basic {pair}"}, form


class OAuthTokenSource:
    """See `ports.TokenSource`. Only `run` makes requests, so never two at once.

    `paused`: how many seconds of the account's Retry-After pause are left. `session` is closed by who made it.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        session: ClientSession,
        clock: Clock,
        random: random.Random,
        metrics: AccountMetrics,
        paused: Callable[[], float] = lambda: 0.0,
        backoff: Backoff | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._url, self._credentials, self._session = URL(url), credentials, session
        self._clock, self._random, self._metrics, self._paused = clock, random, metrics, paused
        self._backoff = backoff or Backoff(1.0, 60.0)
        self._timeout_seconds = timeout_seconds
        self._token, self._expires_at, self._refresh_at = "", -math.inf, -math.inf  # monotonic
        self._used = False  # since it was fetched
        self._failures = 0
        self._not_before = -math.inf
        self._trouble = ""
        self._waiting = 0
        self._wake, self._ready = asyncio.Event(), asyncio.Event()

    def __repr__(self) -> str:
        return f"<OAuthTokenSource [{self._url.host} | {self.trouble or 'well'}]>"

    @property
    def trouble(self) -> str:
        return "" if self._is_valid() else self._trouble

    def current(self) -> str:
        if not self._is_valid():
            return ""
        if not self._used:
            self._used = True
            self._wake.set()
        return self._token

    async def valid(self) -> str:
        while not (token := self.current()):
            self._ready.clear()
            self._waiting += 1
            self._wake.set()
            try:
                await self._ready.wait()
            finally:
                self._waiting -= 1
        return token

    def discard(self, token: str, /) -> None:
        if token and token == self._token:
            self._token, self._expires_at = "", -math.inf
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._until_needed()
            await self.refresh()

    async def close(self) -> None:
        """Forget the token; whoever waits goes on waiting."""
        self._token, self._expires_at = "", -math.inf

    async def refresh(self) -> str:
        """Make one token request now; returns "" or what went wrong. For `run`, and where nothing runs."""
        started = self._clock.monotonic()
        trouble = await self._fetch(started)
        self._metrics.token_refresh(trouble or "ok")
        if trouble != self._trouble:
            logger.warning("token of %s: %s", self._url.host, trouble or "here again")
        self._trouble = trouble
        if trouble:
            self._failures += 1
            wait = self._backoff.seconds(self._failures, self._random)
            self._not_before = max(self._not_before, self._clock.monotonic() + wait)
        else:
            self._failures, self._not_before = 0, -math.inf
            self._ready.set()
        return trouble

    # -- when -----------------------------------------------------------------------------------------------------

    def _is_valid(self) -> bool:
        return bool(self._token) and self._clock.monotonic() < self._expires_at

    async def _until_needed(self) -> None:
        while True:
            self._wake.clear()
            wait = self._wait_seconds(self._clock.monotonic())
            if wait is not None and wait <= 0.0:
                return
            with anyio.move_on_after(wait):
                await self._wake.wait()

    def _wait_seconds(self, now: float) -> float | None:
        """How long until a request should start; None: not before somebody asks for a token."""
        needed = self._used if self._is_valid() else self._waiting > 0
        if not needed:
            return None
        due_in = self._refresh_at - now if self._is_valid() else 0.0
        return max(due_in, self._not_before - now, self._paused())

    # -- one request ----------------------------------------------------------------------------------------------

    async def _fetch(self, started: float) -> str:
        try:
            headers, form = self._credentials.request()
        except ConfigError:
            return "credentials_unreadable"
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.post(self._url, data=form, headers=headers, allow_redirects=False) as response,
            ):
                return self._concluded(response, await response.read(), started)
        except (aiohttp.ClientError, OSError) as failure:
            return _reason(failure)

    def _concluded(self, response: ClientResponse, body: bytes, started: float) -> str:
        self._silence(response)
        if not 200 <= response.status < 300:
            return f"token_http_{response.status}"
        reply = _decoded(body)
        token = reply.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return "token_unreadable"
        life = life_seconds(reply.get("expires_in"))
        self._token, self._expires_at, self._used = token, started + life, False
        self._refresh_at = started + life - margin_seconds(life)
        return ""

    def _silence(self, response: ClientResponse) -> None:
        seconds = retry_after.parse(response.headers.get("Retry-After", ""), self._clock.time())
        if seconds is not None:
            self._not_before = self._clock.monotonic() + seconds


def life_seconds(expires_in: object) -> float:
    """How long the token lives, whatever was said about it. Numbers as text are taken; 0, negative and endless ones say
    nothing."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return ASSUMED_LIFE_SECONDS
    try:
        life = float(expires_in)
    except (ValueError, OverflowError):
        return ASSUMED_LIFE_SECONDS
    if not math.isfinite(life) or life <= 0:
        return ASSUMED_LIFE_SECONDS
    return min(max(life, SHORTEST_LIFE_SECONDS), LONGEST_LIFE_SECONDS)


def margin_seconds(life: float) -> float:
    """How long before its end a token in use is replaced: a tenth, at least 30 s, at most half its life."""
    return min(max(0.1 * life, 30.0), 0.5 * life)


def _decoded(body: bytes) -> Mapping[str, object]:
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return reply if isinstance(reply, dict) else {}


def _reason(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "token_timeout"
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return "token_dns"
    if isinstance(failure, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch):
        return "token_tls"
    return "token_connection"


__all__ = ["Credentials", "OAuthTokenSource", "life_seconds", "margin_seconds"]
