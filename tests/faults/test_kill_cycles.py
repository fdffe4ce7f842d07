"""A thousand `kill -9` of real engines, several at a time, against oracles that are never killed.

`KILLS=100 KILL_SEED=7 KILL_LANES=2 make test-faults` for fewer, at other moments, with so many engines at a time;
`KILL_SECONDS=600` begins no more after so long. A seed repeats the order of the situations and the delays, not the run:
what an engine does meanwhile is up to the clock.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from scenes import Scene, deck, torture
from torture import Figures, Victim, victim_at

KILLS = int(os.environ.get("KILLS", "1000"))
SEED = int(os.environ.get("KILL_SEED", "1"))
SECONDS = float(os.environ.get("KILL_SECONDS", "inf"))
LANES = int(os.environ.get("KILL_LANES", "3"))
TOLD_EVERY = 25

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600 + 8 * KILLS)]


async def test_nothing_acknowledged_is_lost_in_a_thousand_kills(tmp_path: Path, say: Callable[[object], None]) -> None:
    say(f"KILL_SEED={SEED} KILLS={KILLS} KILL_LANES={LANES}")
    scenes, found = deck(random.Random(SEED), KILLS), list[Figures]()
    async with asyncio.TaskGroup() as tasks:
        for lane in range(LANES):
            tasks.create_task(_lane(tmp_path, lane, scenes[lane::LANES], found, say))
    total = Figures.of_all(found)
    say(f"KILL_SEED={SEED}: {total}")
    assert total.unknown_requests > total.kills // 10
    assert total.acknowledged_events > 20 * total.kills
    assert total.kills < 500 or total.torn["journal"], "no commit was ever cut in two"


async def _lane(
    folder: Path, lane: int, scenes: Sequence[Scene], found: list[Figures], say: Callable[[object], None]
) -> None:
    async with victim_at(folder / f"lane{lane}", f"l{lane}", random.Random(f"{SEED}/{lane}")) as victim:
        found.append(victim.figures)
        await torture(victim, _told(victim, lane, scenes, say))


def _told(victim: Victim, lane: int, scenes: Sequence[Scene], say: Callable[[object], None]) -> Iterator[Scene]:
    """Says from time to time how far it is."""
    started = time.monotonic()
    for number, scene in enumerate(scenes):
        if time.monotonic() - started > SECONDS:
            return
        if number and number % TOLD_EVERY == 0:
            figures = victim.figures
            say(
                f"lane {lane}: {number} of {len(scenes)} after {time.monotonic() - started:.0f} s, "
                f"{victim.oracle.acknowledged_events} events, unfinished writes {dict(figures.torn)}"
            )
        yield scene
