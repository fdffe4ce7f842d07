"""`OUTAGE_FIGURES=1 python -m pytest tests/outages` prints what each test measured."""

from __future__ import annotations

import os
from typing import Any

import outage
import pytest

OF_THE_WIRE = {"test_outage_connections", "test_outage_reaching", "test_outage_replies", "test_outage_retry_after"}
"""What they are about has to hold whatever the engine sends with."""


def pytest_generate_tests(metafunc: Any) -> None:
    if metafunc.module.__name__ in OF_THE_WIRE:
        metafunc.parametrize("transport", ["aiohttp", "raw"], indirect=True)


@pytest.fixture(autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the engine sends with."""
    kind = getattr(request, "param", "raw")
    monkeypatch.setattr(outage, "TRANSPORT", kind)
    return str(kind)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if "OUTAGE_FIGURES" not in os.environ:
        return
    for report in terminalreporter.stats.get("passed", []):
        if report.when == "call" and report.user_properties:
            figures = ", ".join(f"{name} {value}" for name, value in report.user_properties)
            terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {figures}")
