"""The ingress as an ASGI application, to be mounted in Starlette or FastAPI or run by any ASGI server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from engine.adapters.http_ingress.access import Head
from engine.adapters.http_ingress.answers import fault_of
from engine.adapters.http_ingress.body import too_slow
from engine.adapters.http_ingress.fast_head import check_transfer_encoding, query_of
from engine.adapters.http_ingress.ingress import Ingress
from engine.adapters.http_ingress.problems import SECURITY_HEADERS, Problem
from engine.adapters.http_ingress.request import (
    CHANGES,
    PROFILES,
    RECEIPTS,
    TOKEN,
    IngressAnswer,
    IngressRequest,
    content_length,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LIVE = b'{"live":true}'
SECURITY = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class _Left(Exception):
    """Nobody waits for the answer any more."""


class _Ambiguous(Problem):
    """Nothing behind it on the connection should be read."""


class AsgiIngress:
    """`POST /v1/profiles`, `/v1/sources/rainfocus` and `/oauth/token`, `GET /v1/receipts/{id}`, `/livez` and `/readyz`.
    Below a mount it answers to the same addresses behind `root_path`. Needs no lifespan."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._posts: dict[str, Callable[[IngressRequest], Awaitable[IngressAnswer]]] = {
            PROFILES: ingress.handle,
            CHANGES: ingress.handle_changes,
            TOKEN: ingress.issue_token,
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            with suppress(OSError, _Left):
                await _send(await self._answer(scope, receive), send, body=scope["method"] != "HEAD")
        else:
            await receive()
            await send({"type": f"{scope['type']}.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._ingress.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> IngressAnswer:
        try:
            head = _head(scope)
            root = scope.get("root_path", "")
            path = scope["path"].removeprefix(root)
            query = query_of("?" + scope.get("query_string", b"").decode("ascii", "replace"))
            if scope["method"] == "POST" and path in self._posts:
                request = IngressRequest(head, query, mount=quote(root))
                return await self._post(path, request, receive)
            return await self._get(scope["method"], path, head)
        except _Ambiguous as problem:
            answer = self._problem(problem)
            if scope.get("http_version", "1.1") in ("1.0", "1.1"):
                answer.headers["Connection"] = "close"
            return answer
        except Problem as problem:
            return self._problem(problem)
        except (asyncio.CancelledError, _Left):
            raise
        except Exception as error:
            return self._problem(fault_of(error, "the ASGI front"))

    def _problem(self, problem: Problem) -> IngressAnswer:
        return IngressAnswer(problem.status, problem.headers_with(self._ingress.random), problem.body())

    async def _post(self, path: str, request: IngressRequest, receive: Receive) -> IngressAnswer:
        length = content_length(request.head.headers) or 0
        if path == PROFILES and self._ingress.direct.takes(request.head.headers, length):
            return await self._direct(request, receive)
        request.chunks = _chunks(receive)
        return await self._posts[path](request)

    async def _direct(self, request: IngressRequest, receive: Receive) -> IngressAnswer:
        direct = self._ingress.direct
        admitted = direct.admit(request.head, request.query)
        if isinstance(admitted, IngressAnswer):
            return admitted
        try:
            async with asyncio.timeout(self._ingress.body_seconds):
                first = await receive()
        except TimeoutError:
            return self._problem(too_slow(self._ingress.body_seconds))
        if first["type"] != "http.request" or first.get("more_body", False):
            request.chunks = _chunks(receive, first)
            return await self._ingress.handle(request)
        answer: asyncio.Future[IngressAnswer] = asyncio.get_running_loop().create_future()
        told = lambda it: None if answer.done() else answer.set_result(it)  # noqa: E731
        direct.take(admitted, request.head, first.get("body", b""), request.mount, told)
        return await answer

    async def _get(self, method: str, path: str, head: Head) -> IngressAnswer:
        reads = method in ("GET", "HEAD")
        if path == "/livez" and reads:
            return IngressAnswer(200, {"Content-Type": "application/json"}, LIVE)
        if path == "/readyz" and reads:
            return self._ingress.ready(head)
        if path.startswith(RECEIPTS) and reads:
            return await self._ingress.receipt(head, path.removeprefix(RECEIPTS))
        if path in self._posts or path in ("/livez", "/readyz") or path.startswith(RECEIPTS):
            allowed = "POST" if path in self._posts else "GET, HEAD"
            raise Problem("method-not-allowed", f"this address takes {allowed}", headers={"Allow": allowed})
        raise Problem("not-found", "there is nothing at this address")


def _head(scope: Mapping[str, Any]) -> Head:
    """Raises Problem."""
    headers: dict[str, str] = {}
    hosts = 0
    for name, value in scope["headers"]:
        known = name.decode("ascii", "replace").lower()
        hosts += known == "host"
        headers.setdefault(known, value.decode("utf-8", "surrogateescape"))
    version = scope.get("http_version", "1.1")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise _Ambiguous("bad-request", "a request has the header Host once")
    if "transfer-encoding" in headers:
        try:
            check_transfer_encoding(headers["transfer-encoding"], version)
        except Problem as problem:
            raise _Ambiguous(problem.type, problem.detail) from None
    return Head(headers, _peer(scope))


def _peer(scope: Mapping[str, Any]) -> str:
    """Who is not known is not taken for somebody on this machine, unless it came through a Unix socket."""
    client, server = scope.get("client"), scope.get("server")
    if client:
        return str(client[0])
    return "" if server and server[1] is None else "unknown"


async def _chunks(receive: Receive, first: Message | None = None) -> AsyncIterator[bytes]:
    more = True
    while more:
        message, first = first or await receive(), None
        if message["type"] == "http.disconnect":
            raise _Left
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


async def _send(answer: IngressAnswer, send: Send, *, body: bool) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()]
    length = (b"content-length", b"%d" % len(answer.body))
    await send({"type": "http.response.start", "status": answer.status, "headers": [*SECURITY, *headers, length]})
    await send({"type": "http.response.body", "body": answer.body if body else b""})
