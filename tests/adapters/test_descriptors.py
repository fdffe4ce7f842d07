from __future__ import annotations

import resource

import pytest

from engine.adapters.descriptors import FILES, connections_possible
from engine.errors import ConfigError


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Soft and hard limit of a process that is not this one."""
    held = [64, 128]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(held))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: held.__setitem__(slice(None), both))
    return held


def test_the_soft_limit_is_raised_as_far_as_needed(limits: list[int]) -> None:
    assert connections_possible(50, 10) == 50
    assert limits == [FILES + 60, 128]


def test_the_hard_limit_leaves_room_for_fewer(limits: list[int]) -> None:
    assert connections_possible(1_000, 10) == 128 - FILES - 10
    assert limits == [128, 128]


def test_a_high_limit_is_left_alone(limits: list[int]) -> None:
    limits[:] = [4_096, 4_096]
    assert connections_possible(1_000, 10) == 1_000
    assert limits == [4_096, 4_096]


def test_no_limit_is_no_problem(limits: list[int]) -> None:
    limits[:] = [64, resource.RLIM_INFINITY]
    assert connections_possible(1_000, 10) == 1_000
    assert limits == [FILES + 1_010, resource.RLIM_INFINITY]


def test_room_for_no_connection_at_all_is_a_problem(limits: list[int]) -> None:
    limits[:] = [FILES + 10, FILES + 10]
    with pytest.raises(ConfigError, match=f"needs {FILES + 11} at least"):
        connections_possible(1_000, 10)
