"""Batteries say what they compared, as tests do."""

import hypothesis
import pytest

pytest.register_assert_rewrite("engine.testing.contracts")

# A mutant is killed by the first failing example: which one is smallest does not matter, that it is found again does.
hypothesis.settings.register_profile(
    "mutants", derandomize=True, database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)
