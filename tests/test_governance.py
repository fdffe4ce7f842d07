"""Labels, policies, marketing actions: what a policy forbids never starts, and the way to it is shown."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.assembly.service import Service
from engine.cli.app import app
from engine.cli.check import warnings_of
from engine.cli.serve import reload
from engine.config import Config
from engine.config.governance import ACTIONS, CORE_POLICIES, LABELS
from engine.errors import ConfigError

EXPORT = "export-to-third-party"


def problems(governance: dict[str, Any], *, source: dict[str, Any] | None = None, **destination: Any) -> list[str]:
    """What is wrong with this governance, [] for nothing."""
    tables = {
        "source": [source or {}],
        "governance": governance,
        "destination": [{"name": "rf", "marketing_actions": [EXPORT]} | destination],
    }
    try:
        Config.from_dict(tables)
    except ConfigError as error:
        return [it.removeprefix("configuration: ") for it in error.problems]
    return []


def policy(*labels: str, match: str = "any", **more: Any) -> dict[str, Any]:
    return {"name": "house", "labels": list(labels), "match": match, "deny": [EXPORT]} | more


def test_a_policy_in_force_refuses_the_activation_and_shows_the_way() -> None:
    found = problems({"core_policies": ["C2"], "labels": {"phone": ["C2"], "city": ["C9"]}})
    assert len(found) == 1
    problem = found[0]
    assert problem.startswith("destination[0].marketing_actions[0]: a policy forbids it: ")
    way = "field 'phone' → label 'C2' → policy 'C2' → marketing action 'export-to-third-party' → destination 'rf'"
    assert way in problem
    assert "keep the field or audience from this destination" in problem, "and how to mend it"


def test_all_policies_are_off_by_default() -> None:
    assert problems({"labels": {"phone": list(LABELS)}}, marketing_actions=list(ACTIONS)) == []
    assert problems({"labels": {"phone": ["C2"]}, "policy": [policy("C2", enabled=False)]}) == []


@pytest.mark.parametrize("name", CORE_POLICIES)
def test_every_core_policy_denies_its_actions_and_no_others(name: str) -> None:
    for action in ACTIONS:
        found = problems({"core_policies": [name], "labels": {"phone": [name]}}, marketing_actions=[action])
        assert bool(found) == (action in CORE_POLICIES[name]), action


def test_what_must_not_leave_in_any_way_is_denied_for_every_action() -> None:
    assert CORE_POLICIES["C12"] == ACTIONS
    assert len(ACTIONS) == 10


def test_a_label_counts_only_where_its_field_leaves() -> None:
    governance = {"core_policies": ["C2"], "labels": {"phone": ["C2"]}}
    assert problems(governance, fields=["firstname", "city"]) == []
    assert len(problems(governance, fields=["firstname", "phone"])) == 1
    assert len(problems({"core_policies": ["C2"], "labels": {"email": ["C2"]}}, fields=["city"])) == 1, "always leaves"


def test_the_hashed_address_is_a_field_of_its_own() -> None:
    governance = {"core_policies": ["C2"], "labels": {"email_lc_sha256": ["C2"]}}
    assert problems(governance) == []
    assert len(problems(governance, apply_transformation=True)) == 1


def test_a_label_of_a_source_field_counts_where_that_is_mapped_to() -> None:
    source = {"mapping": {"phone": "crm.mobile"}, "labels": {"crm.mobile": ["C2"], "crm.birthday": ["C2"]}}
    (problem,) = problems({"core_policies": ["C2"]}, source=source)
    assert "field 'crm.mobile' of source 'default' → field 'phone' → label 'C2'" in problem
    assert problems({"core_policies": ["C2"]}, source=source, fields=["city"]) == []
    assert len(problems({"core_policies": ["C2"]}, source={"labels": {"zip": ["C2"]}})) == 1, "under its own name"


def test_the_labels_of_a_source_do_not_count_where_it_is_not_read() -> None:
    tables = {
        "source": [{"name": "crm", "labels": {"phone": ["C2"]}}, {"name": "badge"}],
        "governance": {"core_policies": ["C2"]},
        "destination": [{"marketing_actions": [EXPORT], "sources": ["badge"]}],
    }
    assert Config.from_dict(tables)


def test_an_audience_brings_its_own_labels_and_those_of_the_fields_in_its_rule() -> None:
    audiences = [{"id": "ups/vip", "labels": ["C2"]}, {"id": "guests", "fields": ["phone"]}]
    governance = {"core_policies": ["C2"], "labels": {"phone": ["C2"]}, "audience": audiences}
    found = problems(governance, fields=["city"], audiences=["ups/vip", "ups/guests"])
    assert ["audience 'ups/vip' → label 'C2'" in found[0], len(found)] == [True, 2]
    assert "field 'phone' in the rule of audience 'guests' → label 'C2'" in found[1]
    assert problems(governance, fields=["city"], audiences=["ups/staff"]) == [], "none of them goes there"
    assert len(problems(governance, fields=["city"])) == 2, "all of them go there"


def test_all_means_together_in_one_activation() -> None:
    both = {"policy": [policy("C3", "I1", match="all")]}
    assert problems(both | {"labels": {"city": ["C3"]}}) == []
    (problem,) = problems(both | {"labels": {"city": ["C3"], "email": ["I1"]}})
    assert "field 'email' → label 'I1' and field 'city' → label 'C3' → policy 'house'" in problem
    with_audience = {"labels": {"email": ["I1"]}, "audience": [{"id": "vip", "labels": ["C3"]}]}
    assert len(problems(both | with_audience)) == 1, "an audience and the fields that leave with it"


def test_labels_of_two_audiences_do_not_come_together() -> None:
    audiences = [{"id": "vip", "labels": ["C3"]}, {"id": "guests", "labels": ["I1"]}]
    assert problems({"policy": [policy("C3", "I1", match="all")], "audience": audiences}) == []
    assert len(problems({"policy": [policy("C3", "I1")], "audience": audiences})) == 2


def test_each_violation_is_a_problem_of_its_own() -> None:
    found = problems(
        {"core_policies": ["C2", "C9"], "labels": {"phone": ["C2"], "city": ["C2"], "zip": ["C9"]}},
        marketing_actions=[EXPORT, "data-science", "email-targeting"],
    )
    assert [it.partition(":")[0] for it in found] == [
        "destination[0].marketing_actions[0]",
        "destination[0].marketing_actions[0]",
        "destination[0].marketing_actions[1]",
    ]


def test_own_labels_and_actions_are_declared() -> None:
    own = {
        "custom_labels": ["board-only"],
        "custom_actions": ["badge-printing"],
        "labels": {"jobtitle": ["board-only"]},
    }
    rule = policy("board-only", deny=["badge-printing"])
    assert problems(own | {"policy": [rule]}) == []
    assert len(problems(own | {"policy": [rule]}, marketing_actions=["badge-printing"])) == 1


@pytest.mark.parametrize(
    ("governance", "destination", "said"),
    [
        ({"labels": {"phone": ["c2"]}}, {}, "governance.labels.phone[0]: there is no label 'c2'; did you mean 'C2'?"),
        ({"labels": {"phone": ["secret"]}}, {}, "declare it in governance.custom_labels"),
        ({"labels": {"fone": ["C2"]}}, {}, "governance.labels.fone: there is no target field 'fone'; did you mean"),
        ({"audience": [{"fields": ["fone"]}]}, {}, "governance.audience[0].fields[0]: there is no target field"),
        ({"policy": [policy("C2", deny=["exprt"])]}, {}, "governance.policy[0].deny[0]: there is no marketing action"),
        ({"policy": [policy("C2"), policy("C3")]}, {}, "governance.policy[1].name: 'house' is the name of another"),
        ({"core_policies": ["C13"]}, {}, "governance.core_policies[0]: 'C13' is not one of"),
        ({}, {"marketing_actions": ["email_targeting"]}, "did you mean 'email-targeting'?"),
        ({"custom_labels": ["two words"]}, {}, "governance.custom_labels[0]: must be a name"),
    ],
)
def test_a_slip_in_a_name_is_found(governance: dict[str, Any], destination: dict[str, Any], said: str) -> None:
    (problem,) = problems(governance, **destination)
    assert said in problem


# -- where it is enforced ---------------------------------------------------------------------------------------------

FORBIDDEN = f"""
[governance]
core_policies = ["C2"]
labels = {{ phone = ["C2"] }}
[[destination]]
marketing_actions = ["{EXPORT}"]
"""


@pytest.mark.parametrize("command", ["check", "serve"])
def test_check_and_serve_refuse_it(tmp_path: Path, command: str) -> None:
    (tmp_path / "config.toml").write_text(FORBIDDEN)
    result = CliRunner().invoke(app, [command, "--config", str(tmp_path / "config.toml")])
    assert result.exit_code == 78
    assert "config.toml:6: destination[0].marketing_actions[0]: a policy forbids it: field 'phone'" in result.stderr
    assert not (tmp_path / "var").exists()


def test_a_reload_that_a_policy_forbids_is_refused_as_a_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    service = Service(Config.load(file))
    before = logging.getLogger("engine").level
    file.write_text(FORBIDDEN + '[log]\nlevel = "debug"\n')
    with caplog.at_level(logging.INFO):
        reload(service, lambda: Config.load(file))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "configuration not reloaded" in said
    assert "policy 'C2'" in said
    assert logging.getLogger("engine").level == before


def test_what_no_policy_can_concern_is_pointed_out() -> None:
    def warned(**tables: Any) -> list[str]:
        return [it for it in warnings_of(Config.from_dict(tables)) if "destination" in it]

    assert "names no marketing_actions" in warned(governance={"core_policies": ["C2"]})[0]
    assert warned() == []
    asks = [{"consent": [{"required": "share"}]}]
    assert "consents are not remembered" in warned(destination=asks, ledger={"enabled": False})[0]
    assert warned(destination=asks) == []


@pytest.mark.parametrize("path", ["marketing", "marketing.", "consents.share", "share.val", "marketing.e-mail", ""])
def test_a_consent_that_there_is_not_is_refused(path: str) -> None:
    (problem,) = problems({}, consent=[{"required": path}])
    assert problem.startswith("destination[0].consent[0].required: must be a consent: ")


@pytest.mark.parametrize("accepted", [["n"], ["u"], ["yes"], []])
def test_a_refusal_can_not_be_accepted(accepted: list[str]) -> None:
    assert len(problems({}, consent=[{"required": "share", "accepted": accepted}])) == 1
