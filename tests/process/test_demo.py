"""The demo does what the README says of it, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process


def test_the_demo_proves_that_the_sandbox_holds_the_fold_of_the_file(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "engine",
        "demo",
        "--json",
        "--rate",
        "2000",
        "--directory",
        str(tmp_path / "demo"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert report["same"] == report["attendees"] == 2_200
    assert report["sent"]["accepted"] == report["audit"]["destinations"]["demo"]["accepted"] == 2_984
    assert report["stats"]["regressions"] == 0
    assert sum(report["stats"]["by_fault"].values()) > 0, "a demo without faults proves little"


def test_the_demo_deletes_no_folder_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    command = [sys.executable, "-m", "engine", "demo", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "not a folder of the demo" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
