"""Replies that are not what they should be: judged record by record, never read beyond a limit, never followed."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
from outage import TOKEN, Scene, address, event, fault_for, on_virtual_time, real_scene, until, virtual_scene

from engine.sandbox import Fault

ARRAY = {"encoding": "array", "batch": {"max_profiles": 500, "linger_ms": 50}}
PEOPLE = 500


# -- one by one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "error_code", "code": "27"}, "response_code_27"),
        ({"kind": "error_code", "code": "27", "status": 207}, "response_code_27"),
        ({"kind": "error_code", "code": "0", "status": 400}, "http_400"),
        ({"kind": "half_answer"}, "no_envelope"),
        ({"kind": "not_json"}, "no_envelope"),
        ({"kind": "huge", "bytes": 5_000_000}, "no_envelope"),
        ({"kind": "bomb", "bytes": 5_000_000}, "no_envelope"),
        ({"kind": "mislabelled"}, None),
        ({"kind": "huge", "bytes": 100_000}, None),
        ({"kind": "bomb", "bytes": 100_000}, None),
    ],
    ids=lambda it: "-".join(map(str, it.values())) if isinstance(it, dict) else str(it),
)
@on_virtual_time
async def test_each_record_gets_the_verdict_of_its_own_reply(record_property, fault, reason) -> None:
    async with virtual_scene() as scene:
        scene.faults(*[fault_for(person, **fault) for person in range(0, 30, 3)])
        await scene.submit(*[event(person) for person in range(30)])
        await scene.settled()
        letters = await scene.letters()
        record_property("records", 30)
        record_property("dead_letters", len(letters))
        assert letters == ({address(person): reason for person in range(0, 30, 3)} if reason else {})
        assert scene.counts().get("delivered", 0) == 30 - len(letters)


@pytest.mark.parametrize("status", [200, 207])
@on_virtual_time
async def test_results_of_a_list_are_judged_one_by_one(record_property, status) -> None:
    async with virtual_scene(destination=[ARRAY]) as scene:
        bad = range(0, PEOPLE, 7)
        scene.faults(*[fault_for(person, "error_code", code="27", status=status) for person in bad])
        await scene.submit(*[event(person) for person in range(PEOPLE)])
        await scene.settled()
        record_property("records", PEOPLE)
        record_property("calls", len(scene.arrivals()))
        assert await scene.letters() == {address(person): "response_code_27" for person in bad}
        assert scene.counts() == {"delivered": PEOPLE - len(bad), "dead_lettered": len(bad)}
        assert scene.requests()[0].status == status
        assert set(scene.stored()) == {address(person) for person in range(PEOPLE) if person not in bad}
        assert len(scene.arrivals()) == 1


@pytest.mark.parametrize("kind", ["half_answer", "not_json", "huge", "bomb"])
@on_virtual_time
async def test_a_list_whose_reply_says_nothing_is_asked_again_in_halves(kind) -> None:
    """Nobody is rejected for a reply that is about all of them."""
    async with virtual_scene(destination=[ARRAY]) as scene:
        scene.faults(Fault(kind=kind, count=3, bytes=5_000_000))
        await scene.submit(*[event(person) for person in range(PEOPLE)])
        await scene.settled()
        assert scene.counts() == {"delivered": PEOPLE}
        assert len(scene.arrivals()) <= 1 + 2 * 3


# -- too much of it ---------------------------------------------------------------------------------------------------


@contextmanager
def peak_of_memory() -> Iterator[list[int]]:
    """What is allocated at most inside the block, in bytes; the sandbox's share included."""
    found: list[int] = []
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield found
        found.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["huge", "bomb"])
