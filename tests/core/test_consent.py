"""What a person's consents allow, and how what is said about them is merged."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from engine.core.codec import pack_consents, unpack_consents
from engine.core.consent import FOR_THE_ADDRESS, Rule, allowed, opted_out, places_of, recall, stated
from engine.core.fold import add_event, fold_consents
from engine.core.handover import Policy, exclusion, flag, reduced
from engine.model import Consent, Event, LedgerEntry, Membership, Profile, Trait
from engine.profiles.consents import FOR_THE_ADDRESS as PARSED_FOR_THE_ADDRESS
from engine.profiles.mapping import merge_contents

KEY = bytes(32)
EMAIL = "marketing.email"
MINE = "idSpecific.marketing.email"


def said(given: Mapping[str, str] | None = None, at: float | None = None) -> dict[str, Consent]:
    return {path: Consent(value, at) for path, value in (given or {}).items()}


def profile(consents: Mapping[str, str] | None = None, *, realized: bool | None = None) -> Profile:
    content = json.dumps({"email": "lea@example.com", "city": "Lille"}, separators=(",", ":")).encode()
    audiences = None if realized is None else {"ups/vip": Membership(realized, 1.0)}
    made = Profile(KEY, content, int(Trait.EMAIL), 0, 0, 0, 0, 1, 0.0, audiences)  # type: ignore[arg-type]
    made.consents = said(consents) or None
    return made


@pytest.mark.parametrize(
    ("consents", "value"),
    [
        ({}, ""),
        ({EMAIL: "u"}, ""),
        ({EMAIL: "y"}, "y"),
        ({EMAIL: "LI"}, "LI"),
        ({"marketing.any": "n", EMAIL: "y"}, "n"),
        ({"marketing.any": "n", EMAIL: "y", MINE: "y"}, "n"),
        ({"marketing.any": "y", EMAIL: "n"}, "n"),
        ({"marketing.any": "y", EMAIL: "p"}, "y"),
        ({"marketing.any": "y"}, "y"),
        ({"marketing.any": "LI"}, "LI"),
        ({"marketing.any": "LI", EMAIL: "p"}, "p"),
        ({EMAIL: "n", MINE: "y"}, "n"),
        ({EMAIL: "y", MINE: "n"}, "n"),
        ({EMAIL: "p", MINE: "y"}, "y"),
        ({MINE: "y"}, "y"),
        ({"idSpecific.marketing.any": "n", MINE: "y", EMAIL: "y"}, "n"),
        ({"marketing.sms": "n"}, ""),
    ],
)
def test_what_holds_for_a_channel(consents: Mapping[str, str], value: str) -> None:
    """XDM's rules: `any` = n overrides all, a channel's n beats idSpecific, and idSpecific beats a channel's y."""
    assert stated(said(consents), EMAIL) == value


def test_what_is_no_marketing_has_no_any() -> None:
    assert stated(said({"share": "y", "marketing.any": "n"}), "share") == "y"
    assert places_of("share") == ("idSpecific.share", "share")
    assert places_of("marketing.any") == ("idSpecific.marketing.any", "marketing.any")


def test_the_parser_and_the_rules_mean_the_same_place() -> None:
    assert f"{PARSED_FOR_THE_ADDRESS}." == FOR_THE_ADDRESS


@pytest.mark.parametrize(
    ("consents", "rule", "allows", "out"),
    [
        ({EMAIL: "y"}, Rule(EMAIL), True, False),
        ({EMAIL: "p"}, Rule(EMAIL), False, False),
        ({EMAIL: "p"}, Rule(EMAIL, frozenset({"y", "p"})), True, False),
        ({EMAIL: "n"}, Rule(EMAIL, absent_allows=True), False, True),
        ({}, Rule(EMAIL), False, False),
        ({}, Rule(EMAIL, absent_allows=True), True, False),
        ({EMAIL: "u"}, Rule(EMAIL, absent_allows=True), True, False),
    ],
)
def test_what_a_rule_allows(consents: Mapping[str, str], rule: Rule, allows: bool, out: bool) -> None:
    assert allowed(said(consents), (rule,)) is allows
    assert opted_out(said(consents), (rule,)) is out


