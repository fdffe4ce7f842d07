"""Can a host be reached at all? Name and connection are tried without sending a request."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable

import anyio
import msgspec
from yarl import URL

STEP_SECONDS = 10.0


class Step(msgspec.Struct, frozen=True):
    """One step of a test, as the admin API shows it. `detail` never holds a secret or data of a person."""

    step: str
    ok: bool
    detail: str
    seconds: float


class StepFailed(Exception):
    """A step did not pass; the text says why."""


async def timed(name: str, action: Awaitable[str], *, seconds: float = STEP_SECONDS) -> Step:
    """Await `action`, which returns its detail or raises StepFailed or OSError, for at most `seconds`."""
    started = time.monotonic()
    try:
        with anyio.fail_after(seconds):
            ok, detail = True, await action
    except TimeoutError:
        ok, detail = False, f"nothing happened in {seconds:g} s"
    except StepFailed as error:
        ok, detail = False, str(error)
    except OSError as error:
        ok, detail = False, _why(error)
    return Step(name, ok, detail, round(time.monotonic() - started, 3))


async def resolve(url: URL) -> str:
    """The addresses behind the host of `url`. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    return ", ".join(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(url: URL, *, through: URL | None = None) -> str:
    """Open and close a connection to the host of `url`, or to the proxy it would be reached `through`; no byte of a
    request is sent. Raises OSError."""
    target = through or url
    context = ssl.create_default_context() if target.scheme == "https" else None
    _, writer = await asyncio.open_connection(target.host, target.port, ssl=context)
    secured = writer.get_extra_info("ssl_object")
    writer.close()
    await writer.wait_closed()
    return f"{f'proxy {target.host}, ' if through else ''}{secured.version() if secured else 'TCP'}"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    return error.strerror or type(error).__name__


__all__ = ["Step", "StepFailed", "connect", "resolve", "timed"]
