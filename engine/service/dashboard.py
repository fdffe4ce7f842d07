"""What a browser loads: three fixed files without data. What they show they ask the API for, with the visitor's key."""

from __future__ import annotations

from importlib.resources import files

import msgspec
from aiohttp import web

POLICY = (
    "default-src 'self'; img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "object-src 'none'"
)
NAMES = ("dashboard.html", "dashboard.js", "dashboard.css")


class Pages:
    """Named as the operations of the OpenAPI document. Reads the files once."""

    def __init__(self, document: dict[str, object]) -> None:
        folder = files("engine.service") / "assets"
        self._files = {name: (folder / name).read_bytes() for name in NAMES}
        self._document = msgspec.json.encode(document)

    async def openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    async def dashboard(self, request: web.Request) -> web.Response:
        return self._file("dashboard.html", "text/html")

    async def dashboard_script(self, request: web.Request) -> web.Response:
        return self._file("dashboard.js", "text/javascript")

    async def dashboard_style(self, request: web.Request) -> web.Response:
        return self._file("dashboard.css", "text/css")

    def _file(self, name: str, content_type: str) -> web.Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return web.Response(body=self._files[name], content_type=content_type, charset="utf-8", headers=headers)
