"""Batteries say what they compared, as tests do; suites say their seed."""

import sys
from collections.abc import Callable

import hypothesis
import pytest

pytest.register_assert_rewrite("engine.testing.contracts")

# A mutant is killed by the first failing example: which one is smallest does not matter, that it is found again does.
hypothesis.settings.register_profile(
    "mutants", derandomize=True, database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Prints past pytest's capture: seeds and figures are for whoever runs the suite."""

    def write(line: object) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}")
            sys.stdout.flush()

    return write
