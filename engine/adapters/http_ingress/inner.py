"""From an ingress worker to the core: whatever is not an event is asked there, over HTTP on a Unix socket.

The socket lies in a folder that only its owner may enter. The core sees every request as the worker got it, with the
address of the other end in a header that no client can set: the worker always writes it itself.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, UnixConnector, web
from yarl import URL

from engine.adapters.http_ingress.listener import silent
from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.request import CHANGES, PROFILES

PEER = "X-Engine-Peer"
PREFIX, NAME = "rainfocus-engine-core-", "core"
PLACE_BYTES = 70
"""Longest name of the temporary directory; that of a socket has at most 107 bytes."""

OLD_SECONDS = 60.0
BODY_SECONDS = 10.0
CHUNK_BYTES = 65_536
ALONG_THE_WAY = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "expect", "content-length"),
    }
)
"""Headers of one connection, or made anew for the next."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


# -- the core's side --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def inner_listener(app: web.Application, *, shutdown_seconds: float) -> AsyncIterator[Path]:
    """Serves the application on the socket whose path it gives; the folder of it goes at the end."""
    app.middlewares.append(_as_the_worker_saw_it)
    _sweep()
    folder = _private_folder()
    runner = web.AppRunner(
        app, auto_decompress=False, access_log=None, logger=silent(), shutdown_timeout=shutdown_seconds
    )
    await runner.setup()
    try:
        path = folder / NAME
        await web.UnixSite(runner, path).start()
        yield path
    finally:
        await runner.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    """Only its owner may enter. Raises OSError."""
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > PLACE_BYTES:
        raise OSError(errno.ENAMETOOLONG, "too long a name for a socket in it; set TMPDIR to a shorter one", place)
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def _sweep() -> None:
    """Of cores that were killed nobody else removes the folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.stat()
            old = time.time() - found.st_mtime > OLD_SECONDS
            if old and found.st_uid == os.geteuid() and not _is_served(folder / NAME):
                shutil.rmtree(folder)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


@web.middleware
async def _as_the_worker_saw_it(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not _is_ours(request):
        raise Problem("forbidden", "this socket is for the workers of the engine")
    return await handler(request.clone(remote=request.headers.get(PEER, "")))


def _is_ours(request: web.Request) -> bool:
    """Whoever has connected runs as the same user as we."""
    connected = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connected is None:
        return False
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


# -- the worker's side ------------------------------------------------------------------------------------------------


def ask_the_core(app: web.Application, path: Path, *, connections: int) -> None:
    """Give an ingress application what it is to do with everything but events."""

    async def session(app: web.Application) -> AsyncIterator[None]:
        opened = ClientSession(
            connector=UnixConnector(str(path), limit=connections),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=None),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        sessions.append(opened)
        async with opened:
            yield

    @web.middleware
    async def elsewhere(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "POST" and request.path in (PROFILES, CHANGES):
            return await handler(request)
        body = await _body(request)
        try:
            return await _asked(sessions[0], request, body)
        except (ClientError, TimeoutError):
            raise Problem("not-running", "the engine has ended", retry_after_seconds=5.0) from None

    sessions: list[ClientSession] = []
    app.cleanup_ctx.append(session)
    app.middlewares.append(elsewhere)


async def _body(request: web.Request) -> bytes:
    """All of it, bounded as the core bounds it: raises Problem (408) and what aiohttp raises (413)."""
    if not request.body_exists:
        return b""
    if "Expect" in request.headers and request.match_info.http_exception is None:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # its route leaves that to whoever reads
        request.writer.output_size = 0
    try:
        with anyio.fail_after(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Problem("body-timeout", f"the body was not complete after {BODY_SECONDS:g} seconds") from None


async def _asked(session: ClientSession, request: web.Request, body: bytes) -> web.StreamResponse:
    headers = [(name, it) for name, it in request.headers.items() if name.lower() not in (*ALONG_THE_WAY, PEER.lower())]
    url = URL(f"http://core{request.raw_path}", encoded=True)
    async with session.request(
        request.method,
        url,
        headers=[*headers, (PEER, request.remote or "")],
        data=body or None,
        allow_redirects=False,
    ) as answer:
        return await _handed_on(request, answer)


async def _handed_on(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    """A long answer, an export for one, in pieces as they come."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in ALONG_THE_WAY:
            response.headers.add(name, value)
    response.content_length = answer.content_length
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            await response.write(chunk)
    except ClientError:
        raise ConnectionError("the core has ended within its answer") from None
    await response.write_eof()
    return response
