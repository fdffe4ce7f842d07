"""Public fakes, the virtual clock, contract batteries and the pytest plugin.

The batteries need pytest, everything else does not; a name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.testing.clock import VirtualClock, VirtualLoop, run_virtual
    from engine.testing.contracts import DestinationContract, JournalContract, Limits, StateContract
    from engine.testing.destination import FakeDestination, Step, ok, reject, retry, unknown
    from engine.testing.disk import FaultyDisk
    from engine.testing.lasting import LastingState
    from engine.testing.power import SimulatedDisk

__all__ = [
    "DestinationContract",
    "FakeDestination",
    "FaultyDisk",
    "JournalContract",
    "LastingState",
    "Limits",
    "SimulatedDisk",
    "StateContract",
    "Step",
    "VirtualClock",
    "VirtualLoop",
    "ok",
    "reject",
    "retry",
    "run_virtual",
    "unknown",
]

_HOMES = {
    "clock": ("VirtualClock", "VirtualLoop", "run_virtual"),
    "contracts": ("DestinationContract", "JournalContract", "Limits", "StateContract"),
    "destination": ("FakeDestination", "Step", "ok", "reject", "retry", "unknown"),
    "disk": ("FaultyDisk",),
    "lasting": ("LastingState",),
    "power": ("SimulatedDisk",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
