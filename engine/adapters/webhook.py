"""A webhook as a destination: what RainFocus reports as changed, posted and signed (Standard Webhooks).

One request carries everything that waits for one attendee (or session, …), oldest first::

    {"type": "rainfocus.change", "timestamp": "…",
     "data": {"key": "<64 hex>", "events": [{"id": "…", "record": {…}}, …]}}

Each event has an id that never changes, by which a receiver knows what it has seen: delivery is at least once, and a
request that is made again may carry more events than the one before. `webhook-id` covers the body: the same id, the
same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from engine.core import retry_after, verdicts
from engine.core.signature import signed_headers
from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Clock, Permit
from engine.transport import Answer, Transport

TYPE = "rainfocus.change"


class Failed(Protocol):
    """What is known of an attempt without a reply; see `adapters.rainfocus.failed`."""

    def __call__(self, answer: Answer, profiles: int, /) -> Reply: ...


class _Record(msgspec.Struct):
    timestamp: object = None


class _Event(msgspec.Struct):
    record: _Record


_events = msgspec.json.Decoder(list[_Event]).decode


class WebhookDestination:
    """See `ports.Destination`. `keys`: the secrets to sign with, all of them. `transport` is closed by who made it."""

    profiles_per_request = 1

    def __init__(
        self,
        name: str,
        url: str,
        keys: Sequence[bytes],
        *,
        timeout_seconds: float,
        transport: Transport,
        clock: Clock,
        failed: Failed,
    ) -> None:
        self.name, self._keys, self._clock, self._failed = name, list(keys), clock, failed
        headers = {"Content-Type": "application/json"}
        self._route = transport.route(url, headers, timeout_seconds=timeout_seconds)
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
        body = batch.records[0]
        id = f"msg_{blake2b(body, digest_size=16).hexdigest()}"
        headers = signed_headers(self._keys, id, int(self._clock.time()), body)
        answer = await self._route.post(body, headers, permit)
        if not answer.status:
            return self._failed(answer, 1)
        status, silence = answer.status, answer.retry_after
        return Reply(
            [verdict_of(status, answer.body)],
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
