"""How a battery runs: one event loop and one empty directory a promise, and data to fill it with."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import msgspec

from engine.model import Append, Event, Lane, Profile, Trait

PROMISE_SECONDS = 30.0
"""No promise takes longer: one that is still waited for by then is broken."""
POLL_SECONDS = 0.002

Trial = TypeVar("Trial")
Trial_co = TypeVar("Trial_co", covariant=True)


class Battery(Protocol[Trial_co]):
    def trial(self, directory: Path, /) -> AbstractAsyncContextManager[Trial_co]: ...


def promise(check: Callable[[Any, Trial], Awaitable[None]]) -> Callable[[Any, Path], None]:
    """Make a coroutine method a test that needs no plugin: pytest hands in `tmp_path`, the battery makes the trial."""

    async def main(battery: Battery[Trial], directory: Path) -> None:
        async with battery.trial(directory) as trial:
            with anyio.fail_after(PROMISE_SECONDS):
                await check(battery, trial)

    def test(self: Battery[Trial], tmp_path: Path) -> None:
        asyncio.run(main(self, tmp_path))

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    test.__qualname__, test.__module__ = check.__qualname__, check.__module__
    return test


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what is promised to happen in the background."""
    while not await holds():  # noqa: ASYNC110 - a port does not say when its background work is done
        await anyio.sleep(POLL_SECONDS)


def key_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def event(name: str, **fields: str) -> Event:
    content = msgspec.json.encode({"email": f"{name}@example.com", **fields})
    return Event(key_of(name), content, int(Trait.EMAIL))


def append_of(*names: str, source: str = "default", lane: Lane = Lane.LIVE, note: str = "") -> Append:
    """One append with an event for each name."""
    return Append([event(name, note=note) for name in names], source, lane, 1_700_000_000.25)


def profile(name: str, last: int, *, through: int | None = None, events: int = 1) -> Profile:
    """A profile whose newest event has the offset `last`."""
    merged_to = last if through is None else through
    content = event(name).content
    return Profile(key_of(name), content, int(Trait.EMAIL), Lane.LIVE, last, merged_to, last, events, 1_700_000_000.0)
