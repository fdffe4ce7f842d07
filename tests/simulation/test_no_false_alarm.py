"""Whatever fails around it, an engine without a bug is never said to be stuck."""

from __future__ import annotations

import pytest
from knobs import Knobs
from world import run

from engine.assembly import build
from engine.pipeline.watchdog import Watchdog, Watched

RUNS = 40
PATIENCE_SECONDS = 6.0
"""Lives are short here, so it has little patience: it looks every second."""


def test_the_watchdog_keeps_quiet_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    looks = 0
    seed = 0
    look = Watchdog.look

    def counted(watchdog: Watchdog) -> None:
        nonlocal looks
        looks += 1
        look(watchdog)

    def note(watchdog: Watchdog, one: Watched, was: bool, now: float, news: list[Watched]) -> None:
        told.append(f"seed {seed}: {one} at {now:.0f} s")

    begin, patience = Watchdog.__init__, build.patience_of_sending
    monkeypatch.setattr(Watchdog, "__init__", lambda one, seconds, **given: begin(one, PATIENCE_SECONDS, **given))
    monkeypatch.setattr(build, "patience_of_sending", lambda least, **given: patience(PATIENCE_SECONDS, **given))
    monkeypatch.setattr(Watchdog, "look", counted)
    monkeypatch.setattr(Watchdog, "_note", note)
    for seed in range(RUNS):
        run(Knobs.draw(seed))
    assert told == []
    assert looks > 5 * RUNS
