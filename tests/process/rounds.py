"""The same signal again and again, below load: what has to hold after a handful of them, and after a hundred."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from harness import Oracle, Place, Producer, Request, Sandbox, until

DRAIN_SECONDS = 3.0
EXIT_SECONDS = DRAIN_SECONDS + 2.0 + 5.0  # what answers under way get, and a machine that is busy with other things
RATE, BURST = 100.0, 5
Say = Callable[[object], None]


class Strangers(Producer):
    """Every event is about another person, so that an attendee that is written twice was sent twice."""

    def _next(self) -> Request:
        number = len(self.requests)
        people = [f"{self.name}-{number}-{one}@people.example" for one in range(self.random.randint(1, 6))]
        return Request(people[0], [self._event(email) for email in people])


def spread(seconds: Sequence[float]) -> str:
    shares = statistics.quantiles([*seconds, *seconds], n=100, method="inclusive")
    return f"p50 {shares[49]:.2f} s, p99 {shares[98]:.2f} s, longest {max(seconds):.2f} s"


async def stop_again_and_again(place: Place, sandbox: Sandbox, rounds: int, seed: int, say: Say) -> None:
    """SIGTERM with a backlog: it ends in time with 0, the next one has everything, and nothing is sent twice."""
    say(f"SIGTERM x {rounds}, SIGNAL_SEED={seed}")
    source, producers = random.Random(seed), [Strangers(name, place, pause_seconds=0.02) for name in ("ada", "bob")]
    place.tables["engine"]["drain_timeout_seconds"] = DRAIN_SECONDS
    place.tables["destination"][0] |= {"encoding": "array", "batch": {"max_profiles": 10}}
    place.write()
    ended, again, backlogs = list[float](), list[float](), list[int]()
    await place.serve()
    async with AsyncExitStack() as stack:
        for producer in producers:
            await stack.enter_async_context(producer.producing())
        for _ in range(rounds):
            await sandbox.faults({"kind": "latency", "seconds": source.choice((0.2, 0.8, 1.5))})
            await asyncio.sleep(source.uniform(0.1, 0.9))
            backlogs.append((await place.destination())["counts"]["pending"])
            begun = time.monotonic()
            async with asyncio.timeout(EXIT_SECONDS):
                await place.stop()
            ended.append(time.monotonic() - begun)
            await place.serve()
            again.append(time.monotonic() - begun)
    await sandbox.faults()
    await place.settled(90.0)
    oracle = Oracle(*producers)
    await oracle.check(sandbox)
    sums = (await place.balanced())["demo"]
    stats = await sandbox.stats()
    say(
        f"SIGTERM x {rounds}: to its end {spread(ended)}; to accepting again {spread(again)}; backlog up to "
        f"{max(backlogs)}; {stats['created']} attendees, {stats['updated']} of them written twice"
    )
    assert sums["accepted"] == oracle.accepted(await sandbox.attendees())
    assert stats["updated"] == 0, "a clean stop sends nothing twice"
    assert sum(map(bool, backlogs)) > rounds // 2


def key(name: str) -> dict[str, object]:
    sha256 = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
    return {"name": name, "sha256": sha256, "scopes": ["profiles:write", "destinations:view"]}


def authorization(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-of-{name}"}


async def knows(place: Place, name: str) -> bool:
    status, _, _ = await place.ask("GET", "/v1/destinations", None, **authorization(name))
    assert status in (200, 401)
    return status == 200


def _a_misspelt_key(tables: dict[str, Any]) -> None:
    tables["destination"][0] |= {"weigth": 3}


def _a_burst_too_small(tables: dict[str, Any]) -> None:
    tables["account"][0]["rate"] = {**tables["account"][0]["rate"], "burst": 1}


def _two_keys_of_one_name(tables: dict[str, Any]) -> None:
    tables["ingress"]["keys"] += [key("kept")]


def _a_secret_that_is_nowhere(tables: dict[str, Any]) -> None:
    tables["ingress"]["keys"] += [{"name": "nowhere", "secret_file": "nowhere", "scopes": ["profiles:write"]}]


WRONG = (_a_misspelt_key, _a_burst_too_small, _two_keys_of_one_name, _a_secret_that_is_nowhere)


class Reloads:
    """A configuration that changes below a running engine. `current`: the key of the last good one."""

    def __init__(self, place: Place) -> None:
        self.place, self.current, self._count = place, "", 0
        self._good = place.tables

    async def good(self) -> None:
        name, before = f"good{self._count}", self.current
        await self._reload(name, lambda tables: None, "configuration reloaded")
        self.current = name
        assert await knows(self.place, name)
        assert not before or not await knows(self.place, before)

    async def wrong(self, how: Callable[[dict[str, Any]], None]) -> None:
        name = f"wrong{self._count}"
        await self._reload(name, how, "configuration not reloaded")
        assert not await knows(self.place, name), "a file with a problem is refused as a whole"
        assert await knows(self.place, self.current)

    async def broken(self, text: str | None) -> None:
        """A file that says this; none at all when None."""
        self._count += 1
        self.place.path.unlink(missing_ok=True)
        if text is not None:
            self.place.path.write_text(text)
        await self._told("configuration not reloaded")
        assert await knows(self.place, self.current)

    async def _reload(self, name: str, how: Callable[[dict[str, Any]], None], answer: str) -> None:
        self._count += 1
        tables = {part: [*map(dict, it)] if isinstance(it, list) else dict(it) for part, it in self._good.items()}
        tables["ingress"]["keys"] = [key("kept"), key(name)]
        how(tables)
        self.place.tables = tables
        self.place.write()
        await self._told(answer)

    async def _told(self, answer: str) -> None:
        before = self.place.log.read_text().count(answer)
        assert self.place.engine is not None
        self.place.engine.send(signal.SIGHUP)

        async def told() -> bool:
            return self.place.log.read_text().count(answer) > before

        await until(told, f"no {answer!r}")


async def reload_again_and_again(place: Place, sandbox: Sandbox, rounds: int, seed: int, say: Say) -> None:
    """SIGHUP below load, half of the files wrong: nobody is refused because of it, and nothing is lost."""
    say(f"SIGHUP x {rounds}, SIGNAL_SEED={seed}")
    source, producers = random.Random(seed), [Producer(name, place) for name in ("ada", "bob", "cyd")]
    place.tables["ingress"]["keys"] = [key("kept")]
    place.write()
    await place.serve()
    async with AsyncExitStack() as stack:
        for producer in producers:
            producer.headers = authorization("kept")
            await stack.enter_async_context(producer.producing())
        reloads = Reloads(place)
        await reloads.good()
        kinds = [reloads.good] * 4 + [lambda how=how: reloads.wrong(how) for how in WRONG]
        kinds += [lambda: reloads.broken(None), lambda: reloads.broken("[engine\n")]
        order = [*kinds, *source.choices(kinds, k=max(0, rounds - len(kinds)))]
        source.shuffle(order)
        for reload in order[:rounds]:
            await asyncio.sleep(source.uniform(0.0, 0.1))
            await reload()
    place.tables["ingress"]["keys"] = []
    requests = [request for producer in producers for request in producer.requests]
    refused = [request.status for request in requests if not request.acknowledged]
    say(f"SIGHUP x {rounds}: {len(requests)} requests meanwhile, {len(refused)} refused")
    assert refused == []
    assert len(requests) > rounds
    await place.stop()
    place.write()
    await place.serve()
    await place.settled()
    await Oracle(*producers).check(sandbox)
    await place.balanced()


async def stall_again_and_again(place: Place, sandbox: Sandbox, rounds: int, seed: int, say: Say) -> None:
    """SIGSTOP for seconds below load: nothing is lost, nothing goes back, and no burst makes up for lost time."""
    say(f"SIGSTOP x {rounds}, SIGNAL_SEED={seed}")
    source, producers = random.Random(seed), [Producer(name, place, pause_seconds=0.05) for name in ("ada", "bob")]
    place.tables["account"][0]["rate"] = {"requests_per_second": RATE, "burst": BURST, "max_concurrency": 8}
    place.write()
    engine = await place.serve()
    async with AsyncExitStack() as stack:
        for producer in producers:
            await stack.enter_async_context(producer.producing())
        for _ in range(rounds):
            await asyncio.sleep(source.uniform(0.5, 1.5))
            engine.send(signal.SIGSTOP)
            await asyncio.sleep(source.uniform(3.0, 5.0))
            engine.send(signal.SIGCONT)
        await asyncio.sleep(1.5)
    await place.settled(90.0)
    await Oracle(*producers).check(sandbox)
    await place.balanced()
    measured = await sandbox.call("GET", f"rate?rate={RATE}&burst={BURST}")
    most = {window["seconds"]: window["max"] for window in measured["windows"]}
    say(f"SIGSTOP x {rounds}: most requests in a window {most}, allowed {RATE:g} a second and {BURST}")
    assert [window["over"] for window in measured["windows"]] == [0, 0], measured
    assert most[1.0] > 0.8 * RATE, "the limit was never reached"
