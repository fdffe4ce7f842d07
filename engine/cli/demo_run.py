"""The demo's moving parts: a sandbox and an engine as processes of their own, a file, and the proof at the end."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from engine.cli.client import Client
from engine.cli.demo_fold import expected_of
from engine.cli.reach import Target
from engine.cli.send import Plan, transfer
from engine.config import Config
from engine.errors import EngineError

MARKER = "made-by-rainfocus-engine-demo"
START_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.25
PAGE = 1_000

FAULTS = (
    "kind=status,status=503,probability=0.02,path=store",
    "kind=status,status=429,retry_after=1,probability=0.001,path=store",
    "kind=reset_after,probability=0.01,path=store",
)

CONFIG = """\
# Written by `rainfocus-engine demo`; goes with its folder.
[engine]
data_dir = "var"

[ingress]
port = {port}

[[account]]
name = "sandbox"
environment = "sandbox"
base_url = "{sandbox}"

[account.rate]
requests_per_second = {rate}
burst = {burst}
max_concurrency = 16

[[destination]]
name = "demo"
event_code = "demo27"

[destination.retry]
unknown_hold_seconds = 0.5
"""


class Demo(msgspec.Struct):
    """What runs. `urls`: {"ingress", "admin", "sandbox"}."""

    directory: Path
    config: Config
    urls: dict[str, str]
    rate: float
    burst: int


def prepare(directory: Path) -> None:
    """An empty folder of our own. Raises EngineError rather than delete anything else."""
    if directory.exists() and any(directory.iterdir()) and not (directory / MARKER).exists():
        raise EngineError(f"{directory} is not a folder of the demo: name another with --directory")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / MARKER).touch()


@asynccontextmanager
async def running(directory: Path, rate: float, port: int, faults: bool) -> AsyncIterator[Demo]:
    """Sandbox and engine, stopped again at the end. Raises EngineError when one of them does not start."""
    chosen = [text for fault in FAULTS if faults for text in ("--fault", fault)]
    sandbox = ["-m", "engine.sandbox", "--port", "0", "--seed", "27", "--json", *chosen]
    async with _process(sandbox, directory / "sandbox.log") as said:
        burst = max(2, round(rate / 20))
        path = directory / "config.toml"
        path.write_text(CONFIG.format(port=port, sandbox=said["url"], rate=float(rate), burst=burst))
        config = Config.load(path)
        serve = ["-m", "engine", "serve", "--json", "--config", str(path)]
        async with _process(serve, directory / "engine.log") as answered:
            urls = {**answered["urls"], "sandbox": said["url"]}
            yield Demo(directory, config, urls, rate, burst)


@asynccontextmanager
async def _process(arguments: list[str], log: Path) -> AsyncIterator[dict[str, Any]]:
    """A Python of our own kind; yields the line of JSON that says that it is ready."""
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=stderr, start_new_session=True
        )
    assert process.stdout is not None
    try:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
            said: dict[str, Any] = msgspec.json.decode(line)
        except (TimeoutError, msgspec.DecodeError):
            raise EngineError(f"python {' '.join(arguments[:3])} did not start; see {log}") from None
        yield said
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def send(demo: Demo, file: Path) -> dict[str, Any]:
    """The file through the HTTP ingress; the report of `send`."""
    plan = Plan(
        Target(None, demo.urls["ingress"], ""),
        format=None,
        batch=500,
        concurrency=4,
        source=None,
        lane=None,
        wait_seconds=0.0,
        rejects=demo.directory / "rejects.ndjson",
        state=demo.directory / "send.progress",
        patience_seconds=30.0,
    )
    return await transfer(plan, [str(file)])


async def deliveries(demo: Demo) -> AsyncIterator[dict[str, Any]]:
    """The destination as it stands, again and again until nothing is pending."""
    async with Client(demo.urls["admin"]) as client:
        while True:
            (destination,) = await client.destinations()
            yield destination
            if not destination["counts"]["pending"]:
                return
            await asyncio.sleep(POLL_SECONDS)


async def proof(demo: Demo, file: Path) -> dict[str, Any]:
    """The engine's own audit, and the sandbox's content against the fold of the file."""
    async with Client(demo.urls["admin"]) as client:
        audit = await client.audit()
    expected = await asyncio.to_thread(expected_of, file, demo.config)
    async with aiohttp.ClientSession(demo.urls["sandbox"]) as session:
        stored = await _stored(session)
        stats = await _get(session, "/_sandbox/stats")
        rate = await _get(session, f"/_sandbox/rate?rate={demo.rate}&burst={demo.burst}")
    same, wrong = expected.compare(stored)
    return {"audit": audit, "attendees": len(stored), "same": same, "wrong": wrong, "stats": stats, "rate": rate}


async def _stored(session: aiohttp.ClientSession) -> dict[str, dict[str, Any]]:
    stored: dict[str, dict[str, Any]] = {}
    after: int | None = None
    while True:
        page = await _get(session, f"/_sandbox/attendees?limit={PAGE}{'' if after is None else f'&after={after}'}")
        for attendee in page["attendees"]:
            stored[attendee["email"]] = attendee["fields"]
        after = page["next"]
        if after is None:
            return stored


async def _get(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with session.get(path) as response:
        response.raise_for_status()
        answer: dict[str, Any] = await response.json()
        return answer
