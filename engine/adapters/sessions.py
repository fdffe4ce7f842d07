"""The HTTP sessions of one account: pooled connections, time limits, proxy, and a cap on what a reply may weigh."""

from __future__ import annotations

import zlib
from urllib.request import getproxies, proxy_bypass

from aiohttp import ClientRequest, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.hdrs import ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, USER_AGENT
from yarl import URL

from engine.config import is_loopback

REPLY_BYTES = 1 << 20
"""What is read of one reply at most; an envelope has some hundred bytes."""

KEEPALIVE_SECONDS = 10.0
"""Shorter than the 15 s and more after which common servers drop idle connections, so that we drop them first."""

DNS_SECONDS = 30
CONNECT_SECONDS = 10.0

HEADERS = {
    USER_AGENT: "rainfocus-engine",
    ACCEPT: "application/json",
    ACCEPT_ENCODING: "identity",  # replies are tiny
}

_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


class CappedResponse(ClientResponse):
    """A response of which at most `REPLY_BYTES` are read; what is longer is cut and its connection closed. What comes
    packed all the same is unpacked here, to at most as much: aiohttp before 3.14 unpacks a bomb whole."""

    async def read(self) -> bytes:
        if self._body is None:
            try:
                self._body = _unpacked(await self._capped(), self.headers.get(CONTENT_ENCODING, ""))
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


def _unpacked(body: bytes, encoding: str) -> bytes:
    """As it came where it is not packed, or not as it says."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        return zlib.decompressobj(_ZLIB_OR_GZIP).decompress(body, REPLY_BYTES)
    except zlib.error:
        return body


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


__all__ = ["REPLY_BYTES", "CappedResponse", "open_session", "proxy_of"]
