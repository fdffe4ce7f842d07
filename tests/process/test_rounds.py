"""A handful of the signals that `make test-faults` sends by the hundred. `SIGNAL_SEED=7` draws other moments."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import Place, Sandbox, place_at
from rounds import Say, reload_again_and_again, stall_again_and_again, stop_again_and_again

pytestmark = pytest.mark.process
SEED = int(os.environ.get("SIGNAL_SEED", "1"))


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        yield made


async def test_a_stop_with_a_backlog_ends_in_time_loses_nothing_and_sends_nothing_twice(
    place: Place, sandbox: Sandbox, say: Say
) -> None:
    await stop_again_and_again(place, sandbox, 5, SEED, say)


async def test_no_request_is_refused_because_the_configuration_is_read_again(
    place: Place, sandbox: Sandbox, say: Say
) -> None:
    await reload_again_and_again(place, sandbox, 10, SEED, say)


async def test_an_engine_that_stood_still_for_seconds_loses_nothing_and_makes_up_for_nothing(
    place: Place, sandbox: Sandbox, say: Say
) -> None:
    await stall_again_and_again(place, sandbox, 2, SEED, say)
