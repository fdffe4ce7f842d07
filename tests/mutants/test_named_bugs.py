"""A test that cannot fail is a defect: with each of these bugs put into the engine, the tests named beside it fail.

Beyond what tests/simulation/test_seeded_bugs.py finds: here are the bugs that need a real file, a real socket or one
exact moment to be seen. `python -m pytest -m mutants tests/mutants` prints the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sown import BUGS

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.mutants, pytest.mark.timeout(300)]


def ends_of(tests: set[str], report: Path, bug: str = "") -> dict[str, str]:
    """How each test ends, by node id: "passed", "broken" (its promise is), or "error: …"."""
    environment = os.environ | {
        "MUTANT": bug,
        "MUTANT_REPORT": str(report),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
    }
    patience = ["--timeout", "20"] if bug else []  # an engine that hangs is caught as well
    command = [sys.executable, "-m", "pytest", "-q", "-p", "sown", "--hypothesis-profile=mutants", *patience]
    done = subprocess.run(
        [*command, *sorted(tests)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert report.exists(), done.stdout[-3_000:] + done.stderr[-3_000:]
    found: dict[str, str] = json.loads(report.read_text())
    return found


def worst(ends: dict[str, str], test: str) -> str:
    """Of all its parameters."""
    mine = {end for node, end in ends.items() if node.partition("[")[0] == test}
    return next((end for kind in ("broken", "error", "passed") for end in mine if end.startswith(kind)), "not run")


@pytest.mark.parametrize("name", BUGS)
def test_the_bug_is_caught(name: str, tmp_path: Path) -> None:
    bug = BUGS[name]
    ends = ends_of(set(bug.tests), tmp_path / "report", name)
    seen = {test: worst(ends, test) for test in bug.tests}
    assert set(seen.values()) == {"broken"}, f"{name} is not caught: {seen}"


def test_without_a_bug_the_same_tests_pass(tmp_path: Path) -> None:
    tests = {test for bug in BUGS.values() for test in bug.tests}
    ends = ends_of(tests, tmp_path / "report")
    assert {test: worst(ends, test) for test in tests} == dict.fromkeys(tests, "passed")
