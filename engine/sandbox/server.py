"""The application and how it is run: for a test in its own loop, or as a process until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import orjson
from aiohttp import web

from engine.sandbox import admin
from engine.sandbox.attendees import Attendee
from engine.sandbox.replies import SERVER, html_error, not_found
from engine.sandbox.settings import MAX_BODY_BYTES, Clock, Settings, SystemClock, is_loopback
from engine.sandbox.state import SANDBOX, Sandbox
from engine.sandbox.store_api import attendee_store
from engine.sandbox.token_api import token

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STOP_SECONDS = 2.0
"""How long requests in flight may take to end when the server stops."""

_LOG = logging.getLogger(__name__)
_ASSETS = {"index.html": "text/html", "app.js": "text/javascript", "style.css": "text/css"}
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": SERVER,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(settings: Settings, *, clock: Clock | None = None) -> web.Application:
    """The sandbox as an aiohttp application; its state is ``app[SANDBOX]``.

    :raises ValueError: when the faults file holds something else.
    :raises OSError: when it cannot be read.
    """
    app = web.Application(middlewares=[_guard], client_max_size=MAX_BODY_BYTES)
    app[SANDBOX] = Sandbox(settings, clock or SystemClock())
    app.router.add_post("/api/{org_id}/{version:v2|v3}/attendee/store", attendee_store)
    app.router.add_post("/oidc/token", token)
    app.add_routes(admin.routes())
    app.router.add_get("/", _asset("index.html"))
    for name in ("app.js", "style.css"):
        app.router.add_get(f"{admin.PREFIX}/{name}", _asset(name))
    app.router.add_route("*", "/{tail:.*}", _nowhere)
    app.cleanup_ctx.append(app[SANDBOX].push.running)
    if settings.attendees_file:
        app.on_cleanup.append(_dump)
    return app


@asynccontextmanager
async def running_sandbox(settings: Settings | None = None, *, clock: Clock | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox in the running loop, on a free loopback port unless `settings` says otherwise."""
    app = create_app(settings or Settings(port=0), clock=clock)
    async with _listening(app, stop_seconds=0.05) as sandbox:
        yield sandbox


async def serve(
    settings: Settings, *, clock: Clock | None = None, announce: Callable[[str], None] | None = None
) -> None:
    """Run until cancelled, SIGTERM or SIGINT. `announce` is given the URL once it listens; default: a line on stdout.

    :raises ValueError: for a host that others can reach, unless `settings.allow_remote`.
    :raises OSError: when the address is taken.
    """
    if not settings.loopback:
        _warn_of_remote(settings)
    async with _listening(create_app(settings, clock=clock), stop_seconds=STOP_SECONDS) as sandbox:
        # What is stored only grows and has no cycles: looking for some would stop the clock that rates are measured by.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 1_000)
        with _stop_signals() as stopped:
            (announce or announce_line)(sandbox.url)
            await stopped.wait()


def announce_line(url: str) -> None:
    sys.stdout.write(f"RainFocus sandbox ready at {url}\n")
    sys.stdout.flush()


def announce_json(url: str) -> None:
    sys.stdout.write(orjson.dumps({"url": url, "pid": os.getpid()}).decode() + "\n")
    sys.stdout.flush()


def _warn_of_remote(settings: Settings) -> None:
    if not settings.allow_remote:
        raise ValueError(f"host {settings.host} can be reached by others; set allow_remote if that is meant")
    sys.stderr.write(
        f"Warning: the sandbox listens on {settings.host}. It keeps everything it is sent in memory, personal data "
        "included, and shows it to whoever reaches it.\n"
    )
    sys.stderr.flush()


@asynccontextmanager
async def _listening(app: web.Application, stop_seconds: float) -> AsyncIterator[Sandbox]:
    sandbox = app[SANDBOX]
    # aiohttp would log a traceback for every caller that leaves or sends bytes that are no HTTP; here both are daily.
    silent = logging.Logger("engine.sandbox.wire", logging.CRITICAL + 1)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=stop_seconds, logger=silent)
    try:
        await runner.setup()
        await web.TCPSite(runner, sandbox.settings.host.strip("[]"), sandbox.settings.port, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        sandbox.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        yield sandbox
    finally:
        await runner.cleanup()


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; outside the main thread, where no signals come, nothing does."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    with suppress(NotImplementedError, RuntimeError, ValueError):
        for number in numbers:
            loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            for number in numbers:
                loop.remove_signal_handler(number)


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keeps web pages of other sites out of the admin side, and every traceback in."""
    own_side = request.path == "/" or request.path.startswith(admin.PREFIX)
    if own_side and _foreign(request):
        return web.json_response({"error": "not from another site"}, status=403, headers=_PAGE_HEADERS)
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = web.json_response({"error": error.reason}, status=error.status)
    except ConnectionError:
        raise
    except Exception as error:
        _LOG.error("A request to %s failed: %s", request.match_info.route.name, type(error).__name__)
        response = html_error(500).response()
    if own_side:
        response.headers.update(_PAGE_HEADERS)
    return response


def _foreign(request: web.Request) -> bool:
    """Whether a browser sends this on behalf of another site: by name (DNS rebinding) or by origin (forged write)."""
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
        origin = urlsplit(request.headers.get("Origin", ""))
    except ValueError:
        return True
    if request.app[SANDBOX].settings.loopback and not is_loopback(name):
        return True
    return bool(origin.scheme or origin.path) and origin.netloc != request.host


def _asset(name: str) -> Handler:
    body = (resources.files("engine.sandbox") / "static" / name).read_bytes()

    async def asset(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=_ASSETS[name], charset="utf-8")

    return asset


async def _nowhere(request: web.Request) -> web.StreamResponse:
    return not_found().response()


async def _dump(app: web.Application) -> None:
    """Write all attendees to the file, one JSON object a line, readable by its owner only."""
    sandbox = app[SANDBOX]
    await asyncio.to_thread(_write_lines, Path(sandbox.settings.attendees_file), list(sandbox.store))


def _write_lines(target: Path, attendees: list[Attendee]) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.writelines(msgspec.json.encode(attendee) + b"\n" for attendee in attendees)
    partial.replace(target)
