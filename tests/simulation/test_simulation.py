"""Seeds × faults × crashes on virtual time. A failing seed: SIMULATION_SEEDS=17 python -m pytest tests/simulation"""

from __future__ import annotations

import os

import pytest
from world import BURST, RATE, World

from engine.dispatcher import consumer, holding
from engine.testing.clock import run_virtual

SEEDS = [int(seed) for seed in os.environ.get("SIMULATION_SEEDS", "").split(",") if seed] or list(
    range(int(os.environ.get("SIMULATION_COUNT", "60")))
)


async def one_life_after_the_other(seed: int, rejects: float | None = None) -> World:
    world = World(seed, rejects)
    people = world.random.choice([3, 20, 300])
    for _ in range(world.random.randint(1, 5)):
        await world.live(world.random.uniform(0.1, 6.0), world.random.randint(5, 60), people)
    engine = await world.finish()
    report = await engine.control.audit()
    assert report["ok"], report
    await engine.__aexit__()
    return world


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 100,000 events in earnest has to happen in a few hundred here."""
    monkeypatch.setattr(holding, "STRAGGLER_SPAN_EVENTS", 60)
    monkeypatch.setattr(holding, "STRAGGLERS", 20)
    monkeypatch.setattr(holding, "STRAGGLERS_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(consumer, "READ_AHEAD_EVENTS", 200)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_every_store_ends_in_the_fold_and_never_goes_back(seed: int) -> None:
    check(run_virtual(one_life_after_the_other, seed))


def check(world: World) -> None:
    """The promises of DESIGN §3, at the end of everything."""
    assert world.wire.most_over(RATE, BURST) <= 1e-6
    assert world.wire.broke_silence == 0
    assert all(world.disk.holds(version) for version in world.acknowledged)
    for store in world.stores.values():
        assert store.most_in_flight_of_a_key <= 1
        assert store.regressions == []
        assert store.torn == []
        expected = world.disk.final()
        for email in world.forgotten | store.rejected:  # these may end outside the fold; they never go back either
            store.stored.pop(email, None)
            expected.pop(email, None)
        assert store.stored == expected


def test_the_simulation_is_not_vacuous() -> None:
    worlds = [run_virtual(one_life_after_the_other, seed) for seed in range(12)]
    seen = sum((world.seen for world in worlds), worlds[0].seen.__class__())
    for world in worlds:
        for store in world.stores.values():
            seen += store.seen
    for what in (
        "killed",
        "stopped",
        "forgotten",
        "held",
        "rejected",
        "replayed",
        "refused",
        "lost on the way",
        "landed late",
        "suppressed",
        "reply lost",
        "pause",
        "cut off",
        "ok",
    ):
        assert seen[what] > 3, f"{what} was never met: {seen}"
