"""RainFocus's attendee store over HTTP: one attempt a call, and an honest word on what came of it."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol
from urllib.parse import urlencode

import aiohttp
import msgspec
from aiohttp import ClientRequest, ClientResponse, ClientSession
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.connector import Connection
from yarl import URL

from engine.config import AccountConfig, DestinationConfig
from engine.core import retry_after, verdicts
from engine.core.handover import Policy, flag
from engine.errors import PermitVoid
from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Clock, Permit

PROFILES_PER_ARRAY = 10_000
LARGE_BYTES = 1 << 20  # a body beyond this is written in parts


class Mapper(Protocol):
    """Content to record; see `engine.profiles.mapping`."""

    @property
    def fingerprint(self) -> bytes:
        """Covers every setting that shapes a record."""

    def encode(self, content: bytes, traits: int, flag: bool | None) -> bytes: ...


class Attempt:
    """One request's right to be sent, and how far it came."""

    __slots__ = ("_deadline", "_permit", "_timeout_seconds", "sent")

    def __init__(self, permit: Permit, deadline: asyncio.Timeout, timeout_seconds: float) -> None:
        self._permit, self._deadline, self._timeout_seconds = permit, deadline, timeout_seconds
        self.sent = False  # True from the moment on at which a byte may have left

    async def begin(self, connection: Connection) -> None:
        """The connection is open: use the permit, start the clock. Raises PermitVoid, and ClientConnectionError when
        the other side hung up while the permit was waited for: both before the first byte."""
        try:
            await self._permit.use()
        except PermitVoid:
            connection.release()
            raise
        if connection.closed:
            raise aiohttp.ClientConnectionError("closed while waiting for the permit")
        self.sent = True
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_seconds)

    async def attach(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """As a middleware: give this attempt to the request that aiohttp made for it."""
        if isinstance(request, MeteredRequest):
            request.attempt = self
        return await handler(request)


class MeteredRequest(ClientRequest):
    """A request that uses its permit between the open connection and its first byte."""

    attempt: Attempt | None = None

    async def send(self, conn: Connection) -> ClientResponse:
        if self.attempt is not None:
            await self.attempt.begin(conn)
        return await super().send(conn)


class _Answer(msgspec.Struct):
    """What was received so far. `whole`: the body too."""

    status: int
    retry_after_seconds: float | None
    body: bytes = b""
    whole: bool = False


class RainFocusDestination:
    """See `ports.Destination`. `session` is made with `request_class=MeteredRequest` and closed by who made it."""

    def __init__(
        self,
        config: DestinationConfig,
        account: AccountConfig,
        *,
        mapper: Mapper,
        policy: Policy,
        session: ClientSession,
        clock: Clock,
        random: random.Random,
    ) -> None:
        self.name = config.name
        self._mapper, self._policy, self._session, self._clock, self._random = mapper, policy, session, clock, random
        self._array = config.encoding == "array"
        self._overrides: Mapping[str, VerdictKind] = config.response_codes
        self._wants_ids = config.require_attendee_id
        self._timeout_seconds = config.retry.timeout_seconds
        self._url = request_url(config, account)
        self._headers = _static_headers(account)
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

    async def open(self) -> None:
        """Nothing to open: connections are made when they are needed."""

    async def close(self) -> None:
        """Nothing to close: the session belongs to the account."""

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        answer: _Answer | None = None
        attempt: Attempt | None = None
        failure: Exception | None = None
        try:
            async with asyncio.timeout(None) as deadline:
                attempt = Attempt(permit, deadline, self._timeout_seconds)
                response = await self._post(batch.records, permit.token, attempt)
                try:
                    answer = _Answer(response.status, self._silence(response))
                    answer.body = await response.read()
                    answer.whole = True
                    await response.wait_for_close()
                except BaseException:
                    response.close()
                    raise
        except (aiohttp.ClientError, OSError) as error:
            failure = error
        profiles = len(batch.profiles)
        if answer is not None and (answer.whole or not 200 <= answer.status < 300):
            return self._judged(answer, profiles)
        assert failure is not None
        return failed(failure, sent=attempt is not None and attempt.sent, profiles=profiles, answer=answer)

    async def _post(self, records: list[bytes], token: str, attempt: Attempt) -> ClientResponse:
        body = b"[" + b",".join(records) + b"]" if self._array else records[0]
        return await self._session.post(
            self._url,
            data=io.BytesIO(body) if len(body) > LARGE_BYTES else body,
            headers=self._headers | {"Authorization": f"Bearer {token}", "traceparent": traceparent(self._random)},
            allow_redirects=False,
            middlewares=(attempt.attach,),
        )

    def _silence(self, response: ClientResponse) -> float | None:
        value = response.headers.get("Retry-After")
        return None if value is None else retry_after.parse(value, self._clock.time())

    def _judged(self, answer: _Answer, profiles: int) -> Reply:
        judged = verdicts.judge(answer.status, answer.body, profiles, self._overrides, array=self._array)
        hollow = self._wants_ids and any(map(verdicts.without_id, judged))
        if hollow:
            again = Verdict(VerdictKind.RETRY, "no_attendee_id")
            judged = [again if verdicts.without_id(one) else one for one in judged]
        return Reply(
            judged,
            status=answer.status,
            retry_after_seconds=answer.retry_after_seconds,
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
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-01"


def _static_headers(account: AccountConfig) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return headers | ({"apiProfile": account.api_profile_id} if account.api_profile_id else {})


def _fingerprint(mapping: bytes, *parts: str) -> bytes:
    return blake2b(msgspec.json.encode([mapping.hex(), *parts]), digest_size=32).digest()


def failed(failure: Exception, *, sent: bool, profiles: int, answer: _Answer | None = None) -> Reply:
    """No reply, or a success of which the end is missing. After the first byte nobody knows what was carried out."""
    if sent:
        verdict = Verdict(VerdictKind.UNKNOWN, _lost_reason(failure))
    else:
        verdict = Verdict(VerdictKind.RETRY, connect_reason(failure))
    return Reply(
        [verdict] * profiles,
        status=answer.status if answer else 0,
        retry_after_seconds=answer.retry_after_seconds if answer else None,
        destination_fault=True,
    )


def _lost_reason(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "timeout"
    return "bad_http" if isinstance(failure, aiohttp.ClientResponseError) else "connection_lost"


def connect_reason(failure: Exception) -> str:
    """Why no request could be sent, as a short stable reason."""
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return "connect_dns"
    if isinstance(failure, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch):
        return "connect_tls"
    if isinstance(failure, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return "connect_proxy"
    if isinstance(failure, TimeoutError):
        return "connect_timeout"
    refused = isinstance(getattr(failure, "os_error", failure), ConnectionRefusedError)
    return "connect_refused" if refused else "connect_failed"


__all__ = [
    *("Attempt", "Mapper", "MeteredRequest", "RainFocusDestination"),
    *("connect_reason", "failed", "request_url", "traceparent"),
]
