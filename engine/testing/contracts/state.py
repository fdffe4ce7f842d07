"""The battery of `ports.State`: every sentence of the docstrings of State and Transition is a test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import NoSpace, StorageFailed
from engine.ports import State
from engine.testing.contracts.state_alerts import Alerts
from engine.testing.contracts.state_consumers import Consumers
from engine.testing.contracts.state_data import Limits, consumer_state
from engine.testing.contracts.state_keeping import Keeping
from engine.testing.contracts.state_letters import Letters
from engine.testing.contracts.state_model import Sequences
from engine.testing.contracts.state_runs import Runs
from engine.testing.contracts.state_settling import Settling


class StateTrial:
    """One promise on trial: state files over one directory, closed at the end."""

    def __init__(self, contract: StateContract, directory: Path, stack: AsyncExitStack) -> None:
        self.contract, self.directory, self._stack = contract, directory, stack
        self.limits = Limits()

    async def open(self, *names: str, limits: Limits | None = None) -> State:
        """A new state file, open, that knows consumers of these names ("plain" if none is named)."""
        self.limits = limits or Limits()
        home = self.directory / "state"
        home.mkdir()
        state = await self._opened(self.contract.make(home, self.limits))
        for name in names or ("plain",):
            await state.add_consumer(consumer_state(name))
        return state

    async def reopen(self, state: State) -> State:
        """The state file of the next process, after an orderly end of this one."""
        await state.close()
        return await self._opened(self.contract.reopen(state, self.directory / "state", self.limits))

    async def after_crash(self, state: State) -> State:
        """The state file of the next process, had this one been killed now."""
        if not self.contract.survives_a_crash:
            return state
        copy = self.directory / "after the crash"
        shutil.copytree(self.directory / "state", copy)
        return await self._opened(self.contract.make(copy, self.limits))

    async def restore(self, backup: Path) -> State:
        home = self.directory / "restored"
        home.mkdir()
        shutil.copy(backup, home / self.contract.backup_name)
        return await self._opened(self.contract.restored(home, self.limits))

    def fail_next_settle(self, state: State, error: type[NoSpace] | type[StorageFailed]) -> None:
        if not self.contract.storage_can_fail:
            pytest.skip("its storage cannot fail")
        self.contract.fail_next_settle(state, error)

    async def _opened(self, state: State) -> State:
        self._stack.push_async_callback(state.close)
        await state.open()
        return state


class StateContract(Consumers, Settling, Letters, Keeping, Runs, Alerts, Sequences):
    """Subclass it as `TestMyState`, and say how one is made."""

    survives_a_crash = True
    """Is what was settled there for another state file over a copy of the same directory?"""

    storage_can_fail = True
    """False for what is kept in memory only."""

    backup_name = "state.db"
    """What the file of a backup is called in the directory of a state file."""

    def make(self, directory: Path, limits: Limits, /) -> State:
        """A state file in this directory, not opened yet."""
        raise NotImplementedError

    def reopen(self, state: State, directory: Path, limits: Limits, /) -> State:
        """The state file of the next process over what `state`, now closed, left behind."""
        return self.make(directory, limits)

    def restored(self, directory: Path, limits: Limits, /) -> State:
        """The state file over a backup that was put into this directory."""
        return self.make(directory, limits)

    def fail_next_settle(self, state: State, error: type[NoSpace] | type[StorageFailed], /) -> None:
        """Let the storage under the next settling transaction fail: full disk, or I/O error."""
        raise NotImplementedError

    def trial(self, directory: Path, /) -> AbstractAsyncContextManager[StateTrial]:
        return self._trial(directory)

    @asynccontextmanager
    async def _trial(self, directory: Path) -> AsyncIterator[StateTrial]:
        async with AsyncExitStack() as stack:
            yield StateTrial(self, directory, stack)
