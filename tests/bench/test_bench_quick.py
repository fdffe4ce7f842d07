"""The instrument with real processes, as short as it can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.result import Run, read

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.process, pytest.mark.timeout(170)]


def run(arguments: list[str], tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], Run | None]:
    """In an empty folder, which has to be empty again."""
    work, out = tmp_path / "work", tmp_path / "result.json"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--quick", "--dir", str(work), "--json", str(out)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=160,
    )
    assert list(work.iterdir()) == []
    return done, read(out) if out.exists() else None


def test_traffic_is_measured_end_to_end(tmp_path: Path) -> None:
    done, found = run(["run", "array-10", "single-1", "aep", "--no-peers", "--html", "page.html"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert found is not None
    assert set(found.scenarios()) == {"single-1", "array-10", "aep"}
    for subject in found.subjects:
        assert subject.status == "ok", subject.reason
        (phase,) = subject.saturation
        assert phase.stored_profiles == phase.events > 0
        assert phase.failed == 0
        assert phase.cpu_us_per_event
        for load in subject.loads:
            assert load.status == "not measured" or (load.delivered and load.delivered.count == load.events)
    assert "array-10" in (tmp_path / "page.html").read_text()


def test_people_that_come_again_are_delivered_in_fewer_profiles(tmp_path: Path) -> None:
    done, found = run(["run", "repeats-99"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert found is not None
    (phase,) = found.subjects[0].saturation
    assert phase.stored_profiles < phase.events


@pytest.mark.parametrize(
    ("names", "figure"),
    [
        (["memory", "--size", "5000"], "overhead_bytes_per_profile"),
        (["limit-100-1"], "windows_over"),
        (["recovery", "--size", "2000"], "first_dispatch_seconds"),
        (["fleet", "--size", "2000"], "exponent_of_cpu_us_per_event"),
        (["growth", "--size", "10000"], "cpu_us_per_event"),
        (["outage", "--size", "2"], "caught_up_after_seconds"),
        (["backfill", "--size", "5000"], "p99_beside_over_alone"),
        (["floors"], "sum_of_parts_100_cpu_us_per_event"),
    ],
    ids=lambda it: it[0] if isinstance(it, list) else "",
)
def test_every_scenario_of_its_own_ends_by_itself(names: list[str], figure: str, tmp_path: Path) -> None:
    done, found = run(["run", *names], tmp_path)
    assert done.returncode == 0, done.stderr
    assert found is not None
    assert [it.reason for it in found.subjects if it.status != "ok"] == []
    assert figure in found.subjects[-1].figures


def test_two_variants_are_compared_in_turns(tmp_path: Path) -> None:
    arguments = ["compare", "array-10", "--a", "journal.kind=sqlite", "--b", "journal.kind=memory", "--repeats", "2"]
    done, found = run(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert found is not None
    assert [(it.system, len(it.measured)) for it in found.subjects] == [("a", 2), ("b", 2)]


def test_what_cannot_start_has_a_reason_and_no_figure(tmp_path: Path) -> None:
    done, found = run(["run", "array-10", "--no-peers", "--variant", "journal.kind=kafka"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert found is not None
    (subject,) = found.subjects
    assert subject.status == "not measured"
    assert "Kafka" in subject.reason
    assert subject.saturation == []
    assert "Not measured" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "arry-10"], "arry-10"),
        (["run", "--variant", "x"], "'x'"),
        (["run", "fleet", "--size", "99"], "too small for 'fleet': at least 100 deliveries"),
    ],
)
def test_a_slip_is_named_before_anything_starts(arguments: list[str], said: str, tmp_path: Path) -> None:
    done, found = run(arguments, tmp_path)
    assert (done.returncode, found) == (2, None)
    assert said in done.stderr
