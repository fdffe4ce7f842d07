"""The pytest plugin: an engine for tests of programs that embed one. Loaded by pytest wherever this is installed.

`rainfocus_engine` needs a plugin that runs async fixtures: pytest-asyncio in auto mode, or anyio's. Nothing heavy is
imported before a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from engine.assembly import Engine
    from engine.config import Config
    from engine.testing.destination import FakeDestination

pytest.register_assert_rewrite("engine.testing.contracts")


@pytest.fixture
def rainfocus_config() -> Config:
    """The configuration of `rainfocus_engine`: override it for other sources or destinations. Journal in memory."""
    from engine.config import Config

    return Config.from_dict(
        {
            "journal": {"kind": "memory"},
            "account": [{"rate": {"requests_per_second": 1_000.0, "burst": 100}}],
            "destination": [{"name": "rainfocus", "retry": {"base_ms": 1, "cap_ms": 10}}],
        }
    )


@pytest.fixture
def rainfocus_destination() -> FakeDestination:
    """What `rainfocus_engine` delivers to: `script` what it answers, look at `stored` and `requests`."""
    from engine.testing.destination import FakeDestination

    return FakeDestination()


@pytest.fixture
async def rainfocus_engine(rainfocus_config: Config, rainfocus_destination: FakeDestination) -> AsyncIterator[Engine]:
    """A started engine; everything goes to `rainfocus_destination`. It is drained at the end of the test."""
    from engine.assembly import Engine

    destinations = {one.name: rainfocus_destination for one in rainfocus_config.destinations}
    async with Engine(rainfocus_config, destinations=destinations) as engine:
        yield engine
