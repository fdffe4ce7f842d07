"""A cancellation at any await loses nothing: the awaits are found by watching, and each is tried.

Which suspension of which scene is tried has a name of its own in the report of a failure; one of them again:
CANCEL="AWorkingDay pending 18.39" python -m pytest tests/cancellation
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from cancelled_scenes import ENDING, SCENES
from injection import ROOT, Moment, Place, Suspension, awaits_of, not_hit

from engine.dispatcher import consumer, holding
from engine.pipeline import reader
from engine.testing.clock import run_virtual

STRIDE = 89
"""The fast part tries every so many-th suspension; the long one tries all of them."""

THOROUGHLY = sorted(
    f"engine/{room}/{path.name}"
    for room in ("dispatcher", "pipeline")
    for path in (ROOT / "engine" / room).glob("*.py")
)
ENTRIES = [f"engine/assembly/{name}.py" for name in ("audit", "control", "engine", "intake", "receipt")]

NOT_TRIED = {
    "test_destination": "a test of a connection opens real ones: not on virtual time",
    "test_notification": "it tells a real one, outside: not on virtual time",
    "backup": "a backup copies files, in threads: not on virtual time",
    "lifespan": "what waits inside a generator cannot be seen from outside; that is __aenter__ and __aexit__",
}
"""Functions of the entries in which nothing is cancelled, and why."""

Found = dict[str, list[Suspension]]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 100,000 events in earnest has to happen in a few dozen here."""
    monkeypatch.setattr(holding, "STRAGGLER_SPAN_EVENTS", 30)
    monkeypatch.setattr(holding, "STRAGGLERS", 20)
    monkeypatch.setattr(holding, "STRAGGLERS_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(consumer, "READ_AHEAD_EVENTS", 100)
    monkeypatch.setattr(reader, "BEHIND_EVENTS", 0)


@pytest.fixture
def found(small_steps: None) -> Found:
    """scene -> its suspensions, in their order, without a cancellation."""
    return _found()


@cache
def _found() -> Found:
    return {name: _suspensions(name) for name in SCENES}


def _suspensions(name: str) -> list[Suspension]:
    scene = SCENES[name]()
    run_virtual(scene.run)
    return scene.instrument.suspensions


def cancel(name: str, moment: Moment, target: Suspension) -> None:
    scene = SCENES[name](target, moment)
    try:
        run_virtual(scene.run)
        assert scene.instrument.victim is not None, "it never came to this suspension"
        assert scene.instrument.strayed is None, f"it was at {scene.instrument.strayed}"
    except (Exception, BaseExceptionGroup) as error:
        again = f'CANCEL="{name} {moment} {target.index}.{target.number}"'
        raise AssertionError(f"{again}: {target.place}: {error!r}") from error


def sampled(found: Found, stride: int) -> Iterator[tuple[str, Moment, Suspension]]:
    """Every `stride`-th of all injections that can be made."""
    every = ((name, moment, it) for name, ones in found.items() for it in ones for moment in Moment)
    yield from (one for number, one in enumerate(every) if number % stride == 0)


def test_nothing_acknowledged_is_lost_wherever_a_task_is_cancelled_in_a_sample(found: Found) -> None:
    made = [cancel(*one) for one in sampled(found, STRIDE)]
    assert len(made) > 90


@pytest.mark.faults
@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("name", SCENES)
def test_nothing_acknowledged_is_lost_wherever_a_task_is_cancelled(
    found: Found, name: str, moment: Moment, say: Callable[[object], None]
) -> None:
    for target in found[name]:
        cancel(name, moment, target)
    say(f"{len(found[name])} cancellations in {name}, {moment}")


@pytest.mark.skipif("CANCEL" not in os.environ, reason="one injection again, by name")
def test_the_one_that_is_named(found: Found) -> None:
    name, moment, at = os.environ["CANCEL"].split()
    cancel(name, Moment(moment), next(it for it in found[name] if f"{it.index}.{it.number}" == at))


def test_a_scene_played_again_waits_at_the_same_places(found: Found) -> None:
    assert {name: _suspensions(name) for name in SCENES} == found


# -- is every await tried? --------------------------------------------------------------------------------------------


@pytest.fixture
def places(found: Found) -> set[Place]:
    return _places()


@cache
def _places() -> set[Place]:
    """Where tasks wait by themselves, and where hosts do that were cancelled on their way in or out."""
    found = {it.place for ones in _found().values() for it in ones}
    for target in _found()["Leaving"]:
        if target.place.task in ENDING:
            scene = SCENES["Leaving"](target, Moment.TWICE)
            run_virtual(scene.run)
            found.update(scene.instrument.cancelled_at)
    return found


@pytest.mark.parametrize("file", [*THOROUGHLY, *ENTRIES])
def test_every_await_of_the_engine_is_among_those_that_are_cancelled(places: set[Place], file: str) -> None:
    missing = [str(one) for one in not_hit(file, places) if file in THOROUGHLY or one.function not in NOT_TRIED]
    assert missing == []


def test_there_is_something_to_cancel_in_every_room(found: Found, places: set[Place]) -> None:
    per_file = {file: len(awaits_of(file)) for file in [*THOROUGHLY, *ENTRIES]}
    hit = {file: count - len(not_hit(file, places)) for file, count in per_file.items()}
    assert sum(hit.values()) > 120
    assert sum(map(len, found.values())) > 2_000
