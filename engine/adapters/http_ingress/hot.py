"""`POST /v1/profiles` on aiohttp's own server, before any router is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from engine.adapters.http_ingress.access import Head
from engine.adapters.http_ingress.ingress import Ingress
from engine.adapters.http_ingress.request import PROFILES, IngressAnswer, content_length
from engine.adapters.http_ingress.wire import encode

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Written(web.StreamResponse):
    """An answer that is bytes already."""

    def __init__(self, answer: IngressAnswer) -> None:
        super().__init__(status=answer.status)
        self._answer = answer

    async def prepare(self, request: web.BaseRequest) -> Any:
        keep_alive = request.keep_alive
        if not keep_alive:
            self.force_close()
        self._keep_alive = keep_alive
        connection = "close" if not keep_alive else "keep-alive" if request.version < (1, 1) else ""
        if request.transport is None:
            raise ConnectionResetError("the caller has left")
        request.transport.write(encode(self._answer, connection))

    async def write_eof(self, data: bytes = b"") -> None:
        """It is all written."""


def hot_first(ingress: Ingress, others: Handler) -> Handler:
    """`others`: what answers everything else."""
    direct = ingress.direct

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
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
