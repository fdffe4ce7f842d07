from __future__ import annotations

import hashlib
import re
import tomllib
from typing import Any

import pytest

from engine.adapters.api_keys import Key, Keys, new_key
from engine.config import Config, IngressKeyConfig
from engine.errors import ConfigError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def config(name: str, secret: str, **more: Any) -> IngressKeyConfig:
    return IngressKeyConfig(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), **more)


def test_a_key_is_known_by_either_header() -> None:
    keys = Keys([config("aep", "one", source="crm"), config("ops", "two", scopes=("destinations:view",))])
    aep = Key("aep", frozenset({"profiles:write"}), "crm")
    assert keys.authenticate("Bearer one", None) == aep
    assert keys.authenticate("bearer  one ", None) == aep
    assert keys.authenticate(None, "one") == aep
    ops = keys.authenticate("Basic b25lOg==", "two")
    assert ops is not None
    assert ops.name == "ops"


@pytest.mark.parametrize(
    ("authorization", "x_api_key"),
    [(None, None), ("", ""), ("Bearer", None), ("Bearer wrong", None), ("one", None), ("Bearer wrong", "one")],
)
def test_nothing_else_is_a_key(authorization: str | None, x_api_key: str | None) -> None:
    assert Keys([config("aep", "one")]).authenticate(authorization, x_api_key) is None


def test_an_empty_secret_opens_nothing() -> None:
    keys = Keys([config("empty", "")])
    assert keys.authenticate(None, None) is None
    assert keys.authenticate("Bearer ", "") is None


def test_keys_that_are_not_text_are_refused_without_an_error() -> None:
    assert Keys([config("aep", "one")]).authenticate("Bearer \udcff\udcfe", None) is None


def test_replacing_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys([config("aep", "one")])
    monkeypatch.delenv("MISSING_KEY", raising=False)
    with pytest.raises(ConfigError):
        keys.replace([config("new", "two"), IngressKeyConfig(name="bad", secret_env="MISSING_KEY")])
    assert keys.authenticate(None, "one") is not None
    keys.replace([config("new", "two")])
    assert keys.authenticate(None, "one") is None
    assert keys.authenticate(None, "two") is not None
    assert keys.required
    keys.replace([])
    assert not keys.required


def test_a_quota_lets_one_second_worth_through_and_then_its_rate() -> None:
    clock = Clock()
    keys = Keys([config("aep", "one", max_events_per_second=100)], clock=clock)
    assert keys.take("aep", 60) == 0
    assert keys.take("aep", 40) == 0
    assert keys.take("aep", 50) == pytest.approx(0.5)
    clock.now = 0.49
    assert keys.take("aep", 50) == pytest.approx(0.01)
    clock.now = 0.5
    assert keys.take("aep", 50) == 0
    clock.now = 1_000
    assert keys.take("aep", 100) == 0
    assert keys.take("aep", 1) > 0


def test_a_request_larger_than_the_quota_passes_and_is_paid_for_afterwards() -> None:
    clock = Clock()
    keys = Keys([config("aep", "one", max_events_per_second=10)], clock=clock)
    assert keys.take("aep", 100) == 0
    assert keys.take("aep", 0) == pytest.approx(9.0)
    clock.now = 9.0
    assert keys.take("aep", 0) == 0
    assert keys.take("aep", 10) == pytest.approx(1.0)


def test_what_is_given_back_can_be_taken_again() -> None:
    keys = Keys([config("aep", "one", max_events_per_second=10)], clock=Clock())
    keys.take("aep", 10)
    keys.take("aep", -10)
    assert keys.take("aep", 10) == 0


def test_no_quota_means_no_limit() -> None:
    keys = Keys([config("aep", "one")], clock=Clock())
    assert keys.take("aep", 10**9) == keys.take("", 10**9) == 0


def test_a_reload_gives_nobody_a_fresh_quota() -> None:
    clock = Clock()
    keys = Keys([config("aep", "one", max_events_per_second=10)], clock=clock)
    keys.take("aep", 10)
    keys.replace([config("aep", "rotated", max_events_per_second=20)])
    assert keys.take("aep", 1) == pytest.approx(0.05)
    clock.now = 1.0
    assert keys.take("aep", 20) == 0


def test_a_new_key_goes_into_the_configuration_as_printed() -> None:
    secret, block = new_key("aep-prod")
    assert re.fullmatch(r"rfe_[A-Za-z0-9_-]{43}", secret)
    assert secret not in block
    assert new_key("aep-prod")[0] != secret
    loaded = Config.from_dict(tomllib.loads(block))
    assert [key.name for key in loaded.ingress.keys] == ["aep-prod"]
    assert Keys(loaded.ingress.keys).authenticate(f"Bearer {secret}", None) is not None


@pytest.mark.parametrize("name", ["", 'a"b', "a b", "lea@example.com"])
def test_a_key_needs_a_proper_name(name: str) -> None:
    with pytest.raises(ValueError, match="Expected `str` matching"):
        new_key(name)
