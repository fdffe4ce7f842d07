"""Batteries say what they compared, as tests do; suites say their seed; any service can be had with ingress workers."""

import os
import sys
from collections.abc import Callable

import hypothesis
import pytest

from engine.assembly.service import Service
from engine.cli.spawn import spawn
from engine.config import Config

WORKERS = int(os.environ.get("ENGINE_WORKERS", "1"))
"""Processes that take events in, of every `Service` in a test (`make workers`)."""

pytest.register_assert_rewrite("engine.testing.contracts")

# A mutant is killed by the first failing example: which one is smallest does not matter, that it is found again does.
hypothesis.settings.register_profile(
    "mutants", derandomize=True, database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)


@pytest.fixture(autouse=WORKERS > 1)
def _with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same calls get the same answers, whoever gives them."""
    alone, reload = Service.__init__, Service.reload

    def with_workers(self: Service, config: Config) -> None:
        alone(self, config.with_workers(WORKERS), spawn=spawn)

    def reload_with_workers(self: Service, config: Config) -> list[str]:
        return reload(self, config.with_workers(WORKERS))

    monkeypatch.setattr(Service, "__init__", with_workers)
    monkeypatch.setattr(Service, "reload", reload_with_workers)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Prints past pytest's capture: seeds and figures are for whoever runs the suite."""

    def write(line: object) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}")
            sys.stdout.flush()

    return write
