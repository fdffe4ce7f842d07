"""Alerts: what is told, how often, and that a restart changes nothing of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.alerts import When
from engine.core.alert_figures import KINDS, DestinationFigures, Figures
from engine.core.alert_rules import FLAP_SECONDS, NEXT, Rule, State, Step
from engine.core.alert_texts import ADVICE
from engine.core.alerts import MOST_WAITING, OLDEST_SECONDS, AlertBook
from engine.model import Notice

START = 1_700_000_000.0


def rule(when: str = "breaker-open", **more: Any) -> Rule:
    fields = {"name": "it", "threshold": KINDS[when].threshold, "for_seconds": 0.0, "clear_seconds": 0.0, **more}
    return Rule(when=when, **fields)


def book_of(*rules: Rule, stored: Any = None, targets: tuple[str, ...] = ("oncall",)) -> AlertBook:
    return AlertBook(rules, random=random.Random(1), stored=stored, targets=targets)


def one(**figures: Any) -> dict[str, DestinationFigures]:
    return {"demo": DestinationFigures(**figures)}


def breaker(is_open: bool) -> dict[str, DestinationFigures]:
    return one(breaker="http_503" if is_open else "")


class Watch:
    """A book under a clock. `told`: (seconds since the start, event)."""

    def __init__(self, *rules: Rule) -> None:
        self.rules, self.now, self.rows = rules, START, dict[Any, bytes]()
        self.book = book_of(*rules)
        self.told: list[tuple[float, str]] = []

    def look(self, destinations: dict[str, DestinationFigures] | None = None, **figures: Any) -> list[Notice]:
        found = self.book.evaluate(Figures(at=self.now, destinations=destinations or {}, **figures))
        self.told += [(self.now - START, str(notice.event)) for notice in found]
        for row, content in self.book.changed().items():
            if content is None:
                self.rows.pop(row, None)
            else:
                self.rows[row] = content
        return found

    def restart(self) -> None:
        self.book = book_of(*self.rules, stored=self.rows)

    def state(self) -> object:
        return self.book.report()[0]["state"]


# -- the machine ------------------------------------------------------------------------------------------------------


def test_it_is_raised_after_it_held_for_so_long_and_resolved_after_it_was_clear_for_so_long() -> None:
    watch = Watch(rule(for_seconds=60, clear_seconds=30))
    states = []
    for seconds, is_open in [
        (0, True),
        (59, True),
        (60, True),
        (70, False),
        (80, True),
        (90, False),
        (119, False),
        (120, False),
    ]:
        watch.now = START + seconds
        watch.look(breaker(is_open))
        states.append(watch.state())
    assert states == ["pending", "pending", *["raised"] * 5, "resolved"]
    assert watch.told == [(60, "raised"), (120, "resolved")]


def test_what_holds_too_shortly_is_never_told() -> None:
    watch = Watch(rule(for_seconds=60))
    for seconds in range(0, 600, 10):
        watch.now = START + seconds
        watch.look(breaker(seconds % 60 != 50))
    assert watch.told == []


def test_a_raised_alert_is_told_again_after_its_cooldown_and_not_at_all_without_one() -> None:
    often, once = Watch(rule(cooldown_seconds=600)), Watch(rule(cooldown_seconds=0))
    for seconds in range(0, 2_000, 5):
        for watch in (often, once):
            watch.now = START + seconds
            watch.look(breaker(True))
    assert often.told == [(0, "raised"), (600, "repeated"), (1_200, "repeated"), (1_800, "repeated")]
    assert once.told == [(0, "raised")]


def test_one_that_flaps_is_told_every_five_minutes_and_ends_with_resolved() -> None:
    watch = Watch(rule(cooldown_seconds=3_600))
    for seconds in range(0, 1_200, 10):
        watch.now = START + seconds
        watch.look(breaker(seconds % 20 == 0))
    raised = [at for at, event in watch.told if event == "raised"]
    assert raised == [0, 300, 600, 900]
    assert [event for _, event in watch.told] == ["raised", "resolved"] * 4


def test_every_state_has_its_row_and_every_step_leads_to_a_state() -> None:
    assert NEXT.keys() == set(State)
    assert {step for row in NEXT.values() for step in row} == set(Step)
    assert {state for row in NEXT.values() for state in row.values()} == set(State)


looks = st.lists(st.tuples(st.floats(0.1, 400), st.booleans()), max_size=60)
times = st.sampled_from([0.0, 5.0, 60.0, 900.0])
rules = st.builds(
    lambda a, b, c: rule(for_seconds=a, clear_seconds=b, cooldown_seconds=c, targets=("oncall",)), times, times, times
)


@given(rules, looks)
def test_never_two_raises_without_a_resolve_between_and_the_cooldown_is_kept(of: Rule, given_looks: Any) -> None:
    watch = Watch(of)
    for step, is_open in given_looks:
        watch.now += step
        watch.look(breaker(is_open))
    ends = [event for _, event in watch.told if event != "repeated"]
    assert ends == (["raised", "resolved"] * len(ends))[: len(ends)]
    assert all(event != "repeated" or of.cooldown_seconds for _, event in watch.told)
    aloud = [(at, event) for at, event in watch.told if event != "resolved"]
    for (earlier, _), (later, event) in pairwise(aloud):
        least = of.cooldown_seconds if event == "repeated" else min(of.cooldown_seconds, FLAP_SECONDS)
        assert later - earlier >= least - 1e-3
    for row in watch.book.report():
        assert watch.book.is_active("it", str(row["destination"])) == (row["state"] == "raised")


kinds = st.sampled_from(["breaker-open", "activation-skipped-rate", "dead-letters-growing", "delivery-delay"])
steps = st.lists(
    st.tuples(st.floats(0.1, 400), st.booleans(), st.integers(0, 5), st.integers(0, 50), st.booleans()), max_size=40
)


@given(kinds, rules, steps)
def test_a_restart_changes_nothing(when: str, of: Rule, given_steps: Any) -> None:
    of = msgspec.structs.replace(of, when=when, threshold=KINDS[when].threshold, window_seconds=600.0)
    lasting, restarting = Watch(of), Watch(of)
    counts = {"delivered": 0, "excluded:no_email": 0, "dead_lettered:reason": 0}
    for step, is_open, bad, good, restarts in given_steps:
        counts = {"delivered": counts["delivered"] + good, **{name: counts[name] + bad for name in list(counts)[1:]}}
        figures = one(counts=counts, breaker="why" if is_open else "", delay_seconds=step * 5)
        if restarts:
            restarting.restart()
        for watch in (lasting, restarting):
            watch.now += step
            watch.look(figures)
    assert restarting.told == lasting.told
    assert restarting.book.report() == lasting.book.report()
    assert restarting.book.waiting_count("oncall") == lasting.book.waiting_count("oncall")


def test_what_was_raised_before_a_restart_is_resolved_after_it_and_not_raised_again() -> None:
    watch = Watch(rule(targets=("oncall",)))
    watch.look(breaker(True))
    for seconds, is_open in [(10, True), (20, True), (30, False)]:
        watch.restart()
        watch.now = START + seconds
        watch.look(breaker(is_open))
    assert watch.told == [(0, "raised"), (30, "resolved")]


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    watch = Watch(rule(for_seconds=60, clear_seconds=60, cooldown_seconds=600))
    for seconds, is_open in [(0, True), (60, True), (-86_400, True), (-86_400 + 600, True), (-86_400 + 660, False)]:
        watch.now = START + seconds
        watch.look(breaker(is_open))
    watch.now += 60
    watch.look(breaker(False))
    assert [event for _, event in watch.told] == ["raised", "repeated", "resolved"]


def test_a_destination_that_has_left_ends_its_alert() -> None:
    watch = Watch(rule())
    watch.look(breaker(True))
    watch.look({"other": DestinationFigures()})
    assert [event for _, event in watch.told] == ["raised", "resolved"]
    assert [row["destination"] for row in watch.book.report()] == ["other"]
    assert set(watch.rows) <= {("it", "other")}


@pytest.mark.parametrize(
    "stored",
    [b"", b"\xc1", msgspec.msgpack.encode(["delivery-delay"]), msgspec.msgpack.encode(["breaker-open", "sideways"])],
)
def test_rows_that_cannot_be_used_are_dropped(stored: bytes) -> None:
    book = book_of(rule(), stored={("it", "demo"): stored, ("gone", ""): msgspec.msgpack.encode(["breaker-open"])})
    assert book.report() == []
    assert book.changed() == {("gone", ""): None, ("it", "demo"): None}


def test_nothing_is_to_be_stored_while_nothing_changes() -> None:
    watch = Watch(*(rule(when, name=when) for when in KINDS))
    watch.look(one(counts={"delivered": 5}))
    for _ in range(100):
        watch.now += 5
        watch.book.evaluate(Figures(at=watch.now, destinations=one(counts={"delivered": 5})))
        assert watch.book.changed() == {}


# -- what each kind looks at ------------------------------------------------------------------------------------------

LETTERS = {"letters_max": 100}
CASES: list[tuple[str, Callable[[float], dict[str, Any]], float, float]] = [
    ("delivery-delay", lambda it: {"destinations": one(delay_seconds=it)}, 901.0, 800.0),
    ("breaker-open", lambda it: {"destinations": breaker(bool(it))}, 1, 0),
    ("token-failing", lambda it: {"destinations": one(token="token_http_401" * bool(it))}, 1, 0),
    ("watchdog", lambda it: {"destinations": one(stalled=bool(it))}, 1, 0),
    ("watchdog", lambda it: {"stalled": bool(it)}, 1, 0),
    ("dead-letters-full", lambda it: {"letters": int(it), "letters_max": 100}, 91, 80),
    ("journal-filling", lambda it: {"journal_bytes": int(it), "journal_max_bytes": 100}, 51, 44),
]


@pytest.mark.parametrize(("when", "figures", "bad", "good"), CASES)
def test_each_kind_is_raised_by_its_figure_and_resolved_by_it(when: str, figures: Any, bad: float, good: float) -> None:
    watch = Watch(rule(when))
    for value in (good, bad, good):
        watch.now += 5
        watch.look(**figures(value))
    assert [event for _, event in watch.told] == ["raised", "resolved"]


def test_a_disk_is_filling_when_little_is_free() -> None:
    watch = Watch(rule("disk-filling", threshold=1_000.0))
    for free in (2_000, 999, 1_050, 1_200):
        watch.look(disk_free_bytes=free)
    assert [event for _, event in watch.told] == ["raised", "resolved"]
    assert watch.state() == "resolved"


def test_what_stands_at_the_edge_stays_raised() -> None:
    watch = Watch(rule("journal-filling", threshold=0.5))
    for size in (51, 49, 51, 46, 51, 49):
        watch.now += 5
        watch.look(journal_bytes=size, journal_max_bytes=100)
    assert watch.told == [(5, "raised")]


def test_more_than_one_percent_of_activations_skipped_within_the_hour_is_told() -> None:
    """AEP's only alert for streaming destinations (domain reference §2.8)."""
    watch = Watch(rule("activation-skipped-rate"))
    watch.look(one(counts={"delivered": 1_000_000, "excluded:no_email": 900_000}))
    assert watch.told == [], "what was before is not of this hour"
    watch.now += 60
    watch.look(one(counts={"delivered": 1_000_099, "excluded:no_email": 900_001}))
    assert watch.told == [], "exactly one percent is not more"
    watch.now += 60
    (notice,) = watch.look(one(counts={"delivered": 1_000_099, "excluded:no_email": 900_002}))
    assert notice.figure == pytest.approx(2 / 101)
    assert "1.98 % of activations were skipped in the last hour; the threshold is 1 %" in notice.summary
    watch.now += 3_700
    watch.look(one(counts={"delivered": 1_000_099, "excluded:no_email": 900_002}))
    assert [event for _, event in watch.told] == ["raised", "resolved"]


