"""`kill -9` at random moments: nothing that was acknowledged is lost, and no older state overwrites a newer one.

`KILL_SEED=7 make process` draws other moments. A seed repeats the order of the situations and the delays, not the run:
what the engine does meanwhile is up to the clock. A thousand kills: `make test-faults`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from scenes import deck, torture
from torture import victim_at

pytestmark = [pytest.mark.process, pytest.mark.timeout(170)]

SEED = int(os.environ.get("KILL_SEED", "1"))
KILLS = 20


async def test_nothing_acknowledged_is_lost_when_the_engine_is_killed_again_and_again(
    tmp_path: Path, say: Callable[[object], None]
) -> None:
    say(f"KILL_SEED={SEED} kills: {KILLS}")
    async with victim_at(tmp_path / "victim", "", random.Random(SEED)) as victim:
        await torture(victim, deck(victim.source, KILLS))
        figures = victim.figures
    say(figures)
    assert figures.unknown_requests > 0
    assert figures.acknowledged_events > 20 * KILLS
