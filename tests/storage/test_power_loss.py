"""The power goes at every step of a life of journal and state file; what was promised before is there after it."""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path

import pytest

from engine.adapters.sqlite import journal as journal_module
from engine.adapters.sqlite import state as state_module
from engine.testing import SimulatedDisk
from tests.storage.losses import LOSSES, Enumeration, JournalLife, Life, StateLife

pytestmark = pytest.mark.usefixtures("frequent_checkpoints", "small_segments")
Say = Callable[[object], None]
FAST = 15
"""Every so many steps are looked at where all of them would take too long."""


def steps_of(name: str) -> set[tuple[str, str]]:
    """What a life has to contain, or nothing is proved by it."""
    files = {("create", name), ("write", name), ("sync", name), ("create", f"{name}-wal"), ("write", f"{name}-wal")}
    return {*files, ("sync", f"{name}-wal"), ("truncate", f"{name}-wal"), ("delete", f"{name}-wal"), ("directory", "")}


SEGMENTS = {
    (operation, f"journal-00000{n}.segment") for operation in ("create", "write", "sync") for n in (1, 2, 3)
} | {
    *((operation, "journal-rewriting") for operation in ("create", "write", "sync")),
    ("directory", ""),
}
"""As `steps_of`, of segments: several are begun, zeroed and begun again, and records are rewritten."""


async def test_nothing_acknowledged_is_lost_when_the_power_goes(tmp_path: Path) -> None:
    await check(JournalLife(), steps_of("journal.db"), tmp_path, every=FAST)


async def test_nothing_acknowledged_is_lost_of_segments_when_the_power_goes(tmp_path: Path) -> None:
    await check(JournalLife(kind="segments"), SEGMENTS, tmp_path, every=5)


async def test_nothing_settled_is_lost_or_halved_when_the_power_goes(tmp_path: Path) -> None:
    await check(StateLife(), steps_of("state.db"), tmp_path, every=FAST)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
async def test_nothing_acknowledged_is_lost_whenever_the_power_goes(seed: int, tmp_path: Path, say: Say) -> None:
    images = await check(JournalLife(seed), steps_of("journal.db"), tmp_path, seed=seed)
    say(f"the power went {images} times in a life of the journal")


@pytest.mark.faults
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", range(8))
async def test_nothing_acknowledged_is_lost_of_segments_whenever_the_power_goes(
    seed: int, tmp_path: Path, say: Say
) -> None:
    images = await check(JournalLife(seed, 60, "segments"), SEGMENTS, tmp_path, seed=seed)
    say(f"the power went {images} times in a life of the segment journal")


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
async def test_nothing_settled_is_lost_or_halved_whenever_the_power_goes(seed: int, tmp_path: Path, say: Say) -> None:
    images = await check(StateLife(), steps_of("state.db"), tmp_path, seed=seed)
    say(f"the power went {images} times in a life of the state file")


async def check(life: Life, steps: Set[tuple[str, str]], directory: Path, *, every: int = 1, seed: int = 0) -> int:
    enumeration = Enumeration(directory, LOSSES, seed, every)
    assert await enumeration.run(life) == []
    assert enumeration.seen.keys() >= steps
    assert enumeration.images >= len(LOSSES) * (enumeration.seen.total() // every)
    return enumeration.images


# -- each promise can fail ------------------------------------------------------------------------------------------

Break = Callable[[pytest.MonkeyPatch, SimulatedDisk], None]


def with_synchronous(value: str) -> Break:
    def apply(patch: pytest.MonkeyPatch, disk: SimulatedDisk) -> None:
        for module, name in ((journal_module, "WRITER_PRAGMAS"), (state_module, "PRAGMAS")):
            pragmas = [one for one in getattr(module, name) if not one.startswith("synchronous")]
            patch.setattr(module, name, (*pragmas, f"synchronous={value}"))

    return apply


def syncing_nothing(patch: pytest.MonkeyPatch, disk: SimulatedDisk) -> None:
    disk.lies = frozenset({"sync"})


def without_directory_syncs(patch: pytest.MonkeyPatch, disk: SimulatedDisk) -> None:
    disk.lies = frozenset({"directory"})


BREAKS = {
    "synchronous=OFF": with_synchronous("OFF"),
    "synchronous=NORMAL": with_synchronous("NORMAL"),
    "xSync does nothing": syncing_nothing,
    "no directory is synced": without_directory_syncs,
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("life", [JournalLife, StateLife])
async def test_a_break_of_durability_is_caught(
    name: str, life: type[JournalLife | StateLife], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enumeration = Enumeration(tmp_path, ["all"], every=3)
    problems = await enumeration.run(life(turns=10), lambda disk: BREAKS[name](monkeypatch, disk))
    assert problems != []