@pytest.mark.parametrize("reason", ["audience", "exited", "dry_run", "synthetic", "forgotten", "overtaken"])
def test_what_somebody_wanted_excluded_is_no_skipped_activation(reason: str) -> None:
    watch = Watch(rule("activation-skipped-rate"))
    watch.look(one(counts={}))
    watch.look(one(counts={f"excluded:{reason}": 100, "delivered": 1}))
    assert watch.told == []


def test_failures_of_the_hour_count_against_all_that_was_activated() -> None:
    watch = Watch(rule("run-failed"))
    watch.look(one(counts={}))
    watch.look(one(counts={"dead_lettered:a": 3, "expired": 2, "delivered": 90, "suppressed": 5}))
    assert watch.told == [], "exactly five percent"
    watch.look(one(counts={"dead_lettered:a": 4, "expired": 2, "delivered": 90, "suppressed": 5}))
    assert [event for _, event in watch.told] == ["raised"]


def test_counts_that_a_crash_set_back_do_not_make_a_rate() -> None:
    watch = Watch(rule("dead-letters-growing"))
    for letters in (100, 90, 95):
        watch.now += 5
        watch.look(one(counts={"dead_lettered:a": letters}))
    assert watch.told == [(15, "raised")]
    assert watch.book.report()[0]["figure"] == 5


