"""The configuration of the way back: `[[forward]]`, and the source that stands for RainFocus itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.errors import ConfigError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = {"name": "hook", "url": "https://hook.example/rainfocus", "secret": SECRET}


def problems_of(**tables: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(tables)
    assert SECRET not in str(caught.value)
    return [it.removeprefix("configuration: ") for it in caught.value.problems]


def forward(**changed: Any) -> list[str]:
    return problems_of(forward=[{**HOOK, **changed}])


def test_there_is_none_by_default() -> None:
    assert Config.from_dict({}).forwards == ()


def test_a_forward_is_shown_without_its_secret() -> None:
    config = Config.from_dict({"forward": [HOOK]})
    assert SECRET not in f"{config!r} {config.describe()}"
    assert config.describe()["forward"][0]["url"] == HOOK["url"]


def test_two_secrets_sign_side_by_side_while_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{SECRET} {SECRET[:-1]}x\n")
    table = {"url": HOOK["url"], "secret_file": "secrets"}
    assert len(Config.from_dict({"forward": [table]}, base=tmp_path).forwards[0].secrets()) == 2


@pytest.mark.parametrize(
    "url", ["https://hook.example", "http://127.0.0.1:9/x", "http://localhost:9", "http://[::1]:9"]
)
def test_it_goes_to_https_or_to_this_machine(url: str) -> None:
    assert Config.from_dict({"forward": [{**HOOK, "url": url}]}).forwards[0].url == url


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "is required"),
        ("http://hook.example", "must be https"),
        ("https://hook.example/?token=1", "must end with the path"),
        ("https://user:pw@hook.example", "must not carry a user name or password"),
        ("hook.example", "must be a whole URL"),
    ],
)
def test_a_url_that_will_not_do_is_named(url: str, what: str) -> None:
    (problem,) = forward(url=url)
    assert problem.startswith(f"forward[0].url: {what}")


def test_every_request_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK_SECRET", raising=False)
    assert "forward[0].secret_env: is not set" in forward(secret="")[0]
    assert "HOOK_SECRET is not set" in forward(secret="", secret_env="HOOK_SECRET")[0]
    assert "is no webhook secret" in forward(secret="too short")[0]
    assert "stands beside secret" in forward(secret_env="HOOK_SECRET")[0]


def test_limits_are_related_as_those_of_a_destination() -> None:
    assert forward(rate={"requests_per_second": 1000.0})[0].startswith("forward[0].rate.burst: 2 is too small")
    assert forward(retry={"timeout_seconds": 12.0})[0].startswith("forward[0].retry.timeout_seconds: 12 is not below")
    assert forward(retry={"base_ms": 70_000})[0].startswith("forward[0].retry.base_ms: 70000 is more than cap_ms")


def test_forwards_and_destinations_have_names_of_their_own() -> None:
    assert "forward[0].name: 'demo' is the name of destination[0] already" in forward(name="demo")[0]
    assert "forward[1].name: 'hook' is the name of forward[0] already" in problems_of(forward=[HOOK, HOOK])[0]


def test_another_url_is_another_consumer_and_a_new_secret_is_not() -> None:
    def identity(**changed: Any) -> str:
        return Config.from_dict({"forward": [{**HOOK, **changed}]}).forwards[0].identity()

    assert identity() == identity(secret=SECRET[:-1] + "x", description="new")
    assert identity() != identity(url="https://other.example")


def test_a_key_for_rainfocus_is_limited_to_no_destination() -> None:
    """What it says concerns them all."""
    key = {"name": "rf", "sha256": "0" * 64, "source": "rainfocus", "destinations": ["demo"]}
    (problem,) = problems_of(ingress={"keys": [key]})
    assert problem.startswith("ingress.keys[0].destinations: must be all beside the source rainfocus")


def test_a_key_may_see_some_forwards_only() -> None:
    key = {"name": "ops", "sha256": "0" * 64, "scopes": ["destinations:view"], "destinations": ["hook"]}
    assert Config.from_dict({"ingress": {"keys": [key]}, "forward": [HOOK]}).ingress.keys[0].destinations == ("hook",)


def test_a_key_may_stand_for_rainfocus_and_no_source_may_take_that_name() -> None:
    key = {"name": "rf", "sha256": "0" * 64, "source": "rainfocus"}
    assert Config.from_dict({"ingress": {"keys": [key]}}).ingress.keys[0].source == "rainfocus"
    (problem,) = problems_of(source=[{"name": "rainfocus"}])
    assert problem.startswith("source[0].name: is the source that stands for RainFocus itself")
