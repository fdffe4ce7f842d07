"""Hourly windows with AEP's names."""

from __future__ import annotations

import pytest

from engine.core.runs import Runs

HOUR = 3_600


def only(runs: Runs) -> dict[str, object]:
    (window,) = runs.report()
    return window


def test_the_rate_is_what_was_activated_of_what_was_judged() -> None:
    runs = Runs()
    runs.add("demo", {"delivered": 5, "suppressed": 1, "superseded": 2}, 10.0)
    runs.add("demo", {"excluded:no_email": 1, "dead_lettered:http_400": 1, "expired:max_age": 0}, 20.0)
    assert only(runs) == {
        "destination": "demo",
        "started_at": 0.0,
        "profiles_received": 10,
        "identities_activated": 8,
        "identities_excluded": 1,
        "identities_failed": 1,
        "activation_rate": 0.8,
    }


def test_an_empty_hour_has_no_rate() -> None:
    runs = Runs()
    runs.add("demo", {}, 0.0)
    assert only(runs)["activation_rate"] is None


@pytest.mark.parametrize(("at", "started_at"), [(0.0, 0.0), (HOUR - 0.001, 0.0), (HOUR, float(HOUR))])
def test_a_window_begins_at_the_full_hour(at: float, started_at: float) -> None:
    runs = Runs()
    runs.add("demo", {"delivered": 1}, at)
    assert only(runs)["started_at"] == started_at


def test_newest_first_and_each_destination_by_itself() -> None:
    runs = Runs()
    for hour, name in [(0, "a"), (0, "b"), (1, "a")]:
        runs.add(name, {"delivered": 1}, hour * HOUR)
    assert [(w["started_at"], w["destination"]) for w in runs.report()] == [(3600.0, "a"), (0.0, "b"), (0.0, "a")]


def test_two_days_are_kept_and_no_more() -> None:
    runs = Runs()
    for hour in range(200):
        runs.add("demo", {"delivered": 1}, hour * HOUR)
    windows = runs.report()
    assert len(windows) == 48
    assert windows[-1]["started_at"] == 152 * HOUR


def test_a_clock_that_was_set_back_breaks_nothing() -> None:
    runs = Runs()
    runs.add("demo", {"delivered": 1}, 100 * HOUR)
    runs.add("demo", {"delivered": 1}, 10 * HOUR)
    runs.add("demo", {"delivered": 1}, 101 * HOUR)
    assert sum(int(str(window["identities_activated"])) for window in runs.report()) == 3


def test_hours_begin_on_the_hour_and_reasons_of_one_outcome_add_up() -> None:
    runs = Runs()
    runs.add("demo", {"excluded:no_email": 2, "excluded:audience": 3}, 7_200.0 + 3_599.9)
    runs.add("demo", {"excluded:no_email": 5}, 7_200.0)
    (window,) = runs.report()
    assert window["started_at"] == 7_200.0
    assert window["identities_excluded"] == 10
