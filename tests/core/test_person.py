"""What became of one person, in a sentence: every state has one, and none says more than is known."""

from __future__ import annotations

from itertools import product

import pytest

from engine.core.person import UNKNOWN, summary
from engine.model import Outcome

STATES = ("waiting", "leased", "held", "settled", "unknown")


@pytest.mark.parametrize(
    ("state", "outcome", "reason", "said"),
    [
        ("waiting", None, None, "On its way: waiting"),
        ("leased", None, None, "On its way: in a request"),
        ("held", None, None, "On its way: kept on disk"),
        ("settled", "delivered", "", "Delivered: RainFocus confirmed it."),
        ("settled", "suppressed", "", "RainFocus holds exactly this content"),
        ("settled", "excluded", "no_email", "Not sent: no plain e-mail address is known (RFDEST-1101-422)."),
        ("settled", "excluded", "forgotten", "Not sent: erased on demand (RFDEST-1105-410)."),
        ("settled", "dead_lettered", "response_code_27", "responseCode 27 (RFDEST-1402-422)"),
        ("settled", "expired", "max_age", "Expired: given up as too old: older than"),
        ("unknown", None, None, UNKNOWN),
    ],
)
def test_every_state_is_told(state: str, outcome: str | None, reason: str | None, said: str) -> None:
    assert said in summary(state, outcome, reason, 0, "")


@pytest.mark.parametrize(("state", "outcome"), [*product(STATES, [None, *map(str, Outcome)])])
def test_there_is_a_sentence_for_whatever_comes_together(state: str, outcome: str | None) -> None:
    for reason, letters, trouble in product(("", "http_503"), (0, 2), ("", "paused")):
        said = summary(state, outcome, reason if outcome else None, letters, trouble)
        assert said[0].isupper()
        assert said.endswith(".")
        assert "None" not in said


def test_it_says_why_nothing_moves_and_what_was_before() -> None:
    said = summary("waiting", "delivered", "", 1, "http_503")
    assert "stands still: http_503" in said
    assert "before that: Delivered" in said
    assert "dead letters kept: 1" in said


def test_trouble_of_the_destination_does_not_concern_who_has_arrived() -> None:
    assert "stands still" not in summary("settled", "delivered", "", 0, "http_503")
