"""A fake engine over real HTTP, and ways to run commands against it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from engine.cli.app import app

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """An aiohttp server on a port of its own, in a thread. `handle` answers everything."""

    def __init__(self) -> None:
        self.handle: Handler = _not_found
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []  # method, path with query, headers, body
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self) -> None:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> int:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        return await self.handle(request)


async def _not_found(request: web.Request) -> web.StreamResponse:
    return web.json_response({"title": "no such path", "status": 404}, status=404)


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    started.start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """A command that serves sets up the logging of its process, which here is everybody's."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a command in an empty folder, without the caller's environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAINFOCUS_ENGINE_CONFIG", "RAINFOCUS_ENGINE_KEY", "RAINFOCUS_ENGINE_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input)

    return invoke


@pytest.fixture
def fake_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a module with these names in the place of a real one."""

    def put(name: str, **names: Any) -> None:
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture(autouse=True)
def identity(fake_module: Callable[..., None]) -> None:
    """Who is who, as plainly as these tests need it, where the room that knows it better is missing."""
    if find_spec("engine.profiles.identity") is not None:
        return
    fake_module(
        "engine.profiles.identity",
        normalise_email=lambda text: text.strip().lower() if "@" in text else None,
        key_of=lambda address: hashlib.sha256(address.encode()).digest(),
    )


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration; by default one whose port nobody listens on."""

    def write(text: str = "", *, port: int = 1) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(f"[ingress]\nport = {port}\n{text}")
        return path

    return write
