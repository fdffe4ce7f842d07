"""Which core does what: the system under test has cores of its own, the instrument has the others."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec


class Cores(msgspec.Struct, frozen=True):
    """Empty sets: nothing is pinned, and `reason` says why."""

    system: frozenset[int] = frozenset()
    instrument: frozenset[int] = frozenset()
    reason: str = ""

    @property
    def pinned(self) -> bool:
        return not self.reason

    def line(self) -> str:
        if not self.pinned:
            return f"not pinned: {self.reason}"
        system, instrument = (", ".join(map(str, sorted(it))) for it in (self.system, self.instrument))
        return f"system on core {system}, sink and generator on core {instrument}"


def split(available: frozenset[int], for_system: int) -> Cores:
    """The highest numbers go to the system; at least one core is left to the instrument."""
    if len(available) < 2:
        return Cores(reason=f"{len(available)} core, which sink, generator and system share")
    if not 0 < for_system < len(available):
        return Cores(reason=f"{for_system} cores were asked for the system; of {len(available)} one has to be left")
    in_order = sorted(available)
    return Cores(frozenset(in_order[-for_system:]), frozenset(in_order[:-for_system]))


def choose(for_system: int) -> Cores:
    """From what this process may use. `for_system` 0: nothing is pinned."""
    if not for_system:
        return Cores(reason="asked not to")
    if not hasattr(os, "sched_setaffinity"):
        return Cores(reason="this system cannot pin processes")
    return split(frozenset(os.sched_getaffinity(0)), for_system)


def pin(cores: frozenset[int]) -> Callable[[], None]:
    """What a child does before it becomes its program; nothing for no cores."""

    def before() -> None:
        if cores:
            os.sched_setaffinity(0, cores)

    return before


def pinned_to(pid: int) -> frozenset[int]:
    """Where a process may run: the kernel's word that pinning worked."""
    return frozenset(os.sched_getaffinity(pid)) if hasattr(os, "sched_getaffinity") else frozenset()
