"""What is judged when a profile is handed over."""

from __future__ import annotations

import json

import pytest

from engine.core.handover import Policy, exclusion, flag, fold_replays
from engine.model import NOTHING, LedgerEntry, Membership, Profile, Trait

KEY = bytes(32)
VIP, STAFF = "aam/vip", "aam/staff"


def profile(
    audiences: dict[str, bool] | None = None, *, traits: int = Trait.EMAIL, email: str = "a@b.example"
) -> Profile:
    memberships = None if audiences is None else {name: Membership(on, 1.0) for name, on in audiences.items()}
    content = json.dumps({"email": email} if traits & Trait.EMAIL else {}).encode()
    return Profile(KEY, content, traits, 0, 0, 0, 0, 1, 0.0, memberships)  # type: ignore[arg-type]


def only(*audiences: str, exits: str = "ignore") -> Policy:
    return Policy(audiences=frozenset(audiences), exits=exits)


def test_a_plain_profile_may_go() -> None:
    assert exclusion(profile(), Policy()) == ""


def test_a_hash_that_met_no_address_is_excluded() -> None:
    assert exclusion(profile(traits=Trait.NONE), Policy()) == "no_email"


def test_what_was_emptied_in_the_journal_was_forgotten() -> None:
    assert exclusion(profile(traits=Trait.ERASED), Policy()) == "forgotten"


def test_what_was_held_of_a_key_goes_nowhere_once_any_later_event_was_emptied() -> None:
    """The forget is still to be read: the copy on disk is from before it as well."""
    assert exclusion(profile(traits=Trait.ERASED | Trait.EMAIL), Policy()) == "forgotten"


@pytest.mark.parametrize(("refuse", "reason"), [(True, "synthetic"), (False, "")])
def test_addresses_of_benches_never_reach_real_people_s_store(refuse: bool, reason: str) -> None:
    assert exclusion(profile(email="u1@bench.invalid"), Policy(refuse_synthetic=refuse)) == reason


@pytest.mark.parametrize(
    ("audiences", "reason"),
    [
        (None, "audience"),
        ({}, "audience"),
        ({STAFF: True}, "audience"),
        ({VIP: True}, ""),
        ({VIP: True, STAFF: False}, ""),
        ({VIP: False}, "exited"),
        ({VIP: False, STAFF: True}, "exited"),
    ],
)
def test_a_destination_with_audiences_takes_only_who_is_in_one(audiences: dict[str, bool] | None, reason: str) -> None:
    assert exclusion(profile(audiences), only(VIP)) == reason


def test_being_in_one_of_several_is_enough() -> None:
    assert exclusion(profile({VIP: False, STAFF: True}), only(VIP, STAFF)) == ""


@pytest.mark.parametrize(
    ("name", "reason"), [("Summit registrants", ""), ("summit registrants", "audience"), ("", "audience")]
)
def test_an_audience_may_be_chosen_by_its_name(name: str, reason: str) -> None:
    one = profile({STAFF: True})
    one.audiences = {STAFF: Membership(True, 1.0, name)}
    policy = Policy(audiences=frozenset({VIP}), names=frozenset({"Summit registrants", ""}), exits="flag:in")
    assert exclusion(one, policy) == reason
    assert flag(one, policy) is (None if reason else True)


def test_without_audiences_in_the_config_whoever_has_none_may_go_and_whoever_left_all_may_not() -> None:
    assert exclusion(profile(None), Policy()) == ""
    assert exclusion(profile({VIP: True}), Policy()) == ""
    assert exclusion(profile({VIP: False}), Policy()) == "exited"


@pytest.mark.parametrize("exits", ["store", "flag:isvip"])
def test_exits_may_be_stored_instead(exits: str) -> None:
    assert exclusion(profile({VIP: False}), only(VIP, exits=exits)) == ""
    assert exclusion(profile({STAFF: True}), only(VIP, exits=exits)) == "audience"


@pytest.mark.parametrize(
    ("audiences", "value"), [({VIP: True}, True), ({VIP: False}, False), ({STAFF: True}, None), (None, None)]
)
def test_the_flag_says_whether_the_attendee_is_in_now(audiences: dict[str, bool] | None, value: bool | None) -> None:
    assert flag(profile(audiences), only(VIP, exits="flag:isvip")) is value


@pytest.mark.parametrize("exits", ["ignore", "store"])
def test_without_a_flag_field_there_is_nothing_to_say(exits: str) -> None:
    assert flag(profile({VIP: True}), only(VIP, exits=exits)) is None


def test_replays_fold_newest_first_and_overtaken_ones_are_kept_apart() -> None:
    """Three letters of one key: what a newer one says wins, what a confirmed state has passed is not sent."""

    def part(through: int, **fields: int) -> Profile:
        return Profile(KEY, json.dumps(fields).encode(), 1, 1, NOTHING, through, 20 + through, 1, 0.0, letter=through)  # type: ignore[arg-type]

    def merge(older: bytes, newer: bytes) -> tuple[bytes, int]:
        return json.dumps(json.loads(older) | json.loads(newer)).encode(), 1

    one = profile()
    one.content = b'{"city": 0}'
    one.under = [part(2, zip=2), part(7, zip=7, phone=7), part(9, zip=9, city=9)]
    fold_replays(one, LedgerEntry(KEY, "delivered", "", 5, confirmed_through=5), merge)
    assert json.loads(one.content) == {"city": 0, "zip": 9, "phone": 7}
    assert one.events == 3
    assert one.under is None
    assert [part.letter for part in one.passed or ()] == [2]


def test_when_every_replay_is_overtaken_none_is_left_to_fold() -> None:
    one = profile()
    one.under = [Profile(KEY, b'{"zip": 2}', 1, 1, NOTHING, 2, 22, 1, 0.0, letter=2)]  # type: ignore[arg-type]
    fold_replays(one, LedgerEntry(KEY, "delivered", "", 5, confirmed_through=5), lambda older, newer: (newer, 1))
    assert one.under is None
    assert [part.letter for part in one.passed or ()] == [2]
    assert one.events == 1


def test_a_replay_that_was_emptied_in_the_journal_takes_no_newer_event_with_it() -> None:
    """Its forget is older than the events that came after the dead letter: those are not forgotten."""
    whole = profile()
    whole.under = [profile(traits=Trait.ERASED)]
    fold_replays(whole, None, lambda older, newer: (newer, 0))
    assert exclusion(whole, Policy()) == ""
    assert len(whole.passed or ()) == 1


def test_a_key_that_the_ledger_does_not_know_has_overtaken_nothing() -> None:
    one = profile()
    one.under = [Profile(KEY, b'{"zip": 2}', 1, 1, NOTHING, 0, 22, 1, 0.0, letter=2)]  # type: ignore[arg-type]
    fold_replays(one, None, lambda older, newer: (newer, 1))
    assert (one.under, one.passed, one.events) == (None, None, 2)


@pytest.mark.parametrize("more", [Trait.NONE, Trait.EMAIL, Trait.ERASED])
def test_what_a_damaged_journal_could_not_give_back_is_excluded_as_lost(more: Trait) -> None:
    assert exclusion(profile(traits=Trait.LOST | more), Policy()) == "lost"
