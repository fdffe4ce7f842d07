"""Two engines in turns: variants of the configuration, or this checkout against another commit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.bench import Options, tell
from benchmarks.processes import ROOT, Failed, folder, run_async
from benchmarks.result import Ratio, Run, ratio
from benchmarks.scenarios.registry import Scenario
from benchmarks.session import run
from benchmarks.variant import Variant

NAMES = ("array-1", "array-10", "array-100")
PAIRS = 5
TOLERATED = 1.03
"""A ratio of CPU per event up to this is no regression, however sure it is."""


async def compare(scenarios: Sequence[Scenario], variants: Sequence[Variant], options: Options, cores: int) -> Run:
    """Throughput and cost only: A B A B …, without peers."""
    pairs = options.repeats if options.repeats != Options().repeats else PAIRS
    chosen = msgspec.structs.replace(options, peers=False, loads=(), repeats=pairs)
    return await run(scenarios, variants, chosen, kind="compare", system_cores=cores)


def against(base: str, scenarios: Sequence[Scenario], options: Options, cores: int) -> Run:
    """Raises Failed when there is no such commit or it cannot be installed."""
    with folder(options.directory) as directory, checkout(base, directory / "base") as tree:
        variants = [
            Variant(name="base", root=tree, python=environment(tree, directory / "venv")),
            Variant(name="head"),
        ]
        return run_async(compare(scenarios, variants, options, cores))  # type: ignore[no-any-return]


@contextmanager
def checkout(revision: str, tree: Path) -> Iterator[Path]:
    """A work tree of its own for a commit, taken away afterwards."""
    _git("worktree", "add", "--detach", str(tree), revision, why=f"there is no commit {revision!r} here")
    try:
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree), why="the work tree could not be removed")


def environment(tree: Path, place: Path) -> str:
    """Its own Python environment with what that commit needs; the path of its python."""
    tell("installing what the base needs")
    python = place / "bin" / "python"
    for arguments in (
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", str(tree)],
    ):
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"the base could not be installed: {done.stderr.strip()[-500:]}")
    return str(python)


def _git(*arguments: str, why: str) -> None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{why}: {done.stderr.strip()[-300:]}")


def verdict(found: Run) -> int:
    """Prints a line a scenario; 1 when one is slower, or could not be measured."""
    bad = 0
    for scenario in found.scenarios():
        base, head = found.subject(scenario, "base"), found.subject(scenario, "head")
        if base is None or head is None or (cost := ratio(head, base)) is None:
            print(f"✘ {scenario}: not measured, so nothing is known")
            bad += 1
            continue
        worse = regression(cost)
        bad += worse
        print(f"{'✘' if worse else '✔'} {scenario}: CPU per event {cost.middle:.3f} x the base ({spread(cost)})")
    return 1 if bad else 0


def regression(cost: Ratio) -> bool:
    """Beyond the noise: every pair says so, and the middle one by more than is tolerated."""
    return cost.lowest > 1.0 and cost.middle > TOLERATED


def spread(cost: Ratio) -> str:
    return f"{cost.lowest:.3f} to {cost.highest:.3f} in {cost.pairs} pairs"
