"""How often a fault that was ordered is still to be met."""

from __future__ import annotations

from typing import Protocol, TypeVar


class Ordered(Protocol):
    skip: int  # so many times it is let pass first
    times: int  # and then met so often


Fault = TypeVar("Fault", bound=Ordered)


def met(faults: list[Fault], fault: Fault) -> Fault | None:
    """The fault if it is its turn. Taken out of `faults` when it has been met as often as it was ordered."""
    if fault.skip:
        fault.skip -= 1
        return None
    fault.times -= 1
    if not fault.times:
        faults.remove(fault)
    return fault
