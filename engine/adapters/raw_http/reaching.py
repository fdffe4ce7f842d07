"""From a URL to an open connection: names, addresses of both families, TLS that is verified."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Any

import aiohappyeyeballs
import msgspec
from yarl import URL

from engine.transport import DNS_SECONDS

NEXT_ADDRESS_SECONDS = 0.25
"""How long one address is tried before the next one is tried beside it (RFC 8305)."""

Address = tuple[int, int, int, str, tuple[Any, ...]]
Make = Callable[[], asyncio.Protocol]
Dial = Callable[["Origin", Make], Awaitable[None]]
"""Opens a connection to an origin and gives it to a protocol of `Make`. Raises OSError, TimeoutError."""


class UnknownName(OSError):
    """The name has no address, or nobody could be asked."""


class Origin(msgspec.Struct, frozen=True):
    """Who is talked to. `host` as it stands in a URL, an IPv6 address without brackets."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: URL) -> Origin:
        """Raises ValueError for what is no http or https URL."""
        if url.scheme not in ("http", "https") or not url.raw_host or url.port is None:
            raise ValueError("not a URL; write https://HOST or http://HOST:PORT")
        return cls(url.raw_host, url.port, url.scheme == "https")


class Dialer:
    """Dials, and remembers addresses for `DNS_SECONDS`: whoever asks for a name meanwhile shares the answer."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._asking = asyncio.Lock()

    async def __call__(self, origin: Origin, make: Make) -> None:
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(origin.host, origin.port)
        context = tls_context() if origin.tls else None
        name = origin.host.rstrip(".") if origin.tls else None
        connected = await _connected(addresses)
        try:
            await loop.create_connection(make, sock=connected, ssl=context, server_hostname=name)
        except BaseException:
            with suppress(OSError):
                connected.close()  # uvloop leaves it open when TLS fails
            raise

    async def _addresses(self, host: str, port: int) -> list[Address]:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            until, known = self._known.get((host, port), (now, []))
            if now >= until:
                known = await resolve(host, port)
                self._known[host, port] = now + DNS_SECONDS, known
            return known


async def resolve(host: str, port: int) -> list[Address]:
    """Raises UnknownName."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnknownName(f"{host} cannot be resolved") from error
    if not found:
        raise UnknownName(f"{host} has no address")
    return list(found)


async def _connected(addresses: list[Address]) -> socket.socket:
    """To the first that answers. Raises OSError."""
    try:
        return await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
    except RuntimeError as error:  # so does uvloop, now and then
        raise OSError(str(error)) from error


@cache
def tls_context() -> ssl.SSLContext:
    """Certificates and host names are verified. Loading what is trusted takes milliseconds, so it is done once."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def reason_of(error: BaseException) -> str:
    """Why no connection could be opened, as a short stable reason."""
    if isinstance(error, UnknownName):
        return "connect_dns"
    if isinstance(error, ssl.SSLError):
        return "connect_tls"
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    return "connect_refused" if isinstance(error, ConnectionRefusedError) else "connect_failed"


__all__ = ["Dial", "Dialer", "Make", "Origin", "UnknownName", "reason_of", "resolve", "tls_context"]
