"""The situations in which an engine is killed. Each starts it, brings it there and kills it at a random moment, and
says whether it was killed in that very situation."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterable

from harness import WORKERS, Program, until
from torture import REFUSED_CODE, RETRIED_CODE, Victim, hashed

Scene = Callable[[Victim], Awaitable[bool]]

TRIES = 12
COMMIT_EVENTS = 4_000
STRAGGLER_SPAN, STRAGGLER_EVENTS = 110_000, 5_000  # 100,000 events behind make a straggler


async def under_load(victim: Victim) -> bool:
    await victim.up()
    await victim.within(0.8)
    return await victim.kill()


async def idle(victim: Victim) -> bool:
    await victim.up()
    await victim.sandbox.faults()
    victim.rest(True)
    await victim.place.settled()
    await victim.within(0.2)
    killed = await victim.kill()
    victim.rest(False)
    return killed


async def in_a_commit(victim: Victim) -> bool:
    """Half of the time in a large one, which is likelier to be found unfinished."""
    await victim.up()
    await victim.within(0.2)
    if victim.source.random() < 0.5:
        return await victim.kill_at_write("journal")
    victim.rest(True)
    large = asyncio.create_task(victim.sender.send(victim.source.choices(victim.sender.people, k=COMMIT_EVENTS)))
    killed = await victim.kill_at_write("journal")
    await large
    victim.rest(False)
    return killed


async def in_a_settle(victim: Victim) -> bool:
    await victim.up()
    await victim.sandbox.faults()
    await victim.within(0.2)
    return await victim.kill_at_write("state.db")


async def while_starting(victim: Victim) -> bool:
    """Before it accepts, most of the time just when it works on its files."""
    holder = victim.place.folder / "data" / "engine.holder"
    before = holder.stat().st_mtime_ns if holder.exists() else 0
    engine = await victim.place.starting()

    async def owned() -> bool:
        return not engine.running or (holder.exists() and holder.stat().st_mtime_ns != before)

    if victim.source.random() < 0.8:
        await until(owned, "it does not start")
        await victim.within(0.08)
    else:
        await victim.within(1.0)
    accepting = await announced(engine)
    return await victim.kill(engine) and not accepting


async def announced(engine: Program) -> bool:
    try:
        async with asyncio.timeout(0.001):
            await engine.announced()
    except TimeoutError:
        return False
    return True


async def while_recovering(victim: Victim) -> bool:
    await victim.up()
    await victim.within(0.35)
    recovering = all(one["recovering"] for one in await victim.shown())
    return await victim.kill() and recovering


async def while_draining(victim: Victim) -> bool:
    await victim.up()
    await victim.sandbox.faults({"kind": "latency", "seconds": 0.5})

    async def sending() -> bool:
        return any(one["leased"] for one in await victim.shown())

    await until(sending, "nothing is sent")
    await victim.within(0.3)
    assert victim.place.engine is not None
    victim.place.engine.send(signal.SIGTERM)
    await victim.within(0.5)
    return await victim.kill()


async def while_backfill_is_held(victim: Victim) -> bool:
    """More backfill than fits in memory; on its way out to disk or on its way back. Live events rest until it is read:
    they would fill the whole buffer."""
    await victim.up()
    victim.rest(True)
    await victim.sandbox.faults({"kind": "latency", "seconds": 0.4})
    for _ in range(3):
        await victim.sender.send(victim.source.sample(victim.sender.people, 150), "?lane=backfill")

    async def some_held() -> bool:
        return any(one["held"] for one in await victim.shown())

    await until(some_held, "nothing is held", 40.0)
    victim.rest(False)
    if victim.source.random() < 0.5:
        await victim.sandbox.faults()
    await victim.within(0.4)
    held = await some_held()
    return await victim.kill() and held


async def while_a_straggler_is_held(victim: Victim) -> bool:
    """One profile is refused again and again, and a hundred thousand events pass it by; live events of many others
    rest, or there were no room to read that far."""
    await victim.up()
    victim.rest(True)
    stuck = victim.sender.strangers(1)
    await victim.sandbox.faults({"kind": "error_code", "code": RETRIED_CODE, "email_sha256": hashed(stuck[0])})
    begin = (await victim.place.get("/v1/status"))["journal"]["next"]
    await victim.sender.send(stuck)
    while (await victim.place.get("/v1/status"))["journal"]["next"] < begin + STRAGGLER_SPAN:
        await victim.sender.send(victim.source.choices(victim.sender.people[:50], k=STRAGGLER_EVENTS))

    async def passed() -> bool:
        behind = begin + STRAGGLER_SPAN // 2
        shown = await victim.shown()
        return all(one["watermark"] > behind and one["waiting"] + one["leased"] > 0 for one in shown)

    await until(passed, "the watermark stays below one profile", 120.0)
    victim.rest(False)
    await victim.within(0.3)
    return await victim.kill()


async def while_replaying(victim: Victim) -> bool:
    await victim.up()
    refused = victim.sender.strangers(5)
    await victim.sandbox.faults(
        *({"kind": "error_code", "code": REFUSED_CODE, "email_sha256": hashed(one)} for one in refused)
    )
    before = [one["dead_letters"] for one in await victim.shown()]
    await victim.sender.send(refused)

    async def letters() -> bool:
        return all(one["dead_letters"] == had + 5 for one, had in zip(await victim.shown(), before, strict=True))

    await until(letters, "nobody is refused")
    await victim.sandbox.faults()
    await victim.expect_replays()
    replay = asyncio.create_task(victim.replay())
    await victim.within(victim.source.choice((0.015, 0.1)))
    killed = await victim.kill()
    await replay
    return killed


SCENES: dict[Scene, int] = {
    under_load: 24,
    in_a_commit: 12,
    in_a_settle: 12,
    while_starting: 14,
    while_recovering: 12,
    while_draining: 8,
    idle: 4,
    while_backfill_is_held: 7,
    while_replaying: 6,
    while_a_straggler_is_held: 1,
}
"""With how many of a hundred kills are theirs."""

if WORKERS > 1:
    del SCENES[while_recovering]  # workers start when the journal is open: it has recovered before anybody is let in


def deck(source: random.Random, kills: int) -> list[Scene]:
    """Every scene at least once, in any order."""
    scenes = [*SCENES, *source.choices([*SCENES], [*SCENES.values()], k=max(0, kills - len(SCENES)))]
    source.shuffle(scenes)
    return scenes


async def torture(victim: Victim, scenes: Iterable[Scene]) -> None:
    """Play them one after the other, below load, each until it was killed right there. Raises AssertionError when it
    was killed somewhere else too often, and whatever did not hold."""
    async with victim.under_load():
        for scene in scenes:
            for _ in range(TRIES):
                if await scene(victim):
                    break
                victim.figures.missed += 1
            else:
                raise AssertionError(f"it could not be killed {scene.__name__}")
            victim.figures.scenes[scene.__name__] += 1
    await victim.check()