def test_a_paused_destination_is_not_late() -> None:
    watch = Watch(rule("delivery-delay"))
    watch.look(one(delay_seconds=1e6, paused=True))
    assert watch.told == []


def test_an_alert_is_about_its_destinations_only() -> None:
    watch = Watch(rule(destinations=frozenset({"other"})))
    watch.look({"demo": DestinationFigures(breaker="why"), "other": DestinationFigures(breaker="why")})
    assert [notice["destination"] for notice in watch.book.report()] == ["other"]


def test_the_laggard_and_the_time_left_are_named() -> None:
    watch = Watch(rule("journal-filling", threshold=0.8))
    figures = {"journal_bytes": 85, "journal_max_bytes": 100, "laggard": "demo", "journal_seconds_left": 600.0}
    (notice,) = watch.look(one(behind_events=31), **figures)
    assert (
        notice.summary
        == "the journal is 80 % full: destination demo is furthest behind, by 31 events; full in about 10 minutes"
    )
    watch = Watch(rule("journal-filling", threshold=0.8))
    (notice,) = watch.look(one(), **figures | {"journal_seconds_left": math.inf})
    assert notice.summary.endswith("it does not grow at present")


def test_every_kind_of_the_configuration_is_known_here_and_says_what_to_do() -> None:
    assert set(get_args(When)) == KINDS.keys() == ADVICE.keys()


