"""When a batch leaves, and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.batcher import Batcher, Cut


@pytest.fixture
def batcher() -> Batcher:
    return Batcher(max_profiles=10, max_bytes=1_000, linger_seconds=0.02)


def test_nothing_waiting_is_never_due(batcher: Batcher) -> None:
    assert batcher.due(1e9, waiting=0, bytes_waiting=0, oldest_waiting_since=0.0) is None


@pytest.mark.parametrize(
    ("waiting", "size", "age", "cut"),
    [
        (1, 10, 0.0, None),
        (9, 999, 0.0199, None),
        (10, 10, 0.0, Cut.COUNT),
        (11, 10, 0.0, Cut.COUNT),
        (2, 1_000, 0.0, Cut.BYTES),
        (1, 10, 0.02, Cut.LINGER),
        (10, 1_000, 5.0, Cut.COUNT),
    ],
)
def test_a_batch_is_due_when_it_is_full_or_has_waited(
    batcher: Batcher, waiting: int, size: int, age: float, cut: Cut | None
) -> None:
    assert batcher.due(100.0 + age, waiting=waiting, bytes_waiting=size, oldest_waiting_since=100.0) == cut


def test_a_single_profile_lingers_for_more_events_of_its_key() -> None:
    """Where a request carries one profile it is full at once; it waits its linger all the same."""
    single = Batcher(max_profiles=1, max_bytes=1, linger_seconds=0.02)
    assert single.due(0.0, waiting=500, bytes_waiting=10**6, oldest_waiting_since=0.0) is None
    assert single.due(0.02, waiting=500, bytes_waiting=10**6, oldest_waiting_since=0.0) == Cut.LINGER


def test_without_linger_everything_is_due_at_once() -> None:
    eager = Batcher(max_profiles=10, max_bytes=1_000, linger_seconds=0.0)
    assert eager.due(5.0, waiting=1, bytes_waiting=1, oldest_waiting_since=5.0) == Cut.LINGER


@given(st.floats(0.0, 1e6), st.floats(0.0, 10.0))
def test_due_at_names_the_moment_due_turns_true(since: float, linger: float) -> None:
    batcher = Batcher(max_profiles=10, max_bytes=1_000, linger_seconds=linger)
    assert batcher.due(batcher.due_at(since), waiting=1, bytes_waiting=1, oldest_waiting_since=since) == Cut.LINGER


@pytest.mark.parametrize(
    ("profiles", "size", "following", "fits"),
    [(0, 0, 5_000, True), (1, 400, 600, True), (1, 400, 601, False), (9, 9, 1, True), (10, 10, 1, False)],
)
def test_a_record_joins_while_there_is_room_and_one_too_large_goes_alone(
    batcher: Batcher, profiles: int, size: int, following: int, fits: bool
) -> None:
    assert batcher.fits(profiles, size, following) is fits


def test_why_batches_left_is_counted(batcher: Batcher) -> None:
    for profiles, full in [(10, False), (3, True), (3, False), (3, False)]:
        batcher.cut(profiles, full)
    assert batcher.cuts == {"count": 1, "bytes": 1, "linger": 2}


def test_two_are_a_batch_where_two_fit() -> None:
    pair = Batcher(max_profiles=2, max_bytes=1_000, linger_seconds=5.0)
    assert pair.due(0.0, waiting=2, bytes_waiting=10, oldest_waiting_since=0.0) == Cut.COUNT
    assert pair.due(0.0, waiting=1, bytes_waiting=1_000, oldest_waiting_since=0.0) == Cut.BYTES
    pair.cut(2, full=False)
    assert pair.cuts == {"count": 1}


def test_a_request_of_one_profile_is_never_said_to_have_left_because_it_was_full() -> None:
    single = Batcher(max_profiles=1, max_bytes=1_000, linger_seconds=0.0)
    single.cut(1, full=False)
    assert single.cuts == {"linger": 1}
