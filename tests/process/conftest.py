"""One sandbox a test, in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import Sandbox, sandbox_at


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with sandbox_at(tmp_path, "--latency-ms", "20") as running:
        yield running
