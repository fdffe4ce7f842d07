"""Sandbox, engine and peers as processes of their own, stopped by their id; their folders go with them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS, STOP_SECONDS = 60.0, 20.0


class Failed(Exception):
    """A process did not start, or said something else than expected."""


class Running(msgspec.Struct, frozen=True):
    """A process that has announced itself with one line of JSON."""

    pid: int
    said: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.said["url"] if "url" in self.said else self.said["urls"]["ingress"])


@contextmanager
def running(arguments: Sequence[str], log: Path) -> Iterator[Running]:
    """``python ARGUMENTS``, from its announcement until the block ends. Its stderr goes to `log`. Raises Failed."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, env=_environment(), cwd=log.parent
        )
    try:
        yield Running(process.pid, _announcement(process, log))
    finally:
        _stop(process)


def _environment() -> dict[str, str]:
    """The engine of this checkout, and no proxy between its parts."""
    return os.environ | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1,localhost"}


def _announcement(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    overdue = threading.Timer(START_SECONDS, process.kill)
    overdue.start()
    try:
        line = process.stdout.readline()
    finally:
        overdue.cancel()
    try:
        said: dict[str, Any] = msgspec.json.decode(line)
    except msgspec.DecodeError:
        tail = log.read_text(errors="replace")[-2000:].strip() or "it said nothing"
        raise Failed(f"a process did not start: {tail}") from None
    return said


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    stdout: IO[bytes] | None = process.stdout
    if stdout is not None:
        stdout.close()


@contextmanager
def folder(parent: str | None) -> Iterator[Path]:
    """A folder of its own below `parent` (None: where the system keeps temporary ones), removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rainfocus-engine-bench-", dir=parent, ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextmanager
def sandbox(directory: Path, *options: str) -> Iterator[Running]:
    arguments = ["-m", "engine.sandbox", "--port", "0", "--json", "--log-size", "100", *options]
    with running(arguments, directory / "sandbox.log") as it:
        yield it


@contextmanager
def engine(directory: Path, config: str) -> Iterator[Running]:
    """With `config` as its config.toml and its data below `directory`."""
    directory.mkdir(exist_ok=True)
    file = directory / "config.toml"
    file.write_text(config, encoding="utf-8")
    arguments = ["-m", "engine", "serve", "--config", str(file), "--json"]
    with running(arguments, directory / "engine.log") as it:
        yield it


CONFIG = """\
[ingress]
port = 0

[journal]
max_bytes = 20_000_000_000

[ledger]
enabled = {ledger}

[[account]]
name = "bench"
environment = "sandbox"
base_url = "{sandbox}"

[account.rate]
requests_per_second = {rate}
burst = {burst}
max_concurrency = {concurrency}

[[destination]]
name = "bench"
event_code = "bench"
encoding = "{encoding}"

[destination.batch]
max_profiles = {batch}
linger_ms = {linger_ms}

[log]
level = "warning"
format = "console"
"""


def config_text(
    sandbox: str,
    *,
    encoding: str = "single",
    ledger: bool = True,
    rate: float = 50_000.0,
    burst: int = 500,
    concurrency: int = 32,
    batch: int = 100,
    linger_ms: int = 20,
) -> str:
    """One destination at the sandbox, and a limit of `rate` requests a second, which is none to speak of."""
    return CONFIG.format(
        sandbox=sandbox,
        encoding=encoding,
        ledger=str(ledger).lower(),
        rate=rate,
        burst=burst,
        concurrency=concurrency,
        batch=batch,
        linger_ms=linger_ms,
    )


def run_async(main: Any) -> Any:
    """On uvloop where that is installed."""
    with suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    return asyncio.run(main)
