"""The HTTP sessions of one account on aiohttp: pooled connections, time limits, proxy, and a cap on what a reply may
weigh; and the transport port on such a session."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import ClientRequest, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.connector import Connection
from aiohttp.hdrs import CONTENT_ENCODING, RETRY_AFTER
from yarl import URL

from engine.config import is_loopback
from engine.errors import PermitVoid
from engine.ports import Permit
from engine.transport import (
    CONNECT_SECONDS,
    DNS_SECONDS,
    HEADERS,
    KEEPALIVE_SECONDS,
    REPLY_BYTES,
    Answer,
    unpacked,
)

LARGE_BYTES = 1 << 20
"""A body beyond this is written in parts."""


class CappedResponse(ClientResponse):
    """A response of which at most `REPLY_BYTES` are read; what is longer is cut and its connection closed. What comes
    packed all the same is unpacked here, to at most as much: aiohttp before 3.14 unpacks a bomb whole."""

    async def read(self) -> bytes:
        if self._body is None:
            try:
                self._body = unpacked(await self._capped(), self.headers.get(CONTENT_ENCODING, ""))
            except BaseException:
                self.close()
                raise
        return self._body

    async def _capped(self) -> bytes:
        parts, size = [], 0
        async for part in self.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > REPLY_BYTES:
                self.close()
                break
        return b"".join(parts)[:REPLY_BYTES]


def open_session(url: str, *, connections: int, request_class: type[ClientRequest] = ClientRequest) -> ClientSession:
    """A session for requests to the host of `url`, to be called inside the running loop and closed by the caller.

    It keeps no cookies and has no total time limit: the caller knows when its clock starts. The proxy comes from the
    environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) and is looked up here, once: aiohttp's own `trust_env` asks a thread
    twice for every request, and would put a ~/.netrc password beside our Authorization header. Loopback addresses
    never go through a proxy.
    """
    return ClientSession(
        connector=TCPConnector(limit=connections, ttl_dns_cache=DNS_SECONDS, keepalive_timeout=KEEPALIVE_SECONDS),
        timeout=ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=None),
        headers=HEADERS,
        cookie_jar=DummyCookieJar(),
        request_class=request_class,
        response_class=CappedResponse,
        auto_decompress=False,
        proxy=proxy_of(url),
    )


def proxy_of(url: str) -> URL | None:
    """The proxy that the environment names for this URL. It may hold credentials: show its host only."""
    target = URL(url)
    host = target.host or ""
    found = getproxies().get(target.scheme)
    if not found or is_loopback(host) or proxy_bypass(host):
        return None
    return URL(found if "://" in found else f"http://{found}")


# -- the transport port -----------------------------------------------------------------------------------------------


class Attempt:
    """One request's right to be sent, and how far it came."""

    __slots__ = ("_deadline", "_permit", "_timeout_seconds", "answered", "sent")

    def __init__(self, permit: Permit, deadline: asyncio.Timeout, timeout_seconds: float) -> None:
        self._permit, self._deadline, self._timeout_seconds = permit, deadline, timeout_seconds
        self.sent = False  # True from the moment on at which a byte may have left
        self.answered = False  # the whole reply is there

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


class AiohttpTransport:
    """See `engine.transport.Transport`. `session` is made with `request_class=MeteredRequest`, and closed with this."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    def route(self, url: str, headers: Mapping[str, str], /, *, timeout_seconds: float) -> AiohttpRoute:
        return AiohttpRoute(self._session, URL(url, encoded=True), headers, timeout_seconds)

    async def close(self) -> None:
        await self._session.close()


class AiohttpRoute:
    """See `engine.transport.Route`."""

    def __init__(self, session: ClientSession, url: URL, headers: Mapping[str, str], timeout_seconds: float) -> None:
        self._session, self._url, self._headers, self._timeout_seconds = session, url, headers, timeout_seconds

    async def post(self, body: bytes, headers: Mapping[str, str], permit: Permit, /) -> Answer:
        answer, deadline = Answer(), asyncio.timeout(None)
        attempt = Attempt(permit, deadline, self._timeout_seconds)
        try:
            async with deadline:
                await self._exchange(body, headers, attempt, answer)
        except (aiohttp.ClientError, OSError, UnicodeError) as failure:
            if not attempt.answered:
                answer.reason = _lost_reason(failure) if attempt.sent else connect_reason(failure)
        answer.sent = attempt.sent
        return answer

    async def _exchange(self, body: bytes, headers: Mapping[str, str], attempt: Attempt, answer: Answer) -> None:
        response = await self._session.post(
            self._url,
            data=io.BytesIO(body) if len(body) > LARGE_BYTES else body,
            headers={**self._headers, **headers},
            allow_redirects=False,
            middlewares=(attempt.attach,),
        )
        try:
            answer.status, answer.retry_after = response.status, response.headers.get(RETRY_AFTER)
            answer.body = await response.read()
            attempt.answered = True
            await response.wait_for_close()
        except BaseException:
            response.close()
            raise


def _lost_reason(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "timeout"
    return "bad_http" if isinstance(failure, aiohttp.ClientResponseError) else "connection_lost"


def connect_reason(failure: Exception) -> str:
    """Why no request could be sent, as a short stable reason."""
    if isinstance(failure, aiohttp.ClientConnectorDNSError | UnicodeError):  # a host name that cannot be one
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
    "AiohttpTransport",
    "Attempt",
    "CappedResponse",
    "MeteredRequest",
    "connect_reason",
    "open_session",
    "proxy_of",
]