@pytest.mark.parametrize("path", ["store", "token"])
@on_virtual_time
async def test_a_reply_of_a_hundred_megabytes_is_cut_at_one(record_property, kind, path) -> None:
    """Eight at once; packed by gzip it comes in a hundred kilobytes, which nobody had asked for."""
    async with virtual_scene() as scene:
        await scene.submit(event("first"))
        await scene.settled()
        scene.faults(Fault(kind=kind, path=path, count=12, bytes=100_000_000))
        scene.sandbox.revoke_tokens()
        with peak_of_memory() as peak:
            await scene.submit(*[event(person) for person in range(12)])
            await anyio.sleep(60.0)
        record_property("replies", scene.sandbox.requests.by_fault[kind])
        record_property("peak_mb", round(peak[0] / 1e6, 1))
        assert scene.sandbox.requests.by_fault[kind] >= 5
        assert peak[0] <= 24e6
        scene.faults()
        await scene.settled()


# -- poison -----------------------------------------------------------------------------------------------------------


def bounds(poison: int) -> int:
    """Calls beyond the first: 2 · k · ⌈log2 n⌉."""
    return 2 * poison * (PEOPLE - 1).bit_length()


async def poisoned(scene: Scene, poison: set[int]) -> None:
    scene.faults(*[fault_for(person, "error_code", code="27") for person in poison])
    await scene.submit(*[event(person) for person in range(PEOPLE)])
    await scene.settled()


@pytest.mark.parametrize(
    "seeds", [pytest.param(range(3), id="3"), pytest.param(range(3, 100), marks=pytest.mark.process, id="97-more")]
)
@pytest.mark.parametrize("count", [1, 5])
def test_exactly_the_poison_of_a_list_is_dead_lettered_within_the_calls_of_a_bisection(
    record_property, count, seeds
) -> None:
    calls: list[int] = []

    @on_virtual_time
    async def bisect(seed: int) -> None:
        poison = set(random.Random(seed).sample(range(PEOPLE), count))
        async with virtual_scene({"array_results": False}, destination=[ARRAY]) as scene:
            await poisoned(scene, poison)
            calls.append(len(scene.arrivals()) - 1)
            assert await scene.letters() == {address(person): "response_code_27" for person in poison}
            assert scene.counts() == {"delivered": PEOPLE - count, "dead_lettered": count}
            assert set(scene.stored()) == {address(person) for person in range(PEOPLE) if person not in poison}

    for seed in seeds:
        bisect(seed=seed)
    record_property("lists", len(calls))
    record_property("extra_calls_at_most", max(calls))
    record_property("bound", bounds(count))
    assert max(calls) <= bounds(count)


@on_virtual_time
async def test_where_each_record_has_its_result_poison_costs_no_further_call(record_property) -> None:
    async with virtual_scene(destination=[ARRAY]) as scene:
        await poisoned(scene, {3, 77, 200, 201, 499})
        record_property("extra_calls", len(scene.arrivals()) - 1)
        assert len(scene.arrivals()) == 1
        assert scene.counts() == {"delivered": PEOPLE - 5, "dead_lettered": 5}
        assert len(await scene.letters()) == 5


# -- redirects --------------------------------------------------------------------------------------------------------


class Listener:
    """A private address that hears whatever is sent to it."""

    def __init__(self) -> None:
        self.connections, self.heard, self.url = 0, b"", ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/latest/meta-data/"
        async with server:
            yield

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.heard += await reader.read(65_536)
        writer.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", ["store", "token"])
async def test_a_redirect_is_never_followed_and_dead_letters_nothing(record_property, status: int, path: Any) -> None:
    private = Listener()
    rate = {"requests_per_second": 1_000.0, "burst": 20}
    async with private.listening(), real_scene(account=[{"rate": rate}]) as scene:
        scene.faults(Fault(kind="redirect", status=status, location=private.url, path=path))
        await scene.submit(*[event(person) for person in range(5)])
        await until(lambda: scene.sandbox.requests.by_fault["redirect"] >= 1, "nothing was sent")
        if path == "store":
            await until(lambda: scene.breaker() == f"http_{status}" or private.heard, "the breaker did not open")
        record_property("requests_at_the_target", private.connections)
        assert (private.connections, private.heard) == (0, b"")
        scene.faults()
        await scene.settled(30.0)
        assert private.connections == 0
        assert scene.counts() == {"delivered": 5}
        assert len(scene.requests(TOKEN)) <= 3
