"""Hourly runs as people and programs read them, with AEP's names (domain reference §2.10). Pure.

activation rate = activated / (activated + failed + excluded), a failure counting only after the last retry (U-20). All
of it is in events: an event that was merged into a newer one of the same person counts where that one ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from engine.core.audit import outcomes_of
from engine.core.codes import errors
from engine.history import HOUR_SECONDS, REMOVED, Run

PROCESSING, COMPLETED = "Processing", "Completed"

SEGMENTATION = "ups/"
"""AEP's own audiences are named by their id alone there."""

Json = dict[str, object]


def describe(run: Run, now: float) -> Json:
    """One run. `now`: epoch seconds."""
    started, ended = float(run.hour * HOUR_SECONDS), float((run.hour + 1) * HOUR_SECONDS)
    over = now >= ended
    excluded, failed = _by_reason(run.fates, "excluded"), _by_reason(run.fates, "dead_lettered", "expired")
    received = sum(run.fates.values())
    activated = received - sum(excluded.values()) - sum(failed.values())
    described: Json = {
        "id": run_id(run),
        "destination": run.consumer,
        "audience": run.audience or None,
        "status": COMPLETED if over else PROCESSING,
        "started_at": started,
        "finished_at": ended if over else None,
        "processing_seconds": HOUR_SECONDS if over else max(0.0, now - started),
        "profiles_received": received,
        "identities_activated": activated,
        "identities_removed": run.fates.get(REMOVED, 0),
        "identities_excluded": sum(excluded.values()),
        "identities_failed": sum(failed.values()),
        "activation_rate": activated / received if received else None,
        "excluded": excluded,
        "failed": failed,
        "errors": errors(run.fates),
    }
    return described if run.audience else described | {"outcomes": outcomes_of(run.counts)}


def run_id(run: Run) -> str:
    """The same hour of the same destination has the same id, whoever asks."""
    hour = datetime.fromtimestamp(run.hour * HOUR_SECONDS, UTC)
    return f"{run.consumer}-{hour:%Y-%m-%dT%H}"


def _by_reason(fates: Mapping[str, int], *outcomes: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, events in fates.items():
        outcome, _, reason = name.partition(":")
        if outcome in outcomes:
            found[reason or outcome] = found.get(reason or outcome, 0) + events
    return found


# -- as the Flow Service of AEP has it ----------------------------------------------------------------------------


def flow(run: Run, audiences: Sequence[Run], now: float) -> Json:
    """The same run in the shape of a Flow Service run. Created and updated are not told apart: RainFocus does not say
    which it was."""
    whole = describe(run, now)
    summaries = [_entity(one, now) for one in audiences]
    targets = [{"id": run.consumer, "entitySummaries": summaries}] if summaries else []
    return {
        "id": whole["id"],
        "flowId": run.consumer,
        "metrics": {
            "durationSummary": {"startedAtUTC": _milliseconds(whole, "started_at")}
            | ({"completedAtUTC": _milliseconds(whole, "finished_at")} if whole["finished_at"] else {}),
            "recordSummary": _records(whole) | {"targetSummaries": targets},
            "statusSummary": {
                "status": "success" if whole["status"] == COMPLETED else "inProgress",
                "errors": whole["errors"],
            },
        },
    }


def _entity(run: Run, now: float) -> Json:
    return {"id": f"segment:{run.audience.removeprefix(SEGMENTATION)}"} | _records(describe(run, now))


def _records(whole: Json) -> Json:
    return {
        "inputRecordCount": whole["profiles_received"],
        "outputRecordCount": whole["identities_activated"],
        "deletedRecordCount": whole["identities_removed"],
        "skippedRecordCount": whole["identities_excluded"],
        "failedRecordCount": whole["identities_failed"],
    }


def _milliseconds(whole: Json, name: str) -> int:
    return round(float(str(whole[name])) * 1_000)
