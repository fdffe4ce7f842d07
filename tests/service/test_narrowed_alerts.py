"""A caller who is limited to some destinations sees their alerts, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.service.narrowed import Narrowed


def test_alerts_of_other_destinations_and_of_the_engine_are_left_out() -> None:
    """The journal's alert names whoever is furthest behind, so it is not shown either; nor is who is told."""
    alerts = [{"alert": "late", "destination": name} for name in ("ours", "theirs", "")]
    control: Any = SimpleNamespace(
        alerts=lambda: {"alerts": alerts, "targets": [{"name": "oncall"}]},
        status=lambda: {"alerts": alerts, "accounts": []},
        destinations=lambda: [{"name": "ours", "account": "a"}, {"name": "theirs", "account": "a"}],
    )
    narrowed = Narrowed(control, SimpleNamespace(destinations=frozenset({"ours"})))  # type: ignore[arg-type]
    assert narrowed.alerts() == {"alerts": alerts[:1], "targets": []}
    assert narrowed.status()["alerts"] == alerts[:1]
