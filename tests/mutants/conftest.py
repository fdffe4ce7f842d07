"""The table of named bugs, at the end of the output."""

from __future__ import annotations

import pytest
from sown import BUGS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    caught = {
        report.nodeid.partition("[")[2].rstrip("]"): report.passed
        for report in reports
        if "test_the_bug_is_caught" in report.nodeid and report.when == "call"
    }
    if not caught:
        return
    terminalreporter.section("named bugs")
    for name, bug in BUGS.items():
        if name in caught:
            tests = ", ".join(test.partition("tests/")[2] for test in bug.tests)
            yes = "yes" if caught[name] else "NO"
            terminalreporter.write_line(f"{yes:<4} promise {bug.promise}  {name.replace('_', ' ')}")
            terminalreporter.write_line(f"               {bug.breaks}; caught by {tests}")
