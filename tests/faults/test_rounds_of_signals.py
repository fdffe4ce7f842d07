"""A hundred SIGTERM, a hundred SIGHUP and ten stalls of a real engine below load; tests/process has a handful of each.

`SIGNAL_ROUNDS=20 SIGNAL_SEED=7 make test-faults` for fewer, at other moments.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import Place, Sandbox, place_at, sandbox_at
from rounds import Say, reload_again_and_again, stall_again_and_again, stop_again_and_again

SEED = int(os.environ.get("SIGNAL_SEED", "1"))
ROUNDS = int(os.environ.get("SIGNAL_ROUNDS", "100"))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 10 * ROUNDS)]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with sandbox_at(tmp_path, "--latency-ms", "20") as running:
        yield running


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        yield made


async def test_stops_with_a_backlog_lose_nothing_and_send_nothing_twice(
    place: Place, sandbox: Sandbox, say: Say
) -> None:
    await stop_again_and_again(place, sandbox, ROUNDS, SEED, say)


async def test_reloads_refuse_nobody_and_lose_nothing(place: Place, sandbox: Sandbox, say: Say) -> None:
    await reload_again_and_again(place, sandbox, ROUNDS, SEED, say)


async def test_stalls_lose_nothing_and_make_up_for_nothing(place: Place, sandbox: Sandbox, say: Say) -> None:
    await stall_again_and_again(place, sandbox, max(1, ROUNDS // 10), SEED, say)
