"""A pytest plugin that sows one bug into the engine before any test is collected, and notes how each test ends.

    MUTANT=NAME MUTANT_REPORT=FILE python -m pytest -p sown TEST…      (PYTHONPATH holds this directory)

Without MUTANT it only notes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import bugs_access
import bugs_changes
import bugs_consent
import bugs_edges
import bugs_fold
import bugs_segments
import bugs_storage
import bugs_wire
import pytest
from bug import BUGS

from engine.errors import EngineError

__all__ = [
    "BUGS",
    "bugs_access",
    "bugs_changes",
    "bugs_consent",
    "bugs_edges",
    "bugs_fold",
    "bugs_segments",
    "bugs_storage",
    "bugs_wire",
]

BROKEN = (AssertionError, TimeoutError, EngineError, pytest.fail.Exception)
"""How a promise is seen to be broken. Anything else is an error in the test, or in the bug."""

_ends: dict[str, str] = {}


def pytest_configure() -> None:
    name = os.environ.get("MUTANT")
    if name:
        BUGS[name].sow()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" or call.excinfo is not None:
        known = _ends.get(item.nodeid)
        _ends[item.nodeid] = known if known not in (None, "passed") else _end(call, report)
    return report


def pytest_sessionfinish() -> None:
    Path(os.environ["MUTANT_REPORT"]).write_text(json.dumps(_ends))


def _end(call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
    if report.outcome != "failed" or call.excinfo is None:
        return report.outcome
    error = call.excinfo.value
    return "broken" if _is_broken_promise(error) else f"error: {error!r}"[:300]


def _is_broken_promise(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_broken_promise(one) for one in error.exceptions)
    return isinstance(error, BROKEN) or "every task waits" in str(error)
