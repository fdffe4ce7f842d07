"""What a host program has: a loop of its own choosing, a configuration, and somewhere for profiles to go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine import Config
from engine.testing.destination import FakeDestination

Main = Callable[[], Awaitable[None]]
FAST: dict[str, Any] = {
    "ingress": {"port": 0},
    "account": [{"rate": {"requests_per_second": 5000.0, "burst": 50, "max_concurrency": 16}}],
    "destination": [{"name": "crm", "batch": {"linger_ms": 0}}],
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One destination "crm", a journal on disk below `tmp_path`."""
    return Config.from_dict(FAST, base=tmp_path)


@pytest.fixture
def crm() -> FakeDestination:
    return FakeDestination()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """Runs a program the way its author would: `asyncio.run`, on either loop."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def running(main: Main) -> None:
        async def program() -> None:
            async with asyncio.timeout(30):
                await main()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(program())

    return running
