"""`[[destination]] audiences`: what of it means an id, what a name."""

from __future__ import annotations

import pytest

from engine import Config, Engine
from engine.assembly.outward import policy_of
from engine.config import AccountConfig, DestinationConfig
from engine.core.handover import exclusion
from engine.model import Lane, Membership, Profile, Trait


def goes(chosen: str, id: str, name: str = "") -> bool:
    """Whether a member of the audience leaves for a destination that chose `chosen`."""
    content = b'{"email":"a@b.example"}'
    profile = Profile(bytes(32), content, Trait.EMAIL, Lane.LIVE, 0, 0, 0, 1, 0.0, {id: Membership(True, 1.0, name)})
    return not exclusion(profile, policy_of(DestinationConfig(audiences=(chosen,)), AccountConfig()))


@pytest.mark.parametrize(
    ("chosen", "id", "name"),
    [
        ("3f0c", "ups/3f0c", ""),
        ("ups/3f0c", "ups/3f0c", ""),
        ("UPS/3f0c", "ups/3f0c", ""),
        ("CustomerAudienceUpload/7", "customeraudienceupload/7", ""),
        ("Summit registrants", "ups/3f0c", "Summit registrants"),
        (" Summit registrants ", "ups/3f0c", "Summit registrants"),
        ("EMEA / VIP", "ups/3f0c", "EMEA / VIP"),
        ("VIP", "aam/7", "VIP"),
        ("Summit registrants", "ups/Summit%20registrants", ""),
        ("*", "ups/3f0c", ""),
    ],
)
def test_an_audience_is_chosen_by_id_or_name(chosen: str, id: str, name: str) -> None:
    assert goes(chosen, id, name)


@pytest.mark.parametrize(
    ("chosen", "id", "name"), [("3f0c", "aam/3f0c", ""), ("VIP", "ups/7", "vip"), ("ups", "ups/7", "")]
)
def test_another_audience_is_not(chosen: str, id: str, name: str) -> None:
    assert not goes(chosen, id, name)


def test_a_membership_without_a_time_gets_the_engine_s() -> None:
    class Standing:
        def monotonic(self) -> float:
            return 0.0

        def time(self) -> float:
            return 1_790_000_000.0

    reader, _ = Engine(Config.from_dict({}), clock=Standing()).readers["default"]
    call = b'{"audienceId":"7","profiles":[{"email":"a@b.example"}]}'
    assert reader.read(call, "application/json").events[0].audiences == {"ups/7": Membership(True, 1_790_000_000.0)}
