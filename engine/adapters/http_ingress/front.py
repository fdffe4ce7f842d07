"""The ingress behind aiohttp. For a listener of our own and as a part of somebody else's application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from engine.adapters.http_ingress.access import Head
from engine.adapters.http_ingress.ingress import Ingress
from engine.adapters.http_ingress.problems import Problem, prepare
from engine.adapters.http_ingress.request import CHANGES, PROFILES, TOKEN, IngressAnswer, IngressRequest


def create_ingress_app(ingress: Ingress) -> web.Application:
    """`POST /v1/profiles`, `/v1/sources/rainfocus` and `/oauth/token`, `GET /v1/receipts/{id}`, `/livez` and `/readyz`.
    Run it with `auto_decompress=False` where the runner is ours; below another application it works either way."""
    app = web.Application()
    prepare(app, ingress.random)
    add_ingress_routes(app, ingress)
    return app


def add_ingress_routes(app: web.Application, ingress: Ingress) -> None:
    """Onto an application that was given to `prepare`."""

    async def post_profiles(request: web.Request) -> web.Response:
        answer = await ingress.handle(await _ingress_request(request, PROFILES))
        return _last_if_unread(request, _response(answer))

    async def post_changes(request: web.Request) -> web.Response:
        answer = await ingress.handle_changes(await _ingress_request(request, CHANGES))
        return _last_if_unread(request, _response(answer))

    async def post_token(request: web.Request) -> web.Response:
        answer = await ingress.issue_token(await _ingress_request(request, TOKEN))
        return _last_if_unread(request, _response(answer))

    async def get_receipt(request: web.Request) -> web.Response:
        return _response(await ingress.receipt(head_of(request), request.match_info["id"]))

    async def livez(request: web.Request) -> web.Response:
        return web.Response(body=b'{"live":true}', content_type="application/json")

    async def readyz(request: web.Request) -> web.Response:
        return _response(ingress.ready(head_of(request)))

    async def close(app: web.Application) -> None:
        await ingress.close()

    app.router.add_post(PROFILES, post_profiles, expect_handler=_later)
    app.router.add_post(CHANGES, post_changes, expect_handler=_later)
    app.router.add_post(TOKEN, post_token, expect_handler=_later)
    app.router.add_get("/v1/receipts/{id}", get_receipt)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.on_cleanup.append(close)


def head_of(request: web.BaseRequest) -> Head:
    return Head(request.headers, request.remote or "")


async def _ingress_request(request: web.Request, path: str) -> IngressRequest:
    here = request.content.is_eof()
    return IngressRequest(
        head_of(request),
        request.query,
        received=await _here(request) if here else b"",
        chunks=None if here else _chunks(request),
        decoded=getattr(request.content, "total_compressed_bytes", None) is not None,
        mount=request.rel_url.raw_path.removesuffix(path),
    )


def _last_if_unread(request: web.Request, response: web.Response) -> web.Response:
    """What was not read of a body is not taken for the next request."""
    if not request.content.is_eof():
        response.force_close()
    return response


async def _here(request: web.Request) -> bytes:
    """What has arrived before we were called; or what an application around us has read for itself."""
    if request.content.at_eof():
        return await request.read()
    with _broken_off():
        return request.content.read_nowait()


async def _later(request: web.Request) -> None:
    """`Expect: 100-continue` is answered when the body is asked for: a request that is refused never sends it."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    with _broken_off():
        while chunk := await request.content.readany():
            yield chunk


@contextmanager
def _broken_off() -> Iterator[None]:
    try:
        yield
    except (ClientPayloadError, HttpProcessingError, web.RequestPayloadError):
        raise Problem("unreadable-body", "the body broke off or is not what its headers say") from None


def _response(answer: IngressAnswer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
