"""Scenarios with a size: what cannot be measured is refused, and what was asked for is what is measured."""

from __future__ import annotations

import pytest

from benchmarks.processes import Failed
from benchmarks.scenarios.growth import amounts_to
from benchmarks.scenarios.memory import PER_REQUEST, PROFILES, WARM_UP, roomy_config
from benchmarks.scenarios.registry import Scenario, scenarios, sized
from benchmarks.session import measured
from engine import Config

SIZED = [it for it in scenarios().values() if it.least_size]


@pytest.mark.parametrize("scenario", SIZED, ids=lambda it: it.name)
def test_a_size_below_the_least_is_refused_by_name(scenario: Scenario) -> None:
    assert sized([scenario], scenario.least_size) == [scenario]
    assert sized([scenario], 0) == [scenario]
    for size in (scenario.least_size - 1, -1):
        if size:
            with pytest.raises(Failed, match=f"too small for '{scenario.name}': at least .* {scenario.unit}"):
                sized([scenario], size)


def test_a_size_where_nothing_has_one_is_refused() -> None:
    with pytest.raises(Failed, match="none of array-10 has a size"):
        sized([scenarios()["array-10"]], 100)
    assert sized([scenarios()["array-10"], scenarios()["memory"]], 2_000)


@pytest.mark.parametrize("profiles", [1_000, PROFILES, 5 * PROFILES])
def test_all_profiles_of_the_memory_scenario_fit_into_its_buffer(profiles: int) -> None:
    config = Config.from_dict(roomy_config("http://127.0.0.1:9", profiles + WARM_UP))
    rounded_up = profiles + WARM_UP + 2 * PER_REQUEST
    assert config.buffer.max_profiles >= rounded_up
    assert config.buffer.max_bytes >= rounded_up * 1_500


@pytest.mark.parametrize(
    ("largest", "amounts"),
    [(100, [100]), (10_000, [10_000]), (50_000, [10_000, 50_000]), (1_000_000, [10_000, 100_000, 1_000_000])],
)
def test_growth_is_measured_up_to_the_size_that_was_asked_for(largest: int, amounts: list[int]) -> None:
    assert amounts_to(largest) == amounts


async def test_a_system_that_goes_away_while_tasks_watch_it_is_a_reason_and_no_crash() -> None:
    async def gone(*_: object) -> list[object]:
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [ConnectionRefusedError("nobody answers there")])])

    async def slip(*_: object) -> list[object]:
        raise ExceptionGroup("tasks", [ConnectionRefusedError("nobody answers there"), KeyError("a slip")])

    (subject,) = await measured(None, Scenario("one", "", gone), [])  # type: ignore[arg-type]
    assert (subject.status, subject.reason) == ("not measured", "nobody answers there")
    with pytest.raises(ExceptionGroup):
        await measured(None, Scenario("other", "", slip), [])  # type: ignore[arg-type]
