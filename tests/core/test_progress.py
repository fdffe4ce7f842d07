"""Being stuck: work that could be done, and nothing of it done for too long."""

from __future__ import annotations

from engine.core.progress import Progress, patience_of_sending


def progress() -> Progress:
    return Progress(60.0, 20.0)


def looks(one: Progress, *seen: tuple[float, bool, object]) -> list[bool]:
    return [one.look(now, due=due, done=done) for now, due, done in seen]  # type: ignore[arg-type]


def test_work_of_which_nothing_gets_done_for_the_time_is_stuck() -> None:
    seen = [(float(now), True, 7) for now in range(0, 80, 10)]
    assert looks(progress(), *seen) == [False] * 6 + [True, True]


def test_whatever_gets_done_begins_the_time_anew() -> None:
    one = progress()
    looks(one, *[(float(now), True, 7) for now in range(0, 60, 10)])
    assert looks(one, (60.0, True, 8), (70.0, True, 8)) == [False, False]
    assert one.seconds == 10.0


def test_waiting_for_a_reason_is_not_being_stuck() -> None:
    one = progress()
    looks(one, *[(float(now), True, 7) for now in range(0, 60, 10)])
    assert looks(one, (60.0, False, 7), (70.0, True, 7)) == [False, False]


def test_it_resolves_by_itself() -> None:
    one = progress()
    assert looks(one, *[(float(now), True, 7) for now in range(0, 80, 10)])[-1]
    assert looks(one, (80.0, True, 8)) == [False]


def test_a_program_that_stood_still_itself_was_not_stuck() -> None:
    assert looks(progress(), (0.0, True, 7), (3_600.0, True, 7)) == [False, False]


def test_the_patience_is_what_was_asked_for_where_nothing_explains_more() -> None:
    quick = {"turns": 1.0, "attempt_seconds": 12.0, "requests_per_second": 10.0, "max_concurrency": 4}
    assert patience_of_sending(60.0, **quick) == 60.0  # type: ignore[arg-type]


def test_a_slow_rate_and_slow_requests_explain_a_longer_one() -> None:
    once_a_minute = patience_of_sending(
        60.0, turns=2.0, attempt_seconds=12.0, requests_per_second=1 / 60, max_concurrency=4
    )
    assert once_a_minute > 2 * 60.0 * 4
    slow = patience_of_sending(60.0, turns=10.0, attempt_seconds=30.0, requests_per_second=10.0, max_concurrency=4)
    assert slow == 330.0
