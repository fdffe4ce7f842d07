"""The bucket and the measurement, against each other and against a slow count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.sandbox.rates import Arrivals, TokenBucket, measure

# Multiples of 1/64 s, so that sums are exact and windows meet arrivals at their very edge.
gaps = st.lists(st.integers(0, 256).map(lambda n: n / 64), max_size=120)


@given(gaps, st.integers(1, 20), st.integers(1, 10))
def test_what_a_bucket_lets_through_never_measures_over(pauses: list[float], rate: int, burst: int) -> None:
    bucket, now, passed = TokenBucket(rate, burst), 0.0, []
    for pause in pauses:
        now += pause
        if bucket.take(now) == 0.0:
            passed.append(now)
    assert [window["over"] for window in measure(passed, rate, burst)["windows"]] == [0, 0]


@given(gaps, st.integers(1, 5), st.integers(0, 5))
def test_the_measurement_agrees_with_counting_every_window(pauses: list[float], rate: int, burst: int) -> None:
    now, times = 0.0, []
    for pause in pauses:
        now += pause
        times.append(now)
    for window in measure(times, rate, burst)["windows"]:
        seconds = window["seconds"]
        counts = [sum(start <= at < start + seconds for at in times[n:]) for n, start in enumerate(times)]
        assert window["max"] == max(counts, default=0)
        assert window["over"] == sum(count > rate * seconds + burst for count in counts)


def test_a_bucket_says_how_long_to_wait() -> None:
    bucket = TokenBucket(4.0, 2)
    assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.25]
    assert bucket.take(0.25) == 0.0


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 8))
def test_the_last_arrivals_are_kept_in_order(pauses: list[int], size: int) -> None:
    arrivals, times = Arrivals(size), [float(sum(pauses[: n + 1])) for n in range(len(pauses))]
    for now in times:
        arrivals.add(now)
    assert list(arrivals.in_order()) == times[-size:]
    assert arrivals.total == len(times)


def test_nothing_measured_is_nothing_used() -> None:
    empty = measure([], 0.0, 0.0)
    assert (empty["measured"], empty["used"], empty["windows"][0]["over"]) == (0, None, None)
