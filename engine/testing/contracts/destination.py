"""The battery of `ports.Destination`: a small one, since what a destination does out there is its own business."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import PermitVoid
from engine.model import Batch, Profile, Reply
from engine.ports import Destination, Permit
from engine.testing.contracts.harness import profile, promise


class OpenPermit:
    """A permit that lets everything through, and counts how often it was used."""

    token = "token"

    def __init__(self) -> None:
        self.uses = 0

    async def use(self) -> None:
        self.uses += 1


class VoidPermit:
    """A permit that was withdrawn before the first byte."""

    token = "token"

    async def use(self) -> None:
        raise PermitVoid


def profiles(count: int) -> list[Profile]:
    return [profile(f"p{number}", number) for number in range(count)]


def batch_of(destination: Destination, count: int) -> Batch:
    made = profiles(count)
    return Batch(made, [destination.encode(one) for one in made])


class DestinationContract:
    """Subclass it as `TestMyDestination`; whatever it talks to has to be there, and to answer as it likes."""

    def make(self, directory: Path, /) -> AbstractAsyncContextManager[Destination]:
        """A destination, not opened yet; leaving the context ends what it talks to."""
        raise NotImplementedError

    def trial(self, directory: Path, /) -> AbstractAsyncContextManager[Destination]:
        return self._trial(directory)

    @asynccontextmanager
    async def _trial(self, directory: Path) -> AsyncIterator[Destination]:
        async with self.make(directory) as destination:
            await destination.open()
            try:
                yield destination
            finally:
                await destination.close()

    @promise
    async def test_encode_is_pure_and_repeatable(self, destination: Destination) -> None:
        given, same = profile("lea", 3), profile("lea", 3)
        first = destination.encode(given)
        assert isinstance(first, bytes)
        assert first == destination.encode(given) == destination.encode(same)
        assert given == same, "encoding changes nothing"

    @promise
    async def test_what_is_not_content_shapes_no_record(self, destination: Destination) -> None:
        once, again = profile("lea", 3), profile("lea", 9)
        again.attempts, again.tries, again.oldest_at = 4, 5, 6.0
        assert destination.encode(once) == destination.encode(again)

    @promise
    async def test_the_fingerprint_is_stable(self, destination: Destination) -> None:
        before = destination.fingerprint
        assert isinstance(before, bytes)
        await destination.send(batch_of(destination, 1), OpenPermit())
        assert destination.fingerprint == before

    @promise
    async def test_send_returns_one_verdict_for_each_profile(self, destination: Destination) -> None:
        most = destination.profiles_per_request
        assert most >= 1
        for count in sorted({1, min(most, 2), min(most, 10)}):
            reply = await destination.send(batch_of(destination, count), OpenPermit())
            assert isinstance(reply, Reply)
            assert len(reply.verdicts) == count

    @promise
    async def test_every_attempt_uses_its_permit_once(self, destination: Destination) -> None:
        for _ in range(3):
            permit = OpenPermit()
            await destination.send(batch_of(destination, 1), permit)
            assert permit.uses == 1

    @promise
    async def test_a_void_permit_is_let_through_and_the_next_attempt_works(self, destination: Destination) -> None:
        with pytest.raises(PermitVoid):
            await destination.send(batch_of(destination, 1), VoidPermit())
        reply = await destination.send(batch_of(destination, 1), OpenPermit())
        assert len(reply.verdicts) == 1

    @promise
    async def test_many_attempts_may_run_at_once(self, destination: Destination) -> None:
        async def attempt(name: str, permit: Permit) -> Reply:
            one = profile(name, 1)
            return await destination.send(Batch([one], [destination.encode(one)]), permit)

        replies = await asyncio.gather(*(attempt(f"q{number}", OpenPermit()) for number in range(8)))
        assert [len(reply.verdicts) for reply in replies] == [1] * 8
