"""A state that outlives the engines that use it, as a disk would: for tests of crashes and restarts."""

from __future__ import annotations

from engine.adapters.sqlite import SqliteState


class LastingState(SqliteState):
    """In memory. Opening it again finds what was there; closing changes nothing."""

    def __init__(self) -> None:
        super().__init__(None, fold_keys=5)
        self._is_open = False

    async def open(self) -> None:
        if self._is_open:
            await self._reload()  # a process that was cut off may have written what it did not remember
        else:
            await super().open()
            self._is_open = True

    async def close(self) -> None:
        """The disk stays where it is."""
