"""Which consumers go on, which start anew, and which have no place any more."""

from __future__ import annotations

import pytest

from engine.core.reconcile import Wanted, disagreements, orphan_problem, reconcile
from engine.ports import ConsumerState

FIRST, FOLLOWING = 100, 500


def stored(name: str, identity: str = "here") -> ConsumerState:
    return ConsumerState(name, identity, 100, 250, 300, clean=False, paused=True, counts={"delivered": 150})


def test_who_is_where_it_was_goes_on_untouched() -> None:
    state = stored("demo")
    plan = reconcile([state], [Wanted("demo", "here", "oldest")], FIRST, FOLLOWING)
    assert plan.states() == {"demo": state}
    assert plan.states()["demo"] is state
    assert (plan.add, plan.orphans, plan.notes) == ([], [], [])


@pytest.mark.parametrize(("start_at", "start"), [("now", FOLLOWING), ("oldest", FIRST)])
@pytest.mark.parametrize("known", [[], [stored("demo", "somewhere else")]], ids=["new", "moved"])
def test_a_new_place_is_a_new_consumer_that_begins_where_it_was_told(
    known: list[ConsumerState], start_at: str, start: int
) -> None:
    plan = reconcile(known, [Wanted("demo", "here", start_at)], FIRST, FOLLOWING)
    state = plan.states()["demo"]
    assert (state.identity, state.start, state.watermark, state.read_to) == ("here", start, start, start)
    assert (state.clean, state.paused, state.counts) == (True, False, {})
    assert plan.add == [state]
    assert len(plan.notes) == 1
    assert f"at offset {start} ({start_at})" in plan.notes[0]


def test_who_is_missing_from_the_configuration_is_an_orphan_and_is_named() -> None:
    plan = reconcile([stored("old"), stored("demo")], [Wanted("demo", "here", "now")], FIRST, FOLLOWING)
    assert [state.name for state in plan.orphans] == ["old"]
    assert "old" not in plan.states()
    problem = orphan_problem(plan.orphans[0], FOLLOWING)
    assert "up to 250 undelivered events" in problem
    assert "destinations remove old" in problem
    assert "destinations rename old NEW" in problem


def test_a_rename_in_the_configuration_is_not_guessed() -> None:
    """The same place under another name: an orphan and a new one, until a person says that they are one."""
    plan = reconcile([stored("old")], [Wanted("new", "here", "oldest")], FIRST, FOLLOWING)
    assert [state.name for state in plan.orphans] == ["old"]
    assert [state.name for state in plan.add] == ["new"]


def test_everybody_is_looked_at_whoever_comes_first() -> None:
    wanted = [Wanted("demo", "here", "now"), Wanted("new", "there", "now"), Wanted("other", "here", "now")]
    plan = reconcile([stored("other"), stored("demo")], wanted, FIRST, FOLLOWING)
    assert [state.name for state in plan.keep] == ["demo", "other"]
    assert [state.name for state in plan.add] == ["new"]


def test_the_start_up_error_says_what_can_be_done() -> None:
    state = ConsumerState("old", "here", 0, FOLLOWING, FOLLOWING, clean=True, counts={"delivered": FOLLOWING})
    assert orphan_problem(state, FOLLOWING) == (
        "destination 'old' is in the data directory (with up to 0 undelivered events) but not in the configuration: "
        "put it back, run 'rainfocus-engine destinations remove old' to expire its backlog, "
        "or 'rainfocus-engine destinations rename old NEW' to move it"
    )
    assert "up to 0 undelivered" in orphan_problem(state, FOLLOWING - 1)


def test_a_state_that_fits_the_journal_disagrees_in_nothing() -> None:
    """Up to both edges: settled to its very end, and needing its very first event."""
    at_the_end = ConsumerState("end", "here", 0, FOLLOWING, FOLLOWING, clean=True, settled_through=FOLLOWING - 1)
    at_the_start = ConsumerState("start", "here", 0, FIRST, FIRST, clean=True)
    assert disagreements([at_the_end, at_the_start], FIRST, FOLLOWING) == []


def test_offsets_that_the_journal_has_not_given_yet_are_a_disagreement() -> None:
    settled = ConsumerState("a", "here", 0, FIRST, FIRST, clean=True, settled_through=FOLLOWING)
    passed = ConsumerState("b", "here", 0, FOLLOWING + 2, FOLLOWING + 2, clean=True)
    assert disagreements([settled, passed], FIRST, FOLLOWING) == [
        "state.db knows of offsets up to 500 (destination 'a'), and journal.db ends before offset 500",
        "state.db knows of offsets up to 501 (destination 'b'), and journal.db ends before offset 500",
    ]


def test_events_that_are_needed_and_gone_are_a_disagreement() -> None:
    behind = ConsumerState("a", "here", 0, FIRST - 1, FIRST, clean=True)
    assert disagreements([behind], FIRST, FOLLOWING) == [
        "destination 'a' still needs the events from offset 99 on, and journal.db begins at 100"
    ]
