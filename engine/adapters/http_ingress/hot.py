"""aiohttp's own server as we want it: `POST /v1/profiles` before any router is asked, nothing that can be understood in
two ways, and no answer that quotes what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web

from engine.adapters.http_ingress.access import Head
from engine.adapters.http_ingress.answers import fault_of
from engine.adapters.http_ingress.fast_head import check_transfer_encoding, check_version, in_origin_form
from engine.adapters.http_ingress.ingress import Ingress
from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.request import PROFILES, IngressAnswer, content_length
from engine.adapters.http_ingress.wire import encode

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Written(web.StreamResponse):
    """An answer that is bytes already."""

    def __init__(self, answer: IngressAnswer, *, last: bool = False) -> None:
        super().__init__(status=answer.status)
        self._answer, self._last = answer, last

    async def prepare(self, request: web.BaseRequest) -> Any:
        self._keep_alive = keep_alive = request.keep_alive and not self._last
        if request.transport is None:
            raise ConnectionResetError("the caller has left")
        connection = "close" if not keep_alive else "keep-alive" if request.version < HttpVersion11 else ""
        request.transport.write(encode(self._answer, connection, body=request.method != "HEAD"))

    async def write_eof(self, data: bytes = b"") -> None:
        """It is all written."""


class QuietHandler(web.RequestHandler):
    """Of aiohttp's server, whose own answers to what is no HTTP quote it."""

    __slots__ = ("refused",)

    def __init__(self, refused: Callable[[Problem], IngressAnswer], manager: web.Server, **more: Any) -> None:
        super().__init__(manager, **more)
        self.refused = refused

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is out already")
        return Written(self.refused(_problem_of(exc, status)), last=True)


def _problem_of(error: BaseException | None, status: int) -> Problem:
    if status < 500:
        return Problem("bad-request", "this is no HTTP/1.1 request")
    if isinstance(error, Exception) and not isinstance(error, (ConnectionError, web.RequestPayloadError)):
        return fault_of(error, "a handler of aiohttp's")
    return Problem("server-error", "the connection broke off")


def hot_first(ingress: Ingress, others: Handler, refused: Callable[[Problem], IngressAnswer]) -> Handler:
    """`others`: what answers everything else. `refused`: the answer to a request that is no good HTTP."""
    direct = ingress.direct

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            _check(request)
        except Problem as problem:
            return Written(refused(problem), last=True)
        if request.method != "POST" or request.rel_url.raw_path != PROFILES or not _is_here(request):
            return await others(request)
        if not direct.takes(request.headers, content_length(request.headers) or 0):
            return await others(request)
        body = request.content.read_nowait()
        head = Head(request.headers, request.remote or "")
        admitted = direct.admit(head, request.query)
        if isinstance(admitted, IngressAnswer):
            return Written(admitted)
        answer: asyncio.Future[IngressAnswer] = asyncio.get_running_loop().create_future()
        direct.take(admitted, head, body, "", lambda it: None if answer.done() else answer.set_result(it))
        return Written(await answer)

    return handle


def _is_here(request: web.BaseRequest) -> bool:
    return request.content.is_eof() and not request.content.at_eof()


def _check(request: web.BaseRequest) -> None:
    """What aiohttp lets through. Raises Problem."""
    check_version(f"{request.version.major}.{request.version.minor}")
    encoding = request.headers.get("Transfer-Encoding")
    if encoding is not None:
        check_transfer_encoding(encoding, "1.0" if request.version == HttpVersion10 else "1.1")
    in_origin_form(request.raw_path, request.headers.get("Host", ""))
