"""Load for long, with faults: does anything grow? ``python -m benchmarks soak --for 1800``.

Windows of open-loop load at 60 % of saturation, of people who come again and again. In every fifth the sink is away for
a while, in every fifth it is slow. After each the engine's memory, descriptors and files are counted; latencies are
compared over the windows without a fault.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.bench import Bench, Options, fresh, settled, tell
from benchmarks.growth import slope
from benchmarks.processes import Failed
from benchmarks.result import Phase, Run, Subject
from benchmarks.session import instrument, new_run
from benchmarks.shapes import Shape
from benchmarks.systems import System, engine_running
from benchmarks.variant import Variant, engine_config
from engine.bench.machine import memory_bytes, process_tree

SCENARIO = "soak"
LOAD = 0.6
WINDOWS_AT_LEAST, WINDOW_SECONDS = 12, 20.0
WARM_UP_SHARE, JUDGED_AT_LEAST = 0.25, 6
WARM_UP_REQUESTS = 200_000
"""An engine keeps what became of the newest 100,000: until then its memory has to grow, and then to settle."""
AWAY_EVERY, SLOW_EVERY = 5, 5
AWAY_SHARE, SLOW_MS = 0.25, 50.0
MEMORY_GROWTH, MEMORY_BYTES = 0.05, 16 << 20
DESCRIPTORS = 32
"""The pool of connections to the destination may fill."""
DISK_GROWTH, DISK_BYTES = 0.25, 64 << 20
LATENCY_GROWTH, LATENCY_MS = 0.5, 1.0


class Window(msgspec.Struct, frozen=True):
    """What was counted after one stretch of load. `fault`: "" for none."""

    at: float
    fault: str
    memory_bytes: int
    descriptors: int
    disk_bytes: int
    phase: Phase


class Verdict(msgspec.Struct, frozen=True):
    what: str
    flat: bool
    said: str


async def soak(variant: Variant, options: Options, seconds: float, cores: int) -> Run:
    started = time.monotonic()
    async with instrument(options, cores) as bench:
        found = new_run("soak", bench)
        place = bench.place("soak")
        config = engine_config(bench.sink.url, ledger=True)
        with engine_running(variant, config, place) as system:
            windows = await _windows(bench, system, place.directory / variant.name, seconds)
            await settled(bench.session, system.url)
        found.subjects.append(subject_of(variant.name, windows))
    found.seconds = round(time.monotonic() - started, 1)
    return found


async def _windows(bench: Bench, system: System, home: Path, seconds: float) -> list[Window]:
    shape = fresh(Shape(format="object", zipf=True))
    await bench.warm_up(system, shape)
    speed = (await bench.saturate(system, shape)).events_per_second
    length = min(WINDOW_SECONDS, seconds / WINDOWS_AT_LEAST)
    windows: list[Window] = []
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        fault = fault_of(len(windows))
        tell(f"soak: {time.monotonic() - started:.0f} of {seconds:.0f} s{', ' + fault if fault else ''}")
        phase = await _window(bench, system, shape, speed, length, fault)
        windows.append(_counted(system, home, time.monotonic() - started, fault, phase))
    return windows


async def _window(bench: Bench, system: System, shape: Shape, speed: float, length: float, fault: str) -> Phase:
    return await bench.offer(
        system,
        shape,
        LOAD * speed,
        length,
        SLOW_MS if fault == "slow" else 0.0,
        same_people=True,
        away_seconds=length * AWAY_SHARE if fault == "away" else 0.0,
    )


def fault_of(window: int) -> str:
    if window % AWAY_EVERY == AWAY_EVERY - 3:
        return "away"
    return "slow" if window % SLOW_EVERY == SLOW_EVERY - 1 else ""


def _counted(system: System, home: Path, at: float, fault: str, phase: Phase) -> Window:
    members = [member for pid in system.pids for member in process_tree(pid)]
    descriptors = sum(_count(Path(f"/proc/{pid}/fd")) for pid in members)
    size = sum(it.stat().st_size for it in (home / "var").rglob("*") if it.is_file())
    return Window(round(at, 1), fault, sum(map(memory_bytes, members)), descriptors, size, phase)


def _count(folder: Path) -> int:
    with suppress(OSError):
        return len(os.listdir(folder))
    return 0


# -- verdict ----------------------------------------------------------------------------------------------------------


def subject_of(name: str, windows: Sequence[Window]) -> Subject:
    found = Subject(scenario=SCENARIO, system=name, loads=[it.phase for it in windows])
    judged = warm(windows)
    if len(judged) < JUDGED_AT_LEAST:
        found.status = "not measured"
        found.reason = (
            f"only {len(judged)} windows after the warm-up, which takes {WARM_UP_REQUESTS:,} requests; soak for longer"
        )
        return found
    for verdict in verdicts(judged):
        found.figures[f"{verdict.what}_flat"] = float(verdict.flat)
        found.notes.append(verdict.said)
    found.figures |= figures(windows, judged)
    return found


def warm(windows: Sequence[Window]) -> Sequence[Window]:
    """What comes after a quarter of the windows, and after the engine keeps as many receipts as it ever will."""
    requests = list(accumulate(it.phase.requests for it in windows))
    full = next((at for at, so_far in enumerate(requests) if so_far >= WARM_UP_REQUESTS), len(windows))
    return windows[max(full + 1, int(len(windows) * WARM_UP_SHARE)) :]


def figures(windows: Sequence[Window], judged: Sequence[Window]) -> dict[str, float]:
    return {
        "windows": len(windows),
        "windows_with_a_fault": sum(1 for it in windows if it.fault),
        "windows_not_reached": sum(1 for it in windows if it.phase.status != "ok"),
        "events": sum(it.phase.events for it in windows),
        "memory_slope_mb_per_hour": round(
            slope([it.at for it in judged], [it.memory_bytes for it in judged]) * 3_600 / 1e6, 2
        ),
        "memory_last_mb": windows[-1].memory_bytes / 1e6,
        "disk_last_mb": windows[-1].disk_bytes / 1e6,
        "descriptors_last": windows[-1].descriptors,
    }


def verdicts(windows: Sequence[Window]) -> list[Verdict]:
    """First third against last third."""
    quiet = [it for it in windows if not it.fault and it.phase.ack and it.phase.delivered] or windows
    return [
        _flat("memory", windows, lambda it: it.memory_bytes, MEMORY_GROWTH, MEMORY_BYTES, 1e6, "MB"),
        _flat("descriptors", windows, lambda it: it.descriptors, 0.0, DESCRIPTORS, 1, ""),
        _flat("disk", windows, lambda it: it.disk_bytes, DISK_GROWTH, DISK_BYTES, 1e6, "MB"),
        _flat(
            "ack_p50", quiet, lambda it: it.phase.ack.p50 if it.phase.ack else 0.0, LATENCY_GROWTH, LATENCY_MS, 1, "ms"
        ),
        _flat("delivered_p50", quiet, _delivered_p50, LATENCY_GROWTH, LATENCY_MS, 1, "ms"),
    ]


def _delivered_p50(window: Window) -> float:
    return window.phase.delivered.p50 if window.phase.delivered else 0.0


def _flat(
    what: str,
    windows: Sequence[Window],
    value: Callable[[Window], float],
    share: float,
    slack: float,
    divisor: float,
    unit: str,
) -> Verdict:
    third = max(1, len(windows) // 3)
    first, last = (median(map(value, part)) for part in (windows[:third], windows[-third:]))
    flat = last <= first * (1 + share) + slack
    said = f"{what}: {first / divisor:.1f} → {last / divisor:.1f} {unit}".rstrip()
    return Verdict(what, flat, f"{said}, {'flat' if flat else 'NOT FLAT'}")


def verdict(found: Run) -> int:
    """Prints it; 1 when something grows or nothing is known."""
    (subject,) = found.subjects
    if subject.status != "ok":
        raise Failed(subject.reason)
    for note in subject.notes:
        print(f"{'✘' if 'NOT FLAT' in note else '✔'} {note}")
    return 1 if any("NOT FLAT" in it for it in subject.notes) else 0
