"""One run from start to end: the machine, the instrument, the scenarios, the result."""

from __future__ import annotations

import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import aiohttp

from benchmarks import cores
from benchmarks.bench import Bench, Options, tell
from benchmarks.processes import ROOT, Failed, folder
from benchmarks.result import Run, Subject
from benchmarks.scenarios.registry import Scenario
from benchmarks.sinks import generator_process, sink_process
from benchmarks.systems import Unavailable
from benchmarks.variant import BadFragment, Variant
from engine.bench.machine import machine

EXPECTED = (Failed, Unavailable, BadFragment, OSError)
"""What keeps a scenario from being measured, and no others."""

PACKAGES = ("aiohttp", "aiolimiter", "httptools", "msgspec", "orjson", "uvloop")


@asynccontextmanager
async def instrument(options: Options, system_cores: int) -> AsyncIterator[Bench]:
    """Sink and generator started and pinned."""
    chosen = cores.choose(system_cores)
    timeout = aiohttp.ClientTimeout(total=600)
    with (
        folder(options.directory) as directory,
        sink_process(directory, chosen.instrument) as sink,
        generator_process(directory, chosen.instrument) as generator,
    ):
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Bench(options, session, directory, chosen, sink, generator)


async def run(
    scenarios: Sequence[Scenario],
    variants: Sequence[Variant],
    options: Options,
    *,
    kind: Literal["run", "compare", "soak", "sizing"] = "run",
    system_cores: int = 1,
) -> Run:
    """Raises Failed when the instrument itself does not start; what a scenario cannot measure is in its result."""
    started = time.monotonic()
    async with instrument(options, system_cores) as bench:
        found = new_run(kind, bench)
        for scenario in scenarios:
            tell(scenario.name)
            found.subjects += await measured(bench, scenario, variants)
    found.seconds = round(time.monotonic() - started, 1)
    return found


async def measured(bench: Bench, scenario: Scenario, variants: Sequence[Variant]) -> list[Subject]:
    try:
        return await scenario.measure(bench, variants)
    except EXPECTED as error:
        return [out_of_reach(scenario, error)]
    except ExceptionGroup as group:  # of tasks that run beside each other
        expected, others = group.split(EXPECTED)
        if expected is None or others is not None:
            raise
        return [out_of_reach(scenario, _first(expected))]


def out_of_reach(scenario: Scenario, error: Exception) -> Subject:
    return Subject(scenario=scenario.name, system="engine", status="not measured", reason=str(error))


def _first(group: ExceptionGroup[Exception]) -> Exception:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, ExceptionGroup) else inner


def new_run(kind: Literal["run", "compare", "soak", "sizing"], bench: Bench) -> Run:
    options = bench.options
    settings = {name: getattr(options, name) for name in ("seconds", "warm_up_seconds", "repeats", "connections")}
    return Run(
        kind=kind,
        machine=machine(bench.directory),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=_version("rainfocus-engine"),
        commit=commit(ROOT),
        versions={name: _version(name) for name in PACKAGES if _version(name)},
        settings=settings | {"cores": bench.cores.line(), "loads": ", ".join(f"{it:.0%}" for it in options.loads)},
    )


def commit(root: Path) -> str:
    """Of a checkout; "+" behind it where files differ from it, "" where there is none."""
    with suppress(OSError, subprocess.CalledProcessError):
        arguments = ["git", "-C", str(root), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
