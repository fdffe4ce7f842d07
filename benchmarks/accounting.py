"""The kernel's accounting around a phase: who used how much CPU, and how much memory at most."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.bench.machine import cpu_seconds, peak_memory_bytes, process_tree, reset_peak

NAMES = ("system", "sink", "generator")
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # of the first line of /proc/stat: user, nice, system, irq, softirq, steal


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds so far. `everybody` counts the whole machine, `ours` this process and all that it started."""

    at: float
    system: float
    sink: float
    generator: float
    ours: float
    everybody: float


class Accounts:
    """Of one system under test beside the sink and the generator."""

    def __init__(self, system: list[int], sink: int, generator: int) -> None:
        self._system, self._sink, self._generator = system, sink, generator

    def now(self) -> Usage:
        return Usage(
            time.monotonic(),
            sum(map(cpu_seconds, self._system)),
            cpu_seconds(self._sink),
            cpu_seconds(self._generator),
            cpu_seconds(os.getpid()),
            busy_seconds(),
        )

    def watch_peak(self) -> None:
        for pid in self._members():
            reset_peak(pid)

    def peak_bytes(self) -> int:
        """Of all its processes together; each at its own moment."""
        return sum(map(peak_memory_bytes, self._members()))

    def _members(self) -> list[int]:
        return [member for pid in self._system for member in process_tree(pid)]


def shares(before: Usage, after: Usage) -> dict[str, float]:
    """Of one core. `foreign`: whatever is not of this benchmark."""
    seconds = max(after.at - before.at, 1e-9)
    found = {name: getattr(after, name) - getattr(before, name) for name in NAMES}
    if after.everybody:
        found["foreign"] = max(0.0, after.everybody - before.everybody - (after.ours - before.ours))
    return {name: round(it / seconds, 3) for name, it in found.items()}


def busy_seconds() -> float:
    """CPU time of all cores that was not idle since the machine started. 0.0 where unknown."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        return sum(int(fields[it]) for it in BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")
    return 0.0