# -- what waits to be told --------------------------------------------------------------------------------------------


def flapping(watch: Watch, times: int) -> None:
    for number in range(2 * times):
        watch.now += FLAP_SECONDS
        watch.look(breaker(number % 2 == 0))


def test_what_waits_is_told_oldest_first_and_each_target_has_its_own_list() -> None:
    watch = Watch(rule(targets=("oncall", "chat")))
    watch.book = AlertBook(watch.rules, random=random.Random(1), targets=["oncall", "chat"])
    flapping(watch, 1)
    first = watch.book.waiting("oncall")
    assert first is not None
    assert first.event == "raised"
    watch.book.done(first, "oncall")
    second, other = watch.book.waiting("oncall"), watch.book.waiting("chat")
    assert second is not None
    assert other is not None
    assert (second.event, other.id) == ("resolved", first.id)
    watch.book.done(second, "oncall")
    assert watch.book.waiting("oncall") is None
    assert watch.book.waiting_count("chat") == 2


def test_what_waits_survives_a_restart_under_the_same_id() -> None:
    watch = Watch(rule(targets=("oncall",)))
    flapping(watch, 2)
    before = [watch.book.waiting("oncall"), watch.book.waiting_count("oncall")]
    watch.restart()
    assert [watch.book.waiting("oncall"), watch.book.waiting_count("oncall")] == before
    notice = watch.book.waiting("oncall")
    assert notice is not None
    watch.book.done(notice, "oncall")
    watch.look(breaker(False))
    watch.restart()
    assert watch.book.waiting_count("oncall") == 3


def test_no_more_than_so_many_wait_and_the_oldest_go_first() -> None:
    watch = Watch(rule(targets=("oncall",)))
    step = OLDEST_SECONDS / (4 * MOST_WAITING)
    for number in range(2 * MOST_WAITING):
        watch.now += max(step, FLAP_SECONDS if number % 2 else 0)
        watch.look(breaker(number % 2 == 0))
    assert watch.book.waiting_count("oncall") <= MOST_WAITING
    assert {why for _, why in watch.book.given_up} <= {"dropped", "expired"}
    assert len(watch.book.given_up) + watch.book.waiting_count("oncall") == len(watch.told)


def test_what_could_not_be_told_for_a_day_is_given_up() -> None:
    watch = Watch(rule(targets=("oncall",)))
    watch.look(breaker(True))
    watch.now += OLDEST_SECONDS
    watch.look(breaker(False))
    assert watch.book.given_up == []
    watch.now += 1
    watch.look(breaker(False))
    assert watch.book.given_up == [("oncall", "expired")]
    assert watch.book.waiting_count("oncall") == 1


def test_what_waits_for_a_target_that_is_gone_is_forgotten() -> None:
    watch = Watch(rule(targets=("oncall",)))
    watch.look(breaker(True))
    book = book_of(rule(), stored=watch.rows, targets=("other",))
    assert book.waiting_count("oncall") == 0
    assert book.is_active("it", "demo")


def test_rows_that_could_not_be_stored_come_again() -> None:
    book = book_of(rule())
    book.evaluate(Figures(at=START, destinations=breaker(True)))
    rows = book.changed()
    assert len(rows) == 1
    assert book.changed() == {}
    book.keep_again(rows)
    assert book.changed() == rows
