"""What is shown of a result: on a page, in the README; nothing is shown that was not measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import check, figures, html
from benchmarks.figures import RESULTS
from benchmarks.result import Phase, Quantiles, Run, Subject, read, write
from benchmarks.tables import tables
from benchmarks.targets import targets
from engine.bench.machine import Machine


def phase(cost: float, speed: float, **more: object) -> Phase:
    quantiles = Quantiles(1.0, 2.0, 3.0, 4.0, 100)
    return Phase(cpu_us_per_event=cost, events_per_second=speed, ack=quantiles, delivered=quantiles, **more)  # type: ignore[arg-type]


def subject(scenario: str, system: str, cost: float) -> Subject:
    loads = [phase(cost * 1.2, 300, share=share, offered_per_second=300) for share in (0.3, 0.6, 0.9)]
    saturation = [phase(cost, 1e6 / cost), phase(cost * 1.1, 1e6 / cost)]
    return Subject(scenario=scenario, system=system, saturation=saturation, loads=loads)


@pytest.fixture
def run() -> Run:
    floors = {"sum_of_parts_10_cpu_us_per_event": 4.0, "fdatasync_p50_ms": 0.3}
    sizes = [
        Subject(scenario="growth", system=f"{size}", figures={"size": size, "cpu_us_per_event": 20.0})
        for size in (1e4, 1e5)
    ]
    return Run(
        kind="run",
        machine=Machine("CPU <of> a test", 2, 1 << 30, "Linux", "CPython", "ext4", 0.5),
        at="2026-01-01T00:00:00+00:00",
        version="0",
        commit="abc",
        subjects=[
            Subject(scenario="floors", system="floors", figures=floors),
            subject("array-10", "engine", 20.0),
            subject("array-10", "queue-batcher", 40.0),
            Subject(scenario="array-10", system="Pathway", status="not measured", reason="it could not be installed"),
            *sizes,
        ],
    )


def test_a_result_survives_its_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "one" / "result.json"
    write(run, file)
    assert read(file) == run


def test_a_page_needs_nothing_from_anywhere_else(run: Run) -> None:
    page = html.page(run)
    assert not re.findall(r"(?:src|href|url)\s*[=(]|@import|<script|https?://", page)
    assert "CPU &lt;of&gt; a test" in page
    assert page.count("<svg") >= 4


def test_what_was_not_measured_is_named_with_its_reason_and_has_no_number(run: Run) -> None:
    shown = {table.title: table for table in tables(run)}
    assert ("array-10", "Pathway", "everything", "it could not be installed") in shown["Not measured"].rows
    assert not any("Pathway" in row for row in shown["Closed loop: as fast as it goes"].rows)
    assert "it could not be installed" in html.page(run)


def test_targets_are_held_against_floors_of_the_same_run(run: Run) -> None:
    found = {it.what: it for it in targets(run)}
    assert found["array, n=10: CPU per event / sum of its parts alone"].found == pytest.approx(21.0 / 4.0)
    assert found["array, n=1: CPU per event"].met is None


def test_a_limit_that_was_exceeded_is_a_target_missed_unless_the_sink_was_held_up() -> None:
    figures = {"allowed_requests_per_second": 10.0, "used_percent": 99.5, "windows_over": 2.0}
    base = Run(kind="run", machine=Machine("", 2, 0, "", "", "", 0.0), at="", version="", commit="")
    base.subjects = [Subject(scenario="utilisation", system="engine, 10/s", figures=figures)]
    assert [(it.what, it.met) for it in targets(base)][-2:] == [
        ("limit of 10/s: requests not used", True),
        ("limit of 10/s: windows over it", False),
    ]
    base.subjects[0].notes.append("the sink was held up")
    assert not any("windows over" in it.what for it in targets(base))


def test_the_gate_fails_for_a_slower_head_and_for_what_was_not_measured(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.subjects = [subject("array-10", "base", 20.0), subject("array-10", "head", 20.0)]
    assert check.verdict(run) == 0
    run.subjects = [subject("array-10", "base", 20.0), subject("array-10", "head", 22.0)]
    assert check.verdict(run) == 1
    assert "1.100 x the base" in capsys.readouterr().out
    run.subjects[1] = Subject(scenario="array-10", system="head", status="not measured", reason="it did not start")
    assert check.verdict(run) == 1
    assert "not measured" in capsys.readouterr().out


def test_figures_stand_between_their_marks_and_nothing_else_is_touched(run: Run) -> None:
    text = "before\n<!-- figures: main -->\nold\n<!-- end of figures -->\nafter\n"
    found = [figures.Found("x.json", run)]
    made = figures.filled(text, found)
    assert made.startswith("before\n<!-- figures: main -->\n| ")
    assert made.endswith("<!-- end of figures -->\nafter\n")
    assert "old" not in made
    assert "| queue-batcher, CPU over the engine's | - | 2.00 × | - |" in made
    assert figures.filled(made, found) == made


@pytest.mark.parametrize(("name", "said"), [("nonsense", "no figures 'nonsense'"), ("limit", "scenario 'freshness'")])
def test_figures_that_cannot_be_made_are_an_error(run: Run, name: str, said: str) -> None:
    text = f"<!-- figures: {name} -->\n<!-- end of figures -->"
    with pytest.raises(ValueError, match=said):
        figures.filled(text, [figures.Found("x.json", run)])


@pytest.mark.parametrize("page", figures.PAGES, ids=lambda it: it.name)
def test_pages_say_what_the_results_say(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "<!-- figures:" in text
    assert figures.filled(text, figures.results([])) == text


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda it: it.name)
def test_every_result_that_is_kept_can_be_read_and_is_of_a_commit(file: Path) -> None:
    found = read(file)
    assert found.commit
    assert found.subjects
