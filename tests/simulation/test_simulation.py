"""Seeds × faults × crashes on virtual time, judged by somebody who knows nothing of the engine. See `simulate`."""

from __future__ import annotations

import os

from knobs import Knobs
from simulate import command, explained, knobs_of, shrunk, simulate, together
from world import run

RUNS = 300


def test_no_promise_is_broken_in_any_run_and_every_kind_of_trouble_was_met() -> None:
    report = together(simulate(range(RUNS), min(2, os.cpu_count() or 1)))
    assert report.runs == RUNS
    assert not report.broken, "\n".join(explained(*one) for one in list(report.broken.items())[:3])
    assert not report.never_seen, "these runs prove less than they say"


def test_a_seed_is_a_run() -> None:
    """Whoever plays it again sees the same, to the last request."""
    one, other = run(Knobs.draw(7)), run(Knobs.draw(7))
    assert one.left_at == other.left_at
    assert one.seen == other.seen
    assert one.left_at != run(Knobs.draw(8)).left_at


def test_a_run_that_fails_is_made_smaller_and_says_how_to_play_it_again() -> None:
    knobs = Knobs.draw(3, rate=500.0, burst=10, poison=0.5, moment="time")
    small, facts = shrunk(knobs, runs=0)
    assert (small, facts.violations) == (knobs, [])
    assert command(knobs).startswith("make simulate SEED=3 KNOBS='")
    assert knobs_of("rate=500.0 burst=10 suppress=false moment=time") == {
        "rate": 500.0,
        "burst": 10,
        "suppress": False,
        "moment": "time",
    }
