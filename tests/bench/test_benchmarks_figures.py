"""What is made of measurements: delivery times, ratios, exponents, verdicts, and reasons instead of figures."""

from __future__ import annotations

import os
from array import array
from typing import Any

import pytest

from benchmarks.check import regression
from benchmarks.cores import Cores, split
from benchmarks.generator import Done
from benchmarks.growth import exponent, slope
from benchmarks.judging import APART, arrived, delivery_times, reached
from benchmarks.result import Phase, Quantiles, Ratio, Subject, ratio
from benchmarks.scenarios.limits import freshness, note_stall, usage
from benchmarks.scenarios.sizing import rule
from benchmarks.scenarios.traffic import note_pinning
from benchmarks.shapes import Shape
from benchmarks.sink import Stats
from benchmarks.sinks import Records
from benchmarks.soak import WARM_UP_REQUESTS, Window, fault_of, subject_of, verdicts, warm
from benchmarks.systems import System
from benchmarks.variant import BadFragment, Variant, engine_config, parsed, toml
from engine.bench.histogram import Histogram

QUANTILES = Quantiles(1.0, 2.0, 3.0, 4.0, 100)


def records(*rows: tuple[float, int, int]) -> Records:
    times, people, versions = zip(*rows, strict=True)
    return Records(array("d", times), array("q", people), array("q", versions))


def done(**figures: Any) -> Done:
    nothing = dict.fromkeys(("started_at", "seconds", "cpu_seconds", "ack_total", "ack_longest", "late_p99"), 0.0)
    counts = dict.fromkeys(("requests", "events", "sent", "refused", "failed", "unsent"), 0)
    return Done(**{**nothing, **counts, "ack_counts": {}, **figures})


# -- delivery ---------------------------------------------------------------------------------------------------------


def test_a_delivery_counts_from_the_moment_its_request_was_due() -> None:
    """Ten requests a second, one event each: event 3 was due 0.3 s after the start."""
    seconds = delivery_times(Shape(), records((100.4, 3, 3)), started_at=100.0, requests_per_second=10)
    assert seconds.count == 1
    assert seconds.longest_seconds == pytest.approx(0.1)


def test_an_event_is_delivered_with_a_newer_one_of_its_person_and_only_once() -> None:
    shape = Shape(zipf=True)
    person = shape.person_of(0)
    newest = max(event for event in range(400) if shape.person_of(event) == person)
    mine = sum(1 for event in range(newest + 1) if shape.person_of(event) == person)
    assert mine > 2
    seconds = delivery_times(shape, records((9.0, person, newest), (9.5, person, newest)), 0.0, 1.0)
    assert seconds.count == mine


def test_two_loads_at_once_are_told_apart() -> None:
    mixed = records((1.0, 0, 0), (1.0, APART, APART))
    assert delivery_times(Shape(base=APART), mixed, 0.0, 1.0).count == 1


# -- reasons instead of figures ---------------------------------------------------------------------------------------


def test_a_load_that_was_not_reached_has_a_reason_and_no_figures() -> None:
    phase = reached(Phase(events=900, ack=QUANTILES, delivered=QUANTILES), done(requests=90, sent=95, unsent=5))
    assert phase.status == "not measured"
    assert "of 100 requests 90 were taken" in phase.reason
    assert phase.ack is phase.delivered is None


def test_a_load_that_was_reached_keeps_its_figures() -> None:
    phase = reached(Phase(events=1000, ack=QUANTILES), done(requests=99, sent=100))
    assert (phase.status, phase.ack) == ("ok", QUANTILES)


def test_an_event_that_never_arrived_leaves_no_figures() -> None:
    stats = Stats(records=12, people=9, requests=1, newest=9, last_at=1.0, stall_ms=0.0)
    system = System(name="x", url="", pids=[], engine=True)
    lost = arrived(Phase(events=10, ack=QUANTILES), Shape(), system, stats)
    assert (lost.status, lost.ack) == ("not measured", None)
    assert "of 10 accepted events 9 arrived" in lost.reason
    merged = arrived(Phase(events=10, ack=QUANTILES), Shape(zipf=True), system, stats)
    assert merged.status == "ok"


def test_a_system_that_runs_elsewhere_is_marked() -> None:
    here = frozenset(os.sched_getaffinity(0))
    system, marked = System(name="x", url="", pids=[os.getpid()]), subject(1.0)
    note_pinning(marked, system, Cores(here, frozenset({99})))
    assert marked.notes == []
    note_pinning(marked, system, Cores(frozenset({99}), here))
    assert marked.notes


def test_no_latency_is_no_quantile() -> None:
    assert Quantiles.of(Histogram()) is None


@pytest.mark.parametrize(("available", "wanted"), [({3}, 1), ({0, 1}, 2), (set(), 1)])
def test_where_pinning_is_impossible_it_says_why(available: set[int], wanted: int) -> None:
    cores = split(frozenset(available), wanted)
    assert not cores.pinned
    assert "core" in cores.reason


def test_the_system_has_cores_of_its_own() -> None:
    cores = split(frozenset({0, 1, 2, 3}), 2)
    assert (cores.system, cores.instrument) == ({2, 3}, {0, 1})


def test_histograms_pass_between_processes_unchanged() -> None:
    histogram = Histogram()
    for value in (0.001, 0.002, 0.5):
        histogram.add(value)
    copy = Histogram.of(histogram.counts(), histogram.total_seconds, histogram.longest_seconds)
    assert [copy.quantile(it) for it in (0.1, 0.5, 1)] == [histogram.quantile(it) for it in (0.1, 0.5, 1)]
    assert (copy.count, copy.mean()) == (3, histogram.mean())


# -- ratios and growth ------------------------------------------------------------------------------------------------


