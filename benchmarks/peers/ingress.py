"""Ingress alone: read the body, answer 202, forget it. ``python -m benchmarks.peers.ingress KIND``.

asyncio-protocol, aiohttp and uvicorn (raw ASGI) run in Python; nginx reads the body and answers from its configuration.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from benchmarks.cores import pin
from benchmarks.peers import install
from benchmarks.processes import Failed, run_async, running, stop
from benchmarks.sink import Sink
from benchmarks.systems import Contestant, Place, System

ANSWER = b'{"accepted":1}'
START_SECONDS = 10.0


def contestants() -> list[Contestant]:
    return [protocol(), _python("aiohttp alone", "aiohttp"), uvicorn(), nginx()]


def protocol() -> Contestant:
    """The protocol of the sink, as a server that nothing is behind."""
    return _python("asyncio.Protocol", "protocol")


def _python(name: str, kind: str, python: str = sys.executable) -> Contestant:
    @contextmanager
    def start(place: Place) -> Iterator[System]:
        arguments = ["-m", "benchmarks.peers.ingress", kind]
        log = place.directory / "ingress.log"
        with running(arguments, log, python=python, cores=place.cores.system) as process:
            path = "/api/ingress" if kind == "protocol" else "/v1/profiles"
            yield System(name=name, url=process.url, pids=[process.pid], path=path, delivers=False)

    return Contestant(name, start)


def uvicorn() -> Contestant:
    """In the bench's own environment."""

    @contextmanager
    def start(place: Place) -> Iterator[System]:
        python = install.python_with("uvicorn", "httptools", "uvloop", "aiohttp", "aiolimiter", "msgspec", "orjson")
        with _python("uvicorn, raw ASGI", "uvicorn", python).start(place) as system:
            yield system

    return Contestant("uvicorn, raw ASGI", start)


# -- nginx ------------------------------------------------------------------------------------------------------------

NGINX = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 64m; client_body_buffer_size 4m;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{ listen 127.0.0.1:{port} reuseport; location / {{ return 202 '{{"accepted":1}}'; }} }}
}}
"""


def nginx() -> Contestant:
    @contextmanager
    def start(place: Place) -> Iterator[System]:
        program, libraries = install.debian(
            "nginx", "usr/sbin/nginx", "nginx-light", "nginx-common", "nginx-core", "nginx"
        )
        port, home = free_port(), place.directory
        (home / "nginx.conf").write_text(NGINX.format(home=home, port=port))
        command = [program, "-p", str(home), "-c", str(home / "nginx.conf")]
        with daemon(command, home / "nginx.log", port, place.cores.system, libraries) as process:
            yield System(name="nginx", url=f"http://127.0.0.1:{port}", pids=[process.pid], delivers=False)

    return Contestant("nginx", start)


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


@contextmanager
def daemon(
    command: list[str], log: Path, port: int, cores: frozenset[int], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that announces nothing, from when it listens until the block ends. Raises Failed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | environment, preexec_fn=pin(cores), cwd=log.parent
        )
    try:
        _listening(process, log, port)
        yield process
    finally:
        stop(process)


def _listening(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as it:
            if it.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise Failed(f"{Path(process.args[0]).name} did not start: {log.read_text(errors='replace')[-500:].strip()}")  # type: ignore[index, arg-type]


# -- the servers ------------------------------------------------------------------------------------------------------


async def _serve_protocol() -> None:
    sink = Sink(remember=False)
    await sink.listen()
    _say(sink.port)
    await asyncio.Event().wait()


async def _serve_aiohttp() -> None:
    async def profiles(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=ANSWER, status=202, content_type="application/json")

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/profiles", profiles)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _say(runner.addresses[0][1])
    await asyncio.Event().wait()


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


async def _serve_uvicorn() -> None:
    import uvicorn

    port = free_port()
    config = uvicorn.Config(
        _asgi, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off", http="httptools"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.02)
    _say(port)
    await serving


def _say(port: int) -> None:
    said = {"pid": os.getpid(), "url": f"http://127.0.0.1:{port}"}
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.flush()


SERVERS = {"protocol": _serve_protocol, "aiohttp": _serve_aiohttp, "uvicorn": _serve_uvicorn}

if __name__ == "__main__":
    run_async(SERVERS[sys.argv[1]]())
