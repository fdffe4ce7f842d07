"""Every example does what it says, against a sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from engine import Config
from engine.assembly.service import Service
from engine.sandbox import Sandbox, Settings, running_sandbox

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ELSEWHERE = {"make_attendees.py"}
"""Tried elsewhere: tests/profiles/test_examples.py."""

CONFIG = """
[ingress]
port = 0

[[account]]
base_url = "{url}"

[account.rate]
requests_per_second = 500.0
burst = 10
"""


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox(Settings(port=0)) as running:
        yield running


@pytest.fixture
def path(sandbox: Sandbox, tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(url=sandbox.url))
    return file


async def ran(name: str, *arguments: object, **environment: str) -> list[str]:
    """What the example prints, line by line; it must end well and complain of nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **environment},
    )
    out, errors = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, errors.decode()) == (0, "")
    return out.decode().splitlines()


def loaded(name: str) -> Any:
    spec = spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


def stored(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    return {one.email: one.fields for one in sandbox.store}


def test_each_example_has_its_test() -> None:
    tested = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert example.name in ELSEWHERE or f'"{example.stem}' in tested, example.name


async def test_embed_asyncio(sandbox: Sandbox, path: Path) -> None:
    said = await ran("embed_asyncio.py", path)
    assert said[:2] == ["3 accepted", "record 3 refused: email: not_an_email"]
    assert "'pending': 0" in said[2]
    assert stored(sandbox)["lea.martin@example.com"]["city"] == "Lyon"
    assert stored(sandbox)["ivar.berg@example.com"]["jobtitle"] == "Architect"


async def test_embed_aiohttp(sandbox: Sandbox, path: Path) -> None:
    app = loaded("embed_aiohttp").build_app(Config.load(path))
    async with TestClient(TestServer(app)) as client:
        event = {"email": "lea.martin@example.com", "city": "Lille"}
        answer = await client.post("/ingest/v1/profiles", json=event)
        assert answer.status == 202
        answer = await client.post("/checkin", data={"email": "lea.martin@example.com"})
        assert answer.status == 202
        answer = await client.post("/checkin", data={"email": "nobody"})
        assert (answer.status, await answer.json()) == (422, {"reason": "not_an_email"})
        await until(lambda: len(sandbox.store) == 1)
        await until(lambda: "jobtitle" in stored(sandbox)["lea.martin@example.com"])
    assert stored(sandbox)["lea.martin@example.com"]["city"] == "Lille"


async def test_embed_starlette(sandbox: Sandbox, path: Path) -> None:
    app = loaded("embed_starlette").build_app(Config.load(path))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://host")
    async with client, app.router.lifespan_context(app):
        assert (await client.get("/ready")).json() == {"reasons": []}
        answer = await client.post("/profiles", json=[{"email": "lea.martin@example.com"}, {"email": "nobody"}])
        assert answer.status_code == 202
        assert answer.json()["rejected"] == [{"index": 1, "field": "email", "reason": "not_an_email"}]
        assert (await client.post("/profiles", content=b"{")).status_code == 400
        await until(lambda: len(sandbox.store) == 1)
    assert stored(sandbox).keys() == {"lea.martin@example.com"}


async def test_own_destination(tmp_path: Path) -> None:
    target = tmp_path / "profiles.ndjson"
    said = await ran("own_destination.py", target)
    assert "'pending': 0" in said[0]
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert {it["email"] for it in lines} == {"lea.martin@example.com", "ivar.berg@example.com"}
    merged: dict[str, Any] = {}
    for line in lines:
        merged.setdefault(line["email"], {}).update(line)
    assert merged["lea.martin@example.com"] == {
        "email": "lea.martin@example.com",
        "city": "Lille",
        "jobtitle": "Director",
    }


async def test_send_profiles(sandbox: Sandbox, path: Path) -> None:
    async with Service(Config.load(path)) as service:
        said = await ran("send_profiles.py", service.urls["ingress"], EXAMPLES / "profiles.ndjson")
        assert said == ["request 1: 3 accepted, rejected: []"]
        await until(lambda: len(sandbox.store) == 2)


async def test_send_profiles_comes_back_when_it_is_told_to_and_tells_the_key() -> None:
    answers = [(503, {"Retry-After": "0"}), (429, {}), (202, {})]
    seen: list[tuple[str, bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Authorization", ""), await request.read()))
        status, headers = answers[len(seen) - 1]
        return web.json_response({"accepted": 3, "rejected": []}, status=status, headers=headers)

    app = web.Application()
    app.router.add_post("/v1/profiles", handle)
    async with TestServer(app) as server:
        url = f"http://127.0.0.1:{server.port}"
        said = await ran("send_profiles.py", url, EXAMPLES / "profiles.ndjson", RAINFOCUS_ENGINE_KEY="secret")
    assert said == ["request 1: 3 accepted, rejected: []"]
    assert seen == [("Bearer secret", (EXAMPLES / "profiles.ndjson").read_bytes())] * 3
