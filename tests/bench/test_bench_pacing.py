"""When requests are due, and who they are about."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bench.events import DOMAIN, Workload
from engine.bench.pacing import SHORTEST_TICK_SECONDS, Schedule
from engine.core.handover import SYNTHETIC
from engine.profiles.formats import Reader

rates = st.floats(min_value=0.5, max_value=50_000)


@given(rates, st.floats(min_value=0.1, max_value=60))
def test_every_request_is_due_once_and_none_before_its_time(per_second: float, seconds: float) -> None:
    schedule = Schedule(per_second, seconds)
    for index in {0, schedule.total // 2, schedule.total - 1}:
        at = schedule.due_at(index)
        assert schedule.due_by(at) >= index + 1
        assert schedule.due_by(at - 0.5 / per_second) <= index
    assert schedule.due_by(seconds * 10) == schedule.total


def test_nothing_is_due_before_the_start() -> None:
    assert Schedule(10, 1).due_by(-0.1) == 0


def test_the_schedule_does_not_wait_for_answers() -> None:
    """Half a second of silence makes all its requests due: they count with the time they have waited."""
    schedule = Schedule(per_second=100, seconds=1)
    assert schedule.due_by(0.5) == 51
    assert 0.5 - schedule.due_at(10) == pytest.approx(0.4)


def test_ticks_are_as_far_apart_as_requests_but_never_shorter_than_a_quarter_millisecond() -> None:
    assert Schedule(10, 1).tick_seconds() == 0.1
    assert Schedule(1_000_000, 1).tick_seconds() == SHORTEST_TICK_SECONDS


def records(body: bytes) -> list[dict[str, Any]]:
    decoded = orjson.loads(body)
    return decoded if isinstance(decoded, list) else [decoded]


@pytest.mark.parametrize("events_per_request", [1, 10])
def test_every_event_is_of_another_person_who_can_be_told_from_the_address(events_per_request: int) -> None:
    workload = Workload("run", events_per_request)
    emails = [record["email"] for request in range(20) for record in records(workload.body(request))]
    assert [workload.person_of(email) for email in emails] == list(range(20 * events_per_request))


def test_people_of_another_run_are_nobody_here() -> None:
    email = records(Workload("one", 1).body(7))[0]["email"]
    assert Workload("other", 1).person_of(email) is None
    assert Workload("one", 1).person_of(f"one-x@{DOMAIN}") is None


def test_no_address_could_ever_leave_for_a_real_attendee_store() -> None:
    assert f"@{DOMAIN}".encode() == SYNTHETIC
    assert all(SYNTHETIC in Workload("run", 1).body(request) for request in range(100))


def test_the_engine_has_nothing_to_correct_in_an_event() -> None:
    """Otherwise the bench would measure the exceptional path."""
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=1000)
    parsed = reader.read(Workload("run", 64).body(0), "application/json")
    assert (len(parsed.events), parsed.rejected, parsed.dropped) == (64, [], [])
    typed = reader._typed
    assert typed is not None
    assert all(typed.read(Workload("run", 1).body(request)) is not None for request in range(64))


def test_equal_arguments_make_equal_bodies() -> None:
    assert Workload("run", 3).body(5) == Workload("run", 3).body(5)
