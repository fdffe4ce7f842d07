"""A webhook as a destination: what RainFocus reports as changed, posted and signed (Standard Webhooks).

One request carries everything that waits for one attendee (or session, …), oldest first::

    {"type": "rainfocus.change", "timestamp": "…",
     "data": {"key": "<64 hex>", "events": [{"id": "…", "record": {…}}, …]}}

Each event has an id that never changes, by which a receiver knows what it has seen: delivery is at least once, and a
request that is made again may carry more events than the one before. `webhook-id` covers the body: the same id, the
same events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import aiohttp
import msgspec
from aiohttp import ClientSession

from engine.core import retry_after, verdicts
from engine.core.signature import signed_headers
from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Clock, Permit

TYPE = "rainfocus.change"


class Attempt(Protocol):
    """One request's right to be sent; see `adapters.rainfocus.Attempt`."""

    sent: bool

    async def attach(self, request: Any, handler: Any, /) -> Any: ...


AttemptOf = Callable[[Permit, asyncio.Timeout, float], Attempt]


class Failed(Protocol):
    """What is known of an attempt without a reply; see `adapters.rainfocus.failed`."""

    def __call__(self, failure: Exception, *, sent: bool, profiles: int) -> Reply: ...


class _Record(msgspec.Struct):
    timestamp: object = None


class _Event(msgspec.Struct):
    record: _Record


_events = msgspec.json.Decoder(list[_Event]).decode


class WebhookDestination:
    """See `ports.Destination`. `keys`: the secrets to sign with, all of them. `session` is closed by who made it, and
    makes requests that use their permit (`attempt_of`, `failed`)."""

    profiles_per_request = 1

    def __init__(
        self,
        name: str,
        url: str,
        keys: Sequence[bytes],
        *,
        timeout_seconds: float,
        session: ClientSession,
        clock: Clock,
        attempt_of: AttemptOf,
        failed: Failed,
    ) -> None:
        self.name, self._url, self._keys = name, url, list(keys)
        self._timeout_seconds, self._session, self._clock = timeout_seconds, session, clock
        self._attempt_of, self._failed = attempt_of, failed
        self.fingerprint = blake2b(url.encode(), digest_size=32).digest()

    def __repr__(self) -> str:
        return f"<WebhookDestination {self.name}>"

    def encode(self, profile: Profile, /) -> bytes:
        events = profile.content
        data = b'{"key":"%s","events":%s}' % (profile.key.hex().encode(), events)
        return b'{"type":"%s",%s"data":%s}' % (TYPE.encode(), _timestamp(events), data)

    async def open(self) -> None:
        """Nothing to open: connections are made when they are needed."""

    async def close(self) -> None:
        """Nothing to close: the session belongs to who made it."""

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        attempt: Attempt | None = None
        try:
            async with asyncio.timeout(None) as deadline:
                attempt = self._attempt_of(permit, deadline, self._timeout_seconds)
                return await self._post(batch.records[0], attempt)
        except (aiohttp.ClientError, OSError) as error:
            return self._failed(error, sent=attempt is not None and attempt.sent, profiles=1)

    async def _post(self, body: bytes, attempt: Attempt) -> Reply:
        id = f"msg_{blake2b(body, digest_size=16).hexdigest()}"
        headers = {"Content-Type": "application/json"} | signed_headers(self._keys, id, int(self._clock.time()), body)
        async with self._session.post(
            self._url, data=body, headers=headers, allow_redirects=False, middlewares=(attempt.attach,)
        ) as response:
            status, silence = response.status, response.headers.get("Retry-After")
            said = b"" if 200 <= status < 300 else await response.read()
        return Reply(
            [verdict_of(status, said)],
            status=status,
            retry_after_seconds=None if silence is None else retry_after.parse(silence, self._clock.time()),
            throttled=verdicts.is_throttled(status),
            destination_fault=verdicts.is_destination_fault(status),
        )


def verdict_of(status: int, said: bytes) -> Verdict:
    """Any 2xx is a success, whatever it says. There is no token that could be wrong for a while only: 401 waits for a
    person like 403, 404 and 410 (the receiver is gone). A body that is too large is not sent again."""
    if 200 <= status < 300:
        return Verdict(VerdictKind.OK)
    kind = VerdictKind.RETRY if status >= 500 else verdicts.STATUS.get(status, VerdictKind.REJECT)
    if kind == VerdictKind.AUTH or status < 400:
        kind = VerdictKind.CONFIG
    return Verdict(VerdictKind.REJECT if kind == VerdictKind.SPLIT else kind, f"http_{status}", verdicts.excerpt(said))


def _timestamp(events: bytes) -> bytes:
    """When the newest of them happened, if RainFocus said so in a text."""
    try:
        newest = _events(events)[-1].record.timestamp
    except (msgspec.MsgspecError, IndexError):
        newest = None
    return b'"timestamp":%s,' % msgspec.json.encode(newest) if isinstance(newest, str) else b""


__all__ = ["WebhookDestination", "verdict_of"]
