"""Sink, engine, generator and peers as processes of their own, stopped by their id; their folders go with them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from benchmarks.cores import pin

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS, STOP_SECONDS = 60.0, 20.0


class Failed(Exception):
    """A process did not start, or said something else than expected."""


class Running(msgspec.Struct, frozen=True):
    """A process that has announced itself with one line of JSON."""

    process: subprocess.Popen[bytes]
    said: dict[str, Any]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return str(self.said["url"] if "url" in self.said else self.said["urls"]["ingress"])

    def ask(self, line: bytes) -> bytes:
        """One line to its stdin, one from its stdout. Raises Failed when it is gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()
        answer: bytes = self.process.stdout.readline()
        if not answer:
            raise Failed("a process has ended by itself")
        return answer


@contextmanager
def running(
    arguments: Sequence[str],
    log: Path,
    *,
    python: str = sys.executable,
    root: Path = ROOT,
    cores: frozenset[int] = frozenset(),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """``python ARGUMENTS``, from its announcement until the block ends. Its stderr goes to `log`. Raises Failed."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(root) | dict(environment or {}),
            cwd=log.parent,
            preexec_fn=pin(cores),
        )
    try:
        yield Running(process, _announcement(process, log))
    finally:
        stop(process)


def _environment(root: Path) -> dict[str, str]:
    """The engine of that checkout, and no proxy between its parts."""
    return os.environ | {"PYTHONPATH": str(root), "NO_PROXY": "127.0.0.1,localhost"}


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
        raise Failed(f"a process did not start: {tail(log)}") from None
    return said


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:].strip() or "it said nothing"


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        _close(stream)


def _close(stream: IO[bytes] | None) -> None:
    with suppress(BrokenPipeError):
        if stream is not None:
            stream.close()


@contextmanager
def folder(parent: str | None) -> Iterator[Path]:
    """A folder of its own below `parent` (None: where the system keeps temporary ones), removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rainfocus-engine-bench-", dir=parent, ignore_cleanup_errors=True) as path:
        yield Path(path)


def run_async(main: Any) -> Any:
    """On uvloop where that is installed."""
    with suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    return asyncio.run(main)
