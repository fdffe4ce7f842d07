"""The pytest plugin, as a project that embeds the engine sees it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import engine.testing

ROOT = Path(__file__).parents[2]

TESTS = """
async def test_what_is_submitted_is_stored(rainfocus_engine, rainfocus_destination):
    receipt = await rainfocus_engine.submit([{"email": "lea@example.com", "city": "Lille"}])
    assert await receipt.settled(timeout=5)
    assert rainfocus_destination.stored["lea@example.com"]["city"] == "Lille"

async def test_a_script_decides_what_the_destination_answers(rainfocus_engine, rainfocus_destination):
    from engine.testing import Step, reject

    rainfocus_destination.script.append(Step(reject("response_code_103")))
    receipt = await rainfocus_engine.submit([{"email": "lea@example.com"}])
    counts = await receipt.settled(timeout=5)
    assert counts["rainfocus"]["dead_lettered"] == 1

async def test_every_test_begins_with_an_empty_destination(rainfocus_engine, rainfocus_destination):
    assert rainfocus_destination.requests == []
"""
BATTERY = """
from engine.adapters.memory_journal import MemoryJournal
from engine.testing import JournalContract

class Forgetful(MemoryJournal):
    async def append(self, appends, /):
        return self._next

class TestForgetful(JournalContract):
    def make(self, directory, max_bytes):
        return Forgetful(max_bytes=max_bytes)
"""


def run_pytest(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with the plugin as an installation would load it."""
    installed = entry_points(group="pytest11", name="rainfocus_engine")
    plugin = [] if installed else ["-p", "engine.testing.plugin"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *plugin, *options, str(directory)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def test_the_fixtures_work_under_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    done = run_pytest(
        tmp_path, "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function", "-W", "error"
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_fixtures_work_under_anyio(tmp_path: Path) -> None:
    mark = 'import pytest\npytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend(): return "asyncio"\n'
    (tmp_path / "test_mine.py").write_text(mark + TESTS)
    done = run_pytest(tmp_path, "-p", "no:asyncio", "-W", "error")
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_battery_runs_without_any_async_plugin_and_says_what_it_compared(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(BATTERY)
    done = run_pytest(tmp_path, "-p", "no:asyncio", "-p", "no:anyio", "-k", "grow_without_gaps")
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "assert 0 == 2" in done.stdout


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    heavy = ("aiohttp", "sqlite3", "engine.assembly", "engine.adapters", "engine.testing.contracts", "pytest_asyncio")
    check = f"import sys, engine.testing.plugin; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fakes_need_no_pytest() -> None:
    check = "import sys; from engine.testing import FakeDestination, run_virtual; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", engine.testing.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(engine.testing, name) is not None
    assert name in dir(engine.testing)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(engine.testing, "Nothing")  # noqa: B009 - the name is checked by the type checker otherwise
