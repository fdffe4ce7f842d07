"""Working on the files of an engine that does not run: the same control side, under the lock, and nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec

from engine.assembly.audit import audit
from engine.assembly.build import build_storage
from engine.assembly.engine import Engine
from engine.assembly.outward import try_connection
from engine.config import AccountConfig, Config, DestinationConfig
from engine.errors import EngineError
from engine.ports import ConsumerState, Control, Journal, State


class _Resting(Engine):
    """Reads, answers and writes down, and never sends anything."""

    dispatching = False

    def test_alone(self) -> None:
        """Nobody hands out permits here: a test of a connection brings its own."""
        parts = self._running()
        paused = {account.name: account.paused_until for account in parts.accounts}
        for one in self.config.destinations:
            account = self.config.account_of(one)
            parts.testers[one.name] = partial(_test, account, one, paused[account.name])


@asynccontextmanager
async def open_control(config: Config) -> AsyncIterator[Control]:
    """Everything that `Control` offers, on the files in the data directory. What is pending has been read on entry.

    Raises DataDirectoryError when a running engine owns the directory (named), and ConfigError."""
    engine = _Resting(config)
    async with engine:
        await engine.recovered()
        engine.test_alone()
        yield engine.control


async def _test(
    account: AccountConfig, destination: DestinationConfig, paused_until: float, store_email: str | None
) -> dict[str, object]:
    return await try_connection(account, destination, store_email=store_email, paused_until=paused_until)


class Removed(msgspec.Struct):
    """`expired`: events that had no outcome yet. `letters`: dead letters that are kept."""

    expired: int
    letters: int


async def remove_destination(config: Config, name: str) -> Removed:
    """Give up a destination that has left the configuration: its backlog expires, counts and ledger go, its dead
    letters stay until they are purged or too old.

    Raises EngineError when it has not left, or when nothing is stored of it."""
    if name in config.consumer_names:
        raise EngineError(f"destination {name!r} is still in the configuration: take it out first")
    async with _storage(config) as (journal, state):
        one = _stored(await state.consumers(), name)
        tail = await journal.open()
        report = await audit(journal, state, tail.next, {})
        pending = report["destinations"][name]["pending"]  # type: ignore[index]
        await state.remove_consumer(name)
    return Removed(pending, one.letters)


async def rename_destination(config: Config, old: str, new: str) -> None:
    """Move all that is stored of a destination to the name that it has in the configuration now.

    Raises EngineError when that is not the same place under another name."""
    wanted = {one.name: one.identity(config.account_of(one)) for one in config.destinations}
    wanted |= {one.name: one.identity() for one in config.forwards}
    if new not in wanted:
        raise EngineError(f"destination {new!r} is not in the configuration: change the name there first")
    if old in wanted:
        raise EngineError(f"destination {old!r} is still in the configuration: a name cannot be moved away from it")
    async with _storage(config) as (_, state):
        stored = await state.consumers()
        moved = _stored(stored, old)
        if new in {one.name for one in stored}:
            raise EngineError(f"destination {new!r} has a backlog of its own: it cannot take over another one's")
        if moved.identity != wanted[new]:
            raise EngineError(
                f"destination {new!r} points somewhere else than {old!r} did (environment, URL, org id or event code), "
                "so it cannot take over its backlog and ledger; 'destinations remove' expires them"
            )
        await state.rename_consumer(old, new)


def _stored(consumers: list[ConsumerState], name: str) -> ConsumerState:
    for one in consumers:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in consumers) or "none"
    raise EngineError(f"nothing is stored of a destination {name!r}; there are: {known}")


@asynccontextmanager
async def _storage(config: Config) -> AsyncIterator[tuple[Journal, State]]:
    """The state is open, the journal not yet; both are owned."""
    async with AsyncExitStack() as stack:
        journal, state = build_storage(config, stack)
        stack.push_async_callback(journal.close)
        stack.push_async_callback(state.close)
        await state.open()
        yield journal, state
