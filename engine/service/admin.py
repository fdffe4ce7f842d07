"""The admin side as aiohttp routes: on a listener of its own, or beside the ingress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version

import msgspec
from aiohttp import web

from engine.adapters.http_ingress import (
    Access,
    Denied,
    Head,
    Ingress,
    add_ingress_routes,
    head_of,
    prepare,
)
from engine.metrics import Metrics
from engine.ports import Control
from engine.service.dashboard import Pages
from engine.service.handlers import Handlers
from engine.service.openapi import document
from engine.service.operations import ADMIN, Operation

Handler = Callable[[web.Request], Awaitable[object]]


def create_admin_app(
    control: Callable[[], Control], access: Access, *, metrics: Metrics | None = None
) -> web.Application:
    """Everything but events, receipts and probes. `control` is asked anew every time and raises Stopped while no engine
    runs (503); `metrics` makes /metrics answer even then."""
    app = web.Application()
    prepare(app)
    add_admin_routes(app, control, access, metrics=metrics)
    return app


def create_service_app(
    ingress: Ingress, control: Callable[[], Control], access: Access, *, metrics: Metrics | None = None
) -> web.Application:
    """Ingress and admin side on one listener: where `[admin]` is not configured."""
    app = web.Application()
    prepare(app, ingress.random)
    add_ingress_routes(app, ingress)
    add_admin_routes(app, control, access, metrics=metrics)
    return app


def add_admin_routes(
    app: web.Application, control: Callable[[], Control], access: Access, *, metrics: Metrics | None = None
) -> None:
    """Onto an application that was given to `prepare`."""
    handlers, pages = Handlers(control, access, metrics), Pages(document(_version()))
    for operation in ADMIN:
        handler = getattr(pages, operation.id, None) or getattr(handlers, operation.id)
        app.router.add_route(operation.method, operation.path, _guarded(operation, handler, access))


def _guarded(
    operation: Operation, handler: Handler, access: Access
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        head = head_of(request)
        try:
            _admit(operation, head, access)
            answer = await handler(request)
        except Denied as denied:
            access.note(denied, head, operation.id)
            raise
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.Response(status=operation.status, body=msgspec.json.encode(answer), content_type="application/json")

    return handle


def _admit(operation: Operation, head: Head, access: Access) -> None:
    """Raises Denied."""
    if not operation.scope:
        access.require_local(head)
        return
    caller = access.require(head, operation.scope)
    if operation.also:
        access.require(head, operation.also)
    if caller.destinations is not None and not operation.narrows:
        detail = "this concerns every destination, and this key is limited to some"
        raise Denied("destination", detail, caller=caller.name)


def _version() -> str:
    try:
        return version("rainfocus-engine")
    except PackageNotFoundError:
        return "0"
