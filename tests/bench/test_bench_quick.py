"""The canonical workload with real processes, as short as it can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.bench.results import Report

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.process, pytest.mark.timeout(170)]


def run(arguments: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=160
    )


def test_the_quick_run_measures_every_part_and_leaves_nothing_behind(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "report.json"
    work.mkdir()
    done = run(["benchmarks", "--quick", "--dir", str(work), "--json", str(out)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Targets" in done.stdout
    assert list(work.iterdir()) == []
    report = msgspec.json.decode(out.read_bytes(), type=Report)
    assert {(it.encoding, it.events_per_request) for it in report.cells} == {
        (encoding, n) for encoding in ("single", "array") for n in (1, 10, 100)
    }
    for cell in report.cells:
        assert cell.events > 0
        assert cell.failed == 0
        assert all(it.delivered is not None and it.delivered.count > 0 for it in cell.latencies)
    assert report.floors.bare_post_us
    assert report.peers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["benchmarks.memory", "--profiles", "5000", "--end-to-end", "5000"], "overhead"),
        (["benchmarks.rate", "--rates", "100", "--seconds", "1"], "windows over"),
        (["benchmarks.recovery", "--events", "2000"], "first dispatch"),
    ],
)
def test_each_script_ends_by_itself_and_removes_its_folder(arguments: list[str], said: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    done = run([*arguments, "--dir", str(work)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert list(work.iterdir()) == []
