"""Virtual time: a loop whose clock jumps to the next timer when every task waits.

No threads and no real sockets under it: time would jump past them. A turn of the loop costs a microsecond, so that a
spin shows up as time, and a deadlock is an error at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

TURN_SECONDS = 1e-6


class _JumpSelector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if timeout is None and not ready:
            raise RuntimeError("deadlock: every task waits and no timer is set")
        self.now += TURN_SECONDS if ready or not timeout else max(timeout, TURN_SECONDS)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, beginning at 0."""

    def __init__(self) -> None:
        self._jump = _JumpSelector()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


class VirtualClock:
    """See `ports.Clock`; follows the running virtual loop. `epoch` is the wall clock at loop time 0."""

    def __init__(self, epoch: float = 1_790_000_000.0) -> None:
        self.epoch = epoch

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        return self.epoch + asyncio.get_running_loop().time()


def run_virtual(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run a coroutine function to its end on virtual time."""

    async def main() -> T:
        return await function(*arguments)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
