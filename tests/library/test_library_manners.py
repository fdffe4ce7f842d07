"""What the engine leaves alone in the process that it is a guest of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import engine as front_door
from engine import Config, DataDirectoryError, Engine
from engine.testing.destination import FakeDestination

Run = Callable[[Callable[[], object]], None]
ROOT = Path(__file__).resolve().parents[2]

GUEST = """
import asyncio, json, logging, os, signal, sys, threading, warnings
from pathlib import Path


def numbers():
    return [it for it in signal.valid_signals() if it not in (signal.SIGKILL, signal.SIGSTOP)]


def wakeup():
    number = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(number)
    return number


async def seen():
    loop = asyncio.get_running_loop()
    return {
        "signals": [signal.getsignal(it) for it in numbers()],
        "wakeup": wakeup(),
        "handler": repr(loop.get_exception_handler()),
        "root": [logging.root.level, repr(logging.root.handlers), logging.root.disabled, logging.raiseExceptions],
        "engine": [logging.getLogger("engine").level, repr(logging.getLogger("engine").handlers)],
        "warnings": repr(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": os.umask(0o022) and None,
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
        "hook": repr(sys.excepthook),
        "policy": repr(type(asyncio.get_event_loop_policy())),
        "tasks": len(asyncio.all_tasks()),
    }


async def main():
    from engine import Config, Engine
    from engine.testing.destination import FakeDestination

    before = await seen()
    config = Config.from_dict({"destination": [{"name": "crm"}]}, base=Path(sys.argv[1]))
    rainfocus = Engine(config, destinations={"crm": FakeDestination()})
    async with rainfocus:
        during = await seen()
        await (await rainfocus.submit([{"email": "lea@example.com"}])).settled(timeout=20)
    after = await seen()
    threads = [it.name for it in threading.enumerate() if it is not threading.main_thread() and not it.daemon]
    during["tasks"] = before["tasks"]  # its own run while it runs
    found = [key for key in before if not before[key] == during[key] == after[key]]
    # Threads of the loop's own pools end with the loop.
    print(json.dumps({"changed": found, "threads": [it for it in threads if not it.startswith(("AnyIO", "asyncio_"))]}))


asyncio.run(main())
"""


def test_no_signal_handler_no_logging_setup_no_thread_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", GUEST, str(tmp_path)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"changed": [], "threads": []}


def test_constructing_needs_no_loop_and_touches_nothing(tmp_path: Path) -> None:
    rainfocus = Engine(Config.from_dict({}, base=tmp_path))
    assert "not running" in repr(rainfocus)
    assert rainfocus.readiness() == ["starting"]
    assert list(tmp_path.iterdir()) == []


def test_two_engines_in_one_process_share_nothing(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        one, other = FakeDestination(), FakeDestination()
        first = Engine(_config(tmp_path / "one"), destinations={"crm": one})
        second = Engine(_config(tmp_path / "other"), destinations={"crm": other})
        async with first, second:
            a = await first.submit([{"email": "lea@example.com"}])
            b = await second.submit([{"email": "ivar@example.com"}, {"email": "kari@example.com"}])
            await a.settled(timeout=20)
            await b.settled(timeout=20)
            assert b"engine_events_accepted_total 1.0" in first.metrics.render()
            assert b"engine_events_accepted_total 2.0" in second.metrics.render()
        assert one.stored.keys() == {"lea@example.com"}
        assert other.stored.keys() == {"ivar@example.com", "kari@example.com"}

    run(main)


def test_two_engines_cannot_share_a_data_directory(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(_config(tmp_path), destinations={"crm": FakeDestination()}):
            second = Engine(_config(tmp_path), destinations={"crm": FakeDestination()})
            with pytest.raises(DataDirectoryError, match=str(os.getpid())):
                await second.__aenter__()

    run(main)


def _config(folder: Path) -> Config:
    folder.mkdir(exist_ok=True)
    return Config.from_dict({"destination": [{"name": "crm", "batch": {"linger_ms": 0}}]}, base=folder)


def test_the_front_door_names_everything_it_offers() -> None:
    for name in front_door.__all__:
        assert getattr(front_door, name).__name__ == name
    assert dir(front_door) == sorted(front_door.__all__)
    with pytest.raises(AttributeError, match="nobody"):
        front_door.nobody  # type: ignore[attr-defined]  # noqa: B018