def subject(*costs: float) -> Subject:
    return Subject(scenario="x", system="y", saturation=[Phase(cpu_us_per_event=it) for it in costs])


def test_a_ratio_is_made_pair_by_pair() -> None:
    """A machine that is twice as slow in the second pair is so for both."""
    found = ratio(subject(10, 22, 10), subject(10, 20, 8))
    assert found == Ratio("cpu_us_per_event", 1.1, 1.0, 1.25, 3)


def test_a_regression_is_what_every_pair_says() -> None:
    assert regression(Ratio("cpu", 1.05, 1.01, 1.10, 5))
    assert not regression(Ratio("cpu", 1.05, 0.98, 1.20, 5))
    assert not regression(Ratio("cpu", 1.02, 1.01, 1.03, 5))


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [1e4, 1e5, 1e6]
    assert exponent(sizes, [3 * it**1.5 for it in sizes]) == pytest.approx(1.5)
    assert exponent([1e4], [1.0]) is None
    assert slope([0, 1, 2], [5, 7, 9]) == pytest.approx(2)


def test_the_rule_for_sizing_goes_through_what_was_measured() -> None:
    made = rule([(1, 130.0), (10, 40.0), (100, 31.0)])
    assert (made.per_event, made.per_request) == (pytest.approx(30), pytest.approx(100))
    assert made.cpu_us(10) == pytest.approx(40)
    assert made.events_per_second(10) == pytest.approx(25_000)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_use_of_a_limit_and_the_fullest_second_are_counted_at_the_sink() -> None:
    exact = usage([it / 10 for it in range(101)], rate=10, burst=2)
    assert (exact["used_percent"], exact["windows_over"]) == (100.0, 0)
    twice = usage([it / 20 for it in range(101)], rate=10, burst=2)
    assert twice["used_percent"] == 200.0
    assert twice["windows_over"] > 0
    assert twice["most_in_1_second"] == 20


def test_an_excess_while_the_sink_was_held_up_is_marked() -> None:
    figures = {"most_in_1_second": 1_014.0, "allowed_in_1_second": 1_010.0, "sink_stall_ms": 20.0}
    held_up, awake = (Subject(scenario="x", system="y", figures=dict(figures)) for _ in range(2))
    note_stall(held_up, rate=1_000)
    note_stall(awake, rate=100)
    assert held_up.notes
    assert not awake.notes


def test_freshness_counts_events_covered_and_the_age_of_what_arrives() -> None:
    """One event a second; the third of them arrives one second after it was due, alone."""
    found = freshness(Shape(), records((3.0, 2, 2)), 1, 0.0, 1.0, offered=4)
    assert found["age_p50_ms"] == pytest.approx(1_000, rel=0.011)
    assert (found["events_covered_per_request"], found["events_covered_percent"]) == (1.0, 25.0)


# -- soak -------------------------------------------------------------------------------------------------------------


def window(at: int, memory: float = 1e8, descriptors: int = 30, p50: float = 2.0) -> Window:
    quantiles = Quantiles(p50, p50, p50, p50, 10)
    phase = Phase(ack=quantiles, delivered=quantiles, requests=WARM_UP_REQUESTS // 4)
    return Window(at * 20.0, fault_of(at), int(memory), descriptors, 10, phase)


def test_a_soak_without_growth_is_flat() -> None:
    assert all(it.flat for it in verdicts([window(it) for it in range(20)]))


@pytest.mark.parametrize(
    ("what", "grown"),
    [
        ("memory", lambda at: window(at, memory=1e8 + at * 4e6)),
        ("descriptors", lambda at: window(at, descriptors=30 + 4 * at)),
        ("ack_p50", lambda at: window(at, p50=2.0 + at)),
    ],
)
def test_a_soak_names_what_grows(what: str, grown: Any) -> None:
    assert what in [it.what for it in verdicts([grown(it) for it in range(20)]) if not it.flat]


def test_a_soak_that_was_too_short_says_so() -> None:
    found = subject_of("engine", [window(0), window(1)])
    assert found.status == "not measured"
    assert "longer" in found.reason


def test_memory_that_grows_while_receipts_fill_up_is_warm_up() -> None:
    windows = [window(at, memory=1e8 + min(at, 5) * 1e8) for at in range(20)]
    assert warm(windows)[0].at == windows[5].at
    assert all(it.flat for it in verdicts(warm(windows)))


# -- variants ---------------------------------------------------------------------------------------------------------


def test_a_fragment_reaches_every_element_of_an_array_of_tables() -> None:
    variant = Variant(fragments=("journal.kind=memory", "account.rate.burst=7", "ledger.enabled=true", "--workers=2"))
    config = variant.config(engine_config("http://127.0.0.1:1"))
    assert config["journal"]["kind"] == "memory"
    assert config["account"][0]["rate"]["burst"] == 7
    assert config["ledger"]["enabled"] is True
    assert variant.options == ["--workers", "2"]


def test_a_configuration_survives_its_way_through_toml(tmp_path: Any) -> None:
    import tomllib

    config = engine_config("http://127.0.0.1:1")
    assert tomllib.loads(toml(config)) == config


@pytest.mark.parametrize("fragment", ["journal.kind", "=memory", "journal..kind=x"])
def test_a_bad_fragment_is_named(fragment: str) -> None:
    with pytest.raises(BadFragment, match=r"TABLE\.KEY=VALUE"):
        parsed(fragment)


def test_every_element_means_not_only_the_first() -> None:
    config = Variant(fragments=("destination.encoding=single",)).config({"destination": [{"name": "a"}, {"name": "b"}]})
    assert [it["encoding"] for it in config["destination"]] == ["single", "single"]
