"""Alerts as webhooks, signed as Standard Webhooks 1.0 has it (https://www.standardwebhooks.com)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp
import msgspec
from aiohttp import ClientResponse, ClientSession
from standardwebhooks.webhooks import Webhook
from yarl import URL

from engine.core import retry_after
from engine.errors import ConfigError
from engine.model import Notice
from engine.ports import Clock, Told

GONE = 410
"""The one status by which a receiver says that it wants no more (Standard Webhooks, "Operational considerations")."""


class WebhookNotifier:
    """See `ports.Notifier`. `url` and `secret` are asked anew every time, so that a rotated one counts; they may raise
    ConfigError. `sender`: what tells engines apart. `session` is closed by who made it."""

    def __init__(
        self,
        url: Callable[[], str],
        secret: Callable[[], str],
        *,
        session: ClientSession,
        clock: Clock,
        sender: dict[str, str],
        timeout_seconds: float,
    ) -> None:
        self._url, self._secret, self._session, self._clock = url, secret, session, clock
        self._sender, self._timeout_seconds = sender, timeout_seconds

    def __repr__(self) -> str:
        return f"<WebhookNotifier [{self.where}]>"

    @property
    def where(self) -> str:
        try:
            return URL(self._url()).host or "?"
        except (ConfigError, ValueError):
            return "?"

    async def tell(self, notice: Notice, /) -> Told:
        body = body_of(notice, self._sender)
        try:
            url, headers = self._url(), signed(self._secret(), notice.id, body, self._clock.time())
        except ConfigError:
            return Told("secret_unreadable")
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return self._answered(response)
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            return Told(_trouble(failure))

    def _answered(self, response: ClientResponse) -> Told:
        """Nothing of the answer is read but its head: a receiver has nothing to say that we would act on."""
        if 200 <= response.status < 300:
            return Told("ok")
        after = retry_after.parse(response.headers.get("Retry-After", ""), self._clock.time())
        return Told(f"http_{response.status}", after, gone=response.status == GONE)


def body_of(notice: Notice, sender: dict[str, str]) -> bytes:
    """The payload: type, timestamp, data."""
    data: dict[str, object] = {
        name: getattr(notice, name)
        for name in ("alert", "when", "destination", "since", "figure", "threshold", "unit", "summary", "advice")
    }
    data |= {"state": notice.event, "page": notice.page, "engine": sender}
    moment = datetime.fromtimestamp(notice.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": f"alert.{notice.event}", "timestamp": moment, "data": data})


def signed(secret: str, id: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of one attempt, made at `now` (epoch seconds): a repetition has the same id and its own time."""
    moment = datetime.fromtimestamp(int(now), UTC)
    return {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": Webhook(secret).sign(id, moment, body.decode()),
    }


def _trouble(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "timeout"
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(failure, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch):
        return "tls"
    return "url_unusable" if isinstance(failure, ValueError) else "connection"


__all__ = ["WebhookNotifier", "body_of", "signed"]
