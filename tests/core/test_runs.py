"""Hourly runs with AEP's names."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.runs import describe, flow
from engine.history import HOUR_SECONDS, Run

HOUR = 497_480  # 2026-10-02T08
AT = float(HOUR * HOUR_SECONDS)
LATER = AT + 2 * HOUR_SECONDS


def run(audience: str = "", **fates: int) -> Run:
    named = {name.replace("__", ":"): events for name, events in fates.items()}
    return Run("demo", HOUR, audience, named, {} if audience else {"delivered": 3, "superseded": 2, "excluded:x": 1})


def described(now: float = LATER, **fates: int) -> dict[str, Any]:
    return describe(run(**fates), now)


def test_a_run_has_aeps_figures() -> None:
    found = described(delivered=6, suppressed=2, excluded__no_email=1, excluded__audience=2, dead_lettered__http_422=1)
    assert {name: found[name] for name in found if name.startswith(("identities", "profiles", "activation"))} == {
        "profiles_received": 12,
        "identities_activated": 8,
        "identities_removed": 0,
        "identities_excluded": 3,
        "identities_failed": 1,
        "activation_rate": 8 / 12,
    }
    assert (found["excluded"], found["failed"]) == ({"no_email": 1, "audience": 2}, {"http_422": 1})
    assert [(error["code"], error["recordCount"]) for error in found["errors"]] == [
        ("RFDEST-1102-403", 2),
        ("RFDEST-1101-422", 1),
        ("RFDEST-1401-422", 1),
    ]


def test_every_event_is_activated_excluded_or_failed() -> None:
    found = described(delivered=5, delivered__removed=4, suppressed=3, expired__max_age=2, excluded__exited=1)
    parts = [found[f"identities_{part}"] for part in ("activated", "excluded", "failed")]
    assert sum(parts) == found["profiles_received"] == 15
    assert found["identities_removed"] == 4
    assert found["identities_activated"] == 12


def test_an_empty_run_has_no_rate() -> None:
    assert described()["activation_rate"] is None


@pytest.mark.parametrize(
    ("now", "status", "finished_at", "seconds"),
    [
        (AT, "Processing", None, 0.0),
        (AT + 1_800, "Processing", None, 1_800.0),
        (AT + HOUR_SECONDS - 0.001, "Processing", None, HOUR_SECONDS - 0.001),
        (AT + HOUR_SECONDS, "Completed", AT + HOUR_SECONDS, HOUR_SECONDS),
        (AT - 60, "Processing", None, 0.0),  # the clock was set back
    ],
)
def test_a_run_is_completed_when_its_hour_is_over(
    now: float, status: str, finished_at: float | None, seconds: float
) -> None:
    found = described(now, delivered=1)
    assert (found["status"], found["started_at"], found["finished_at"]) == (status, AT, finished_at)
    assert found["processing_seconds"] == pytest.approx(seconds)


def test_its_id_names_destination_and_hour() -> None:
    assert described()["id"] == "demo-2026-10-02T08"


def test_the_plain_outcomes_stand_beside_the_whole_only() -> None:
    assert described()["outcomes"]["superseded"] == 2
    of_audience = describe(run("ups/a", delivered=1), LATER)
    assert "outcomes" not in of_audience
    assert of_audience["audience"] == "ups/a"


def test_the_shape_of_the_flow_service() -> None:
    audiences = [run("ups/3f0c7a52", delivered=6), run("CustomerAudienceUpload/vip", excluded__audience=1)]
    found: dict[str, Any] = flow(run(delivered=6, excluded__no_email=1, dead_lettered__http_503=2), audiences, LATER)
    metrics = found["metrics"]
    assert metrics["durationSummary"] == {"startedAtUTC": AT * 1000, "completedAtUTC": (AT + HOUR_SECONDS) * 1000}
    records = metrics["recordSummary"]
    assert (records["inputRecordCount"], records["outputRecordCount"]) == (9, 6)
    assert (records["skippedRecordCount"], records["failedRecordCount"]) == (1, 2)
    entities = records["targetSummaries"][0]["entitySummaries"]
    assert [(one["id"], one["outputRecordCount"]) for one in entities] == [
        ("segment:3f0c7a52", 6),
        ("segment:CustomerAudienceUpload/vip", 0),
    ]
    assert metrics["statusSummary"]["status"] == "success"
    assert [error["code"] for error in metrics["statusSummary"]["errors"]] == ["RFDEST-1401-503", "RFDEST-1101-422"]


def test_a_flow_that_is_not_over_has_no_end() -> None:
    found: dict[str, Any] = flow(run(delivered=1), (), AT + 5)
    assert "completedAtUTC" not in found["metrics"]["durationSummary"]
    assert found["metrics"]["statusSummary"]["status"] == "inProgress"
    assert found["metrics"]["recordSummary"]["targetSummaries"] == []
