"""Mutation testing of the pure core: any small change to it has to fail a test. `make mutants` runs this.

mutmut makes the mutants and runs, for each, the tests of `tests/core` that reach it, in a copy of the tree. A mutant
that survives is either listed in `survivors.toml` with the reason why no test can tell it from the original, or it is
a missing test. A listed one that is killed or gone is reported too, so that the list never grows stale.

    python tests/mutants/mutate.py [--jobs N] [engine/core/FILE.py …]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")
COPIED = ("engine", "tests", "examples", "config.toml", "README.md", "pyproject.toml")
KILLED = ("killed", "timeout", "caught by type check")
MUTATED = """
[tool.mutmut]
source_paths = ["engine"]
only_mutate = {files}
pytest_add_cli_args_test_selection = ["tests/core"]
pytest_add_cli_args = ["--hypothesis-profile=mutants"]
also_copy = ["examples", "config.toml", "README.md"]
"""


class Mutant(NamedTuple):
    """What identifies a mutant however the file around it changes."""

    file: str
    function: str
    was: str
    becomes: str

    def __str__(self) -> str:
        return f"{self.file} {self.function}\n    - {self.was}\n    + {self.becomes}"


def main() -> int:
    """0 when every mutant of the files is killed or listed, and every listed one is there and survives."""
    given = arguments()
    files = given.files or sorted(str(it.relative_to(ROOT)) for it in (ROOT / "engine" / "core").glob("[!_]*.py"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy_tree(Path(directory), files)
        run(directory, "run", "--max-children", str(given.jobs))
        statuses = dict(read_statuses(run(directory, "results", "--all", "true")))
        survived = {
            mutant_of(name, run(directory, "show", name)) for name, status in statuses.items() if status not in KILLED
        }
    return report(files, statuses, survived, {one for one in listed() if one.file in files})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mutation testing of engine/core")
    parser.add_argument("files", nargs="*", help="engine/core/FILE.py; all of engine/core if none is named")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tried at the same time")
    return parser.parse_args()


def copy_tree(directory: Path, files: list[str]) -> None:
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, directory / name)
    with (directory / "pyproject.toml").open("a") as project:
        project.write(MUTATED.format(files=files))


def run(directory: str, *arguments: str) -> str:
    """One command of mutmut in the copy; what it printed. Raises SystemExit with it if it failed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    mutmut = Path(sys.executable).with_name("mutmut")
    done = subprocess.run([mutmut, *arguments], cwd=directory, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"mutmut {arguments[0]} failed:\n{done.stdout[-4_000:]}\n{done.stderr[-4_000:]}")
    return done.stdout


def read_statuses(printed: str) -> Iterator[tuple[str, str]]:
    for line in printed.splitlines():
        name, found, status = line.strip().rpartition(": ")
        if found:
            yield name, status


def mutant_of(name: str, shown: str) -> Mutant:
    """`name`: module.x_function__mutmut_N, or module.xǁClassǁmethod__mutmut_N; `shown`: its diff."""
    module, _, function = name.partition("__mutmut_")[0].rpartition(".")
    function = function.removeprefix("xǁ").removeprefix("x_").replace("ǁ", ".")
    lines = [line for line in shown.splitlines() if not line.startswith(("---", "+++"))]
    was, becomes = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Mutant(module.replace(".", "/") + ".py", function, was, becomes)


def listed() -> Iterator[Mutant]:
    for one in tomllib.loads(SURVIVORS.read_text()).get("survivor", []):
        assert one["why"], "a survivor without a reason is a missing test"
        for becomes in one["becomes"]:
            yield Mutant(one["file"], one["function"], one["was"], becomes)


def report(files: list[str], statuses: dict[str, str], survived: set[Mutant], expected: set[Mutant]) -> int:
    killed = Counter(file_of(name) for name, status in statuses.items() if status in KILLED)
    total = Counter(file_of(name) for name in statuses)
    print(f"{'file':<32} {'killed':>6} {'total':>6} {'equivalent':>11}")
    for file in files:
        equivalent = sum(one.file == file for one in expected & survived)
        print(f"{file:<32} {killed[file]:>6} {total[file]:>6} {equivalent:>11}")
    print(f"{'all':<32} {killed.total():>6} {total.total():>6} {len(expected & survived):>11}")
    for one in sorted(survived - expected):
        print(f"\nSURVIVED, and is not listed: {one}")
    for one in sorted(expected - survived):
        print(f"\nLISTED in survivors.toml, but killed or gone: {one}")
    return int(survived != expected)


def file_of(name: str) -> str:
    return name.rpartition(".")[0].replace(".", "/") + ".py"


if __name__ == "__main__":
    sys.exit(main())
