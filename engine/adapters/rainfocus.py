"""RainFocus's attendee store over HTTP: one attempt a call, and an honest word on what came of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Protocol
from urllib.parse import urlencode

import msgspec
from yarl import URL

from engine.config import AccountConfig, DestinationConfig
from engine.core import retry_after, verdicts
from engine.core.handover import Policy, flag, flags
from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Clock, Permit
from engine.transport import Answer, Transport

PROFILES_PER_ARRAY = 10_000

_NO_TRACE, _NO_PARENT = "0" * 32, "0" * 16


class Mapper(Protocol):
    """Content to record; see `engine.profiles.mapping`."""

    @property
    def fingerprint(self) -> bytes:
        """Covers every setting that shapes a record."""

    def encode(self, content: bytes, traits: int, flag: bool | None) -> bytes: ...

    def encode_all(self, contents: Sequence[bytes], traits: Sequence[int]) -> list[bytes]:
        """`encode` of each content with its traits, without a flag."""


class RainFocusDestination:
    """See `ports.Destination`. `transport` is closed by who made it."""

    def __init__(
        self,
        config: DestinationConfig,
        account: AccountConfig,
        *,
        mapper: Mapper,
        policy: Policy,
        transport: Transport,
        clock: Clock,
        random: random.Random,
    ) -> None:
        self.name = config.name
        self._mapper, self._policy, self._clock, self._random = mapper, policy, clock, random
        self._array = config.encoding == "array"
        self._overrides: Mapping[str, VerdictKind] = config.response_codes
        self._wants_ids = config.require_attendee_id
        self._url = request_url(config, account)
        self._route = transport.route(
            str(self._url), _static_headers(account), timeout_seconds=config.retry.timeout_seconds
        )
        self._fingerprint = _fingerprint(
            mapper.fingerprint, str(self._url), config.event_code, config.event_in, config.encoding, account.org_id
        )

    def __repr__(self) -> str:
        return f"<RainFocusDestination {self.name} [{self._url.host}]>"

    @property
    def fingerprint(self) -> bytes:
        return self._fingerprint

    @property
    def profiles_per_request(self) -> int:
        return PROFILES_PER_ARRAY if self._array else 1

    def encode(self, profile: Profile, /) -> bytes:
        return self._mapper.encode(profile.content, profile.traits, flag(profile, self._policy))

    def encode_all(self, profiles: Sequence[Profile], /) -> list[bytes]:
        """See `ports.EncodesTogether`."""
        if flags(self._policy):
            return [self.encode(profile) for profile in profiles]
        return self._mapper.encode_all([one.content for one in profiles], [one.traits for one in profiles])

    async def open(self) -> None:
        """Nothing to open: connections are made when they are needed."""

    async def close(self) -> None:
        """Nothing to close: the session belongs to the account."""

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        records = batch.records
        body = b"[" + b",".join(records) + b"]" if self._array else records[0]
        headers = {"Authorization": f"Bearer {permit.token}", "traceparent": traceparent(self._random)}
        answer = await self._route.post(body, headers, permit)
        if answer.reason and (not answer.status or 200 <= answer.status < 300):
            return failed(answer, len(records), self._silence(answer))
        return self._judged(answer, len(records))

    def _silence(self, answer: Answer) -> float | None:
        value = answer.retry_after
        return None if value is None else retry_after.parse(value, self._clock.time())

    def _judged(self, answer: Answer, profiles: int) -> Reply:
        judged = verdicts.judge(answer.status, answer.body, profiles, self._overrides, array=self._array)
        hollow = self._wants_ids and any(map(verdicts.without_id, judged))
        if hollow:
            again = Verdict(VerdictKind.RETRY, "no_attendee_id")
            judged = [again if verdicts.without_id(one) else one for one in judged]
        return Reply(
            judged,
            status=answer.status,
            retry_after_seconds=self._silence(answer),
            throttled=hollow or verdicts.is_throttled(answer.status),
            destination_fault=hollow or verdicts.is_destination_fault(answer.status),
        )


def request_url(config: DestinationConfig, account: AccountConfig) -> URL:
    """Where requests go, with the event code in the query if it belongs there. What is encoded stays as it is."""
    url = config.resolved_url(account)
    if config.event_in != "body":
        url += ("&" if "?" in url else "?") + urlencode({config.event_param: config.event_code})
    return URL(url, encoded=True)


def traceparent(random: random.Random) -> str:
    """W3C Trace Context: RainFocus returns no id of its own, but takes ours. Neither id may be zero."""
    ids = random.randbytes(24).hex()
    trace, parent = ids[:32], ids[32:]
    return f"00-{trace}-{parent}-01" if trace != _NO_TRACE and parent != _NO_PARENT else traceparent(random)


def _static_headers(account: AccountConfig) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return headers | ({"apiProfile": account.api_profile_id} if account.api_profile_id else {})


def _fingerprint(mapping: bytes, *parts: str) -> bytes:
    return blake2b(msgspec.json.encode([mapping.hex(), *parts]), digest_size=32).digest()


def failed(answer: Answer, profiles: int, retry_after_seconds: float | None = None) -> Reply:
    """No reply, or a success of which the end is missing. After the first byte nobody knows what was carried out."""
    verdict = Verdict(VerdictKind.UNKNOWN if answer.sent else VerdictKind.RETRY, answer.reason)
    return Reply(
        [verdict] * profiles,
        status=answer.status,
        retry_after_seconds=retry_after_seconds,
        destination_fault=True,
    )


__all__ = ["Mapper", "RainFocusDestination", "failed", "request_url", "traceparent"]