def test_every_rule_has_to_hold() -> None:
    rules = (Rule(EMAIL), Rule("share", absent_allows=True))
    assert allowed(said({EMAIL: "y"}), rules)
    assert not allowed(said({EMAIL: "y", "share": "n"}), rules)


# -- the fold -------------------------------------------------------------------------------------------------------


def test_per_path_the_last_word_wins_and_silence_changes_nothing() -> None:
    merged = profile({EMAIL: "n", "share": "y"})
    add_event(merged, Event(KEY, b"{}", consents=said({EMAIL: "y"})), 1, merge_contents)
    add_event(merged, Event(KEY, b"{}"), 2, merge_contents)
    assert merged.consents == said({EMAIL: "y", "share": "y"})


def test_an_older_word_by_its_own_time_does_not_win() -> None:
    """For sources that go by it; one without a time is as new as its arrival."""
    assert fold_consents(said({EMAIL: "n"}, 20.0), said({EMAIL: "y"}, 10.0)) == said({EMAIL: "n"}, 20.0)
    assert fold_consents(said({EMAIL: "n"}, 20.0), said({EMAIL: "y"}, 20.0)) == said({EMAIL: "y"}, 20.0)
    assert fold_consents(said({EMAIL: "n"}, 20.0), said({EMAIL: "y"})) == said({EMAIL: "y"})
    assert fold_consents(said({EMAIL: "n"}), said({EMAIL: "y"}, 10.0)) == said({EMAIL: "y"}, 10.0)


def test_what_was_said_in_settled_events_is_older_than_what_waits() -> None:
    entry = LedgerEntry(KEY, "excluded", "consent", 7, consents=pack_consents(said({EMAIL: "n", "share": "n"})))
    newer = profile({EMAIL: "y"})
    recall(newer, entry)
    assert newer.consents == said({EMAIL: "y", "share": "n"})


def test_packing_gives_back_what_was_said() -> None:
    assert unpack_consents(pack_consents(said({EMAIL: "n"}, 3.0))) == said({EMAIL: "n"}, 3.0)
    assert pack_consents({}) == pack_consents(None) == b""
    assert unpack_consents(b"") is None


# -- hand-over --------------------------------------------------------------------------------------------------------

RULES = (Rule(EMAIL),)


@pytest.mark.parametrize("exits", ["ignore", "store"])
@pytest.mark.parametrize("consents", [None, {EMAIL: "n"}, {EMAIL: "p"}])
def test_whoever_has_not_consented_is_excluded(exits: str, consents: Mapping[str, str] | None) -> None:
    assert exclusion(profile(consents), Policy(exits=exits, consents=RULES)) == "consent"
    assert exclusion(profile({EMAIL: "y"}), Policy(exits=exits, consents=RULES)) == ""


def test_an_opt_out_leaves_as_address_and_flag_and_nothing_else() -> None:
    policy = Policy(exits="flag:optedin", consents=RULES)
    opted = profile({EMAIL: "n"}, realized=True)
    assert exclusion(opted, policy) == ""
    assert flag(opted, policy) is False
    assert json.loads(reduced(opted, policy).content) == {"email": "lea@example.com"}
    assert json.loads(opted.content)["city"] == "Lille", "what waits is not changed: the person may opt in again"


def test_silence_is_no_opt_out_and_creates_nobody() -> None:
    """A flag tells of a refusal; of somebody who never said anything nothing leaves."""
    policy = Policy(exits="flag:optedin", consents=RULES)
    assert exclusion(profile(), policy) == "consent"
    assert flag(profile(), policy) is None


def test_a_new_consent_takes_the_flag_back() -> None:
    """Also of somebody who is in no audience: an opt-out would stand for ever else."""
    policy = Policy(exits="flag:optedin", consents=RULES)
    assert flag(profile({EMAIL: "y"}), policy) is True
    assert flag(profile({EMAIL: "y"}, realized=False), policy) is False
    assert flag(profile({EMAIL: "y"}), Policy(exits="flag:optedin")) is None, "where nobody asks it tells nothing"


def test_whoever_consents_leaves_whole() -> None:
    policy = Policy(exits="flag:optedin", consents=RULES)
    member = profile({EMAIL: "y"}, realized=True)
    assert reduced(member, policy) is member
    assert flag(member, policy) is True
