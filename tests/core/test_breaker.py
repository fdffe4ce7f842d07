"""Whose fault is it: when the breaker opens, what its probes do, and how long it waits between them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.core.backoff import Backoff
from engine.core.breaker import NEXT, Breaker, State, Step

KEYS = [bytes([n]) * 32 for n in range(5)]


def breaker(seed: int = 0) -> Breaker:
    return Breaker(Backoff(1.0, 60.0), random.Random(seed))


def opened(seed: int = 0, now: float = 0.0) -> Breaker:
    one = breaker(seed)
    one.trip("http_404", now)
    return one


def fail(one: Breaker, times: int, keys: int, waiting_keys: int = 100) -> None:
    for n in range(times):
        one.failure([KEYS[n % keys]], float(n), waiting_keys=waiting_keys, reason="http_503")


@pytest.mark.parametrize(
    ("state", "step", "then"),
    [
        (State.CLOSED, Step.TRIP, State.OPEN),
        (State.CLOSED, Step.PROBE, None),
        (State.CLOSED, Step.SUCCEED, None),
        (State.CLOSED, Step.FAIL, None),
        (State.CLOSED, Step.LAPSE, None),
        (State.OPEN, Step.TRIP, State.OPEN),
        (State.OPEN, Step.PROBE, State.HALF_OPEN),
        (State.OPEN, Step.SUCCEED, State.CLOSED),
        (State.OPEN, Step.FAIL, None),
        (State.OPEN, Step.LAPSE, None),
        (State.HALF_OPEN, Step.TRIP, State.OPEN),
        (State.HALF_OPEN, Step.PROBE, None),
        (State.HALF_OPEN, Step.SUCCEED, State.CLOSED),
        (State.HALF_OPEN, Step.FAIL, State.OPEN),
        (State.HALF_OPEN, Step.LAPSE, State.OPEN),
    ],
)
def test_the_table_of_transitions(state: State, step: Step, then: State | None) -> None:
    assert NEXT[state].get(step) == then


def test_five_failures_in_a_row_over_three_keys_open_it() -> None:
    one = breaker()
    fail(one, 4, keys=3)
    assert one.state == "closed"
    fail(one, 1, keys=1)
    assert (one.state, one.reason) == ("open", "http_503")


@pytest.mark.parametrize(("keys", "waiting_keys", "state"), [(1, 100, "closed"), (2, 100, "closed"), (2, 2, "open")])
def test_one_bad_record_does_not_open_it_unless_nothing_else_waits(keys: int, waiting_keys: int, state: str) -> None:
    """Three different keys, or all that wait if those are fewer."""
    one = breaker()
    fail(one, 50, keys=keys, waiting_keys=waiting_keys)
    assert one.state == state


def test_a_single_waiting_key_is_enough_after_five_failures() -> None:
    one = breaker()
    fail(one, 5, keys=1, waiting_keys=1)
    assert one.state == "open"


def test_one_batch_of_many_keys_is_one_failure() -> None:
    one = breaker()
    for _ in range(4):
        one.failure(KEYS, 0.0, waiting_keys=100)
    assert one.state == "closed"
    one.failure(KEYS, 0.0, waiting_keys=100)
    assert one.state == "open"


def test_a_success_between_begins_the_row_anew() -> None:
    one = breaker()
    fail(one, 4, keys=3)
    assert one.success(4.0) is False, "it was not open"
    fail(one, 4, keys=3)
    assert one.state == "closed"


def test_while_it_is_open_nothing_may_go_before_the_probe_is_due() -> None:
    one = opened()
    at = one.next_probe_at
    assert at is not None
    assert not one.may_send(0.0)
    assert not one.may_send(at - 0.001)
    assert one.may_send(at)


def test_asking_changes_nothing() -> None:
    one = opened()
    assert all(one.may_send(100.0) for _ in range(10))
    assert one.state == "open"


def test_one_probe_goes_and_nobody_follows_it() -> None:
    one = opened()
    one.probing(10.0)
    assert one.state == "half_open"
    assert not one.may_send(10.0)
    assert not one.may_send(10.0 + 59.9)


def test_a_probe_that_never_ends_does_not_close_the_door_for_ever() -> None:
    """Whatever became of it: after the longest backoff step another one may go."""
    one = opened()
    one.probing(10.0)
    assert one.may_send(70.0)


def test_a_probe_that_succeeds_closes_it_and_forgets_the_past() -> None:
    one = opened()
    one.probing(10.0)
    assert one.success(10.5) is True
    assert (one.state, one.reason, one.next_probe_at) == ("closed", "", None)
    fail(one, 4, keys=4)
    assert one.state == "closed"


def test_a_probe_that_fails_opens_it_at_once_for_a_longer_step() -> None:
    one = opened()
    one.probing(10.0)
    one.failure([KEYS[0]], 20.0, waiting_keys=100, reason="timeout")
    assert (one.state, one.reason) == ("open", "timeout")
    assert one.next_probe_at is not None
    assert one.next_probe_at >= 20.0 + 1.0  # half of the second step, which is twice the first


def test_a_probe_that_told_nothing_lapses_and_another_may_go_at_once() -> None:
    one = opened()
    one.probing(10.0)
    one.lapse(10.1)
    assert one.state == "open"
    assert one.may_send(10.1)


@pytest.mark.parametrize("state", ["closed", "open"])
def test_nothing_lapses_that_is_not_a_probe(state: str) -> None:
    one = opened() if state == "open" else breaker()
    at = one.next_probe_at
    one.lapse(50.0)
    assert (one.state, one.next_probe_at) == (state, at)


def test_a_straggling_failure_does_not_push_the_probe_away() -> None:
    """Requests sent before it opened end one after the other; each would otherwise restart the wait."""
    one = opened()
    at = one.next_probe_at
    fail(one, 20, keys=5)
    assert one.next_probe_at == at


def test_a_straggling_success_closes_it() -> None:
    one = opened()
    assert one.success(0.5) is True
    assert one.state == "closed"


@given(seed=st.integers(0, 10_000), openings=st.integers(1, 20))
def test_the_wait_is_between_half_and_the_whole_of_its_step(seed: int, openings: int) -> None:
    one, now = breaker(seed), 0.0
    for opening in range(1, openings + 1):
        one.trip("down", now)
        assert one.next_probe_at is not None
        step = min(60.0, 2.0 ** (opening - 1))
        assert now + step / 2 <= one.next_probe_at <= now + step
        now = one.next_probe_at
        one.probing(now)


def test_no_two_breakers_probe_in_step() -> None:
    assert len({opened(seed).next_probe_at for seed in range(50)}) == 50


class Machine(RuleBasedStateMachine):
    """Whatever comes in whatever order: it sends while closed, and one probe at a time while not."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now = breaker(), 0.0

    @rule(seconds=st.floats(0.0, 100.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.sampled_from(KEYS), waiting=st.integers(0, 10))
    def failure(self, key: bytes, waiting: int) -> None:
        self.breaker.failure([key], self.now, waiting_keys=waiting)

    @rule()
    def success(self) -> None:
        self.breaker.success(self.now)
        assert self.breaker.may_send(self.now)

    @rule()
    def lapse(self) -> None:
        self.breaker.lapse(self.now)

    @rule()
    def trip(self) -> None:
        self.breaker.trip("down", self.now)
        assert not self.breaker.may_send(self.now)

    @rule()
    def probe(self) -> None:
        if self.breaker.state != "closed" and self.breaker.may_send(self.now):
            self.breaker.probing(self.now)
            assert not self.breaker.may_send(self.now)

    @invariant()
    def an_open_breaker_always_has_a_next_probe(self) -> None:
        """Otherwise it would stay open for ever."""
        assert (self.breaker.next_probe_at is None) == (self.breaker.state == "closed")
        assert self.breaker.next_probe_at is None or self.breaker.next_probe_at <= self.now + 60.0


TestBreaker = Machine.TestCase


def test_what_it_says_of_itself() -> None:
    one = breaker()
    assert (repr(one), one.reason) == ("<Breaker closed>", "")
    one.trip("http_404", 0.0)
    assert (repr(one), one.reason) == ("<Breaker open (http_404)>", "http_404")


def test_a_failure_without_a_reason_keeps_the_one_that_is_known() -> None:
    nameless, named = breaker(), opened()
    for n in range(5):
        nameless.failure([KEYS[n]], 0.0, waiting_keys=5)
    assert nameless.reason == "failing"
    named.probing(100.0)
    named.failure([KEYS[0]], 101.0, waiting_keys=5)
    assert (named.state, named.reason) == ("open", "http_404")


class Longest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def test_the_longest_wait_is_the_whole_step_and_the_step_begins_anew_after_a_success() -> None:
    one = Breaker(Backoff(1.0, 60.0), Longest())
    for wait in (1.0, 2.0, 4.0):
        one.trip("http_404", 100.0)
        assert one.next_probe_at == 100.0 + wait
    one.success(200.0)
    one.trip("http_404", 300.0)
    assert one.next_probe_at == 301.0
