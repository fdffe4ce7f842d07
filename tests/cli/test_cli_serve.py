"""`serve`: signals, reloading, and what it says."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from engine.cli import serve
from engine.config import Config
from engine.errors import ConfigError, DataDirectoryError, StorageFailed

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]

# A service that starts at once, drains when told to (for ever, if the environment says so), and reports by its output.
PROGRAM = """
import asyncio, sys
from types import ModuleType

class Service:
    def __init__(self, config, *, spawn):
        self.urls = {"ingress": "http://127.0.0.1:8080", "admin": "http://127.0.0.1:8081"}
        self.told = asyncio.Event()
    async def __aenter__(self):
        return self
    async def __aexit__(self, *_):
        pass
    def stop(self):
        print("draining", flush=True)
        if sys.argv[-1] != "stuck":
            self.told.set()
    async def stopped(self):
        await self.told.wait()
    def reload(self, config):
        print("reloaded", config.log.level, flush=True)
        return ["journal.kind needs a restart"]

module = ModuleType("engine.assembly.service")
module.Service = Service
sys.modules["engine.assembly.service"] = module
from engine.cli.app import app
app(["serve", "--json"])
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        (tmp_path / "config.toml").write_text("[log]\nlevel = 'info'\n")
        environment = {name: it for name, it in os.environ.items() if not name.startswith("RAINFOCUS")}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_ends_with_0(start: Callable[..., Any], number: signal.Signals) -> None:
    process = start()
    assert json.loads(line(process)) == {
        "pid": process.pid,
        "urls": {"ingress": "http://127.0.0.1:8080", "admin": "http://127.0.0.1:8081"},
        "destinations": {"demo": "http://127.0.0.1:8484/api/demo/v3/attendee/store"},
    }
    process.send_signal(number)
    assert line(process) == "draining"
    assert process.wait(20) == 0


@pytest.mark.process
def test_a_second_signal_ends_it_at_once_with_1(start: Callable[..., Any]) -> None:
    process = start("stuck")
    line(process)
    process.send_signal(signal.SIGTERM)
    assert line(process) == "draining"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1


@pytest.mark.process
def test_a_hangup_reloads_and_a_bad_file_changes_nothing(start: Callable[..., Any], tmp_path: Path) -> None:
    process = start()
    line(process)
    (tmp_path / "config.toml").write_text("[log]\nlevel = 'loud'\n")
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    refused = json.loads(process.stderr.readline())
    assert refused["level"] == "error"
    assert "log.level" in refused["message"]
    (tmp_path / "config.toml").write_text("[log]\nlevel = 'debug'\n")
    process.send_signal(signal.SIGHUP)
    assert line(process) == "reloaded debug"
    assert json.loads(process.stderr.readline())["message"] == "journal.kind needs a restart"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


class Failing:
    """A service that does not start, or fails while it runs."""

    error: Exception
    urls = {"ingress": "http://127.0.0.1:8080"}  # noqa: RUF012 - a fake

    def __init__(self, config: Config, *, spawn: object) -> None:
        pass

    async def __aenter__(self) -> Failing:
        if isinstance(self.error, DataDirectoryError):
            raise self.error
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        pass

    async def stopped(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [DataDirectoryError("var belongs to a running engine (process 7 on here)"), StorageFailed("the disk fails")],
)
def test_what_ends_it_is_said_in_one_sentence_with_exit_1(
    run: Run, fake_module: Callable[..., None], config_file: Callable[..., Path], error: Exception
) -> None:
    fake_module("engine.assembly.service", Service=type("Service", (Failing,), {"error": error}))
    config_file()
    result = run("serve")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"error: {error}"
    assert "Traceback" not in result.stderr


def test_a_defect_is_logged_with_its_place_and_without_people(
    run: Run, fake_module: Callable[..., None], config_file: Callable[..., Path]
) -> None:
    error = TypeError("lea@example.com is odd")
    fake_module("engine.assembly.service", Service=type("Service", (Failing,), {"error": error}))
    config_file()
    result = run("serve")
    assert result.exit_code == 1
    logged = json.loads(result.stderr.splitlines()[0])
    assert "TypeError" in logged["exception"]
    assert "lea@" not in result.stderr


class Reloading:
    def __init__(self) -> None:
        self.taken: list[str] = []

    def reload(self, config: Config) -> list[str]:
        if config.log.level == "error":
            raise ConfigError(["ingress.keys[0]: the secret is gone"])
        self.taken.append(config.log.level)
        return []


def test_the_log_level_follows_only_what_the_service_took() -> None:
    service = Reloading()
    logging.getLogger().setLevel(logging.INFO)
    serve.reload(service, lambda: Config.from_dict({"log": {"level": "error"}}))  # type: ignore[arg-type]
    assert (service.taken, logging.getLogger().level) == ([], logging.INFO)
    serve.reload(service, lambda: Config.from_dict({"log": {"level": "debug"}}))  # type: ignore[arg-type]
    assert (service.taken, logging.getLogger().level) == (["debug"], logging.DEBUG)


def test_a_signal_that_comes_while_it_starts_is_not_forgotten() -> None:
    stopping, stopped = serve.Stopping(), list[bool]()
    stopping.ask()
    assert stopped == []
    stopping.when_asked(lambda: stopped.append(True))
    assert stopped == [True]


def test_it_begins_by_saying_where_everything_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """Resolved, as a URL is made of a template, an environment and an org id (U-1)."""
    hook = {"name": "hook", "url": "https://hook.example/x", "secret": "A" * 32}
    config = Config.from_dict({"account": [{"org_id": "a/b"}], "forward": [hook]})
    serve._announce({"ingress": "http://127.0.0.1:8080"}, serve.destinations_of(config), False)
    assert capsys.readouterr().out.splitlines() == [
        "ingress  http://127.0.0.1:8080",
        "demo -> http://127.0.0.1:8484/api/a%2Fb/v3/attendee/store",
        "hook -> https://hook.example/x",
    ]


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: it cannot be undone."""
    script = "from engine.cli.serve import keep_freed_memory; print(keep_freed_memory())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    assert said == f"{os.confstr('CS_GNU_LIBC_VERSION') is not None}\n"
    monkeypatch.setattr(serve.ctypes, "CDLL", lambda name: object())
    assert serve.keep_freed_memory() is False
