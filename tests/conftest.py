"""Batteries say what they compared, as tests do."""

import pytest

pytest.register_assert_rewrite("engine.testing.contracts")
