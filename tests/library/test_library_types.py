"""What a type checker knows of the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".mypy_cache" / "library"
"""Kept beside that of `make types`: what has not changed since the last run is not read again."""

PROGRAM = """
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_type

from engine import Config, Engine, Overloaded, ProfileEvent, Receipt
from engine import Enigne  # type: ignore[attr-defined]
from engine.testing.destination import FakeDestination


async def program(config: Config) -> None:
    async with Engine(config, destinations={"crm": FakeDestination()}) as rainfocus:
        assert_type(rainfocus, Engine)
        try:
            receipt = await rainfocus.submit([ProfileEvent(email="lea@example.com")], source="crm")
        except Overloaded as error:
            assert_type(error.retry_after_seconds, float)
            return
        assert_type(receipt, Receipt)
        assert_type(receipt.accepted, int)
        assert_type(await receipt.settled(timeout=5), dict[str, dict[str, int]] | None)
        assert_type(rainfocus.readiness(), list[str])
        await rainfocus.submit("lea@example.com")  # type: ignore[arg-type]
        await rainfocus.submit([], lane=1)  # type: ignore[arg-type]
        ProfileEvent(emial="lea@example.com")  # type: ignore[call-arg]
        Engine(config, destinations={"crm": object()})  # type: ignore[dict-item]


@asynccontextmanager
async def lifespan(rainfocus: Engine) -> AsyncIterator[None]:
    async with rainfocus.lifespan(object()):
        yield
"""


def test_a_checker_sees_the_types_and_finds_what_is_wrong(tmp_path: Path) -> None:
    """Strict mode complains of an ignore that was not needed: each one above is a mistake that must be seen."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    examples = sorted(str(path) for path in (ROOT / "examples").glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(program), *examples]
    environment = {**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(CACHE)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "engine" / "py.typed").exists()
