"""A whole audience of 20,000 through the log beside live updates: real disk, real HTTP, and a restart in the middle."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from outage import until

from engine import Config, Engine
from engine.dispatcher import Consumer
from engine.sandbox import Sandbox, Settings, create_app
from engine.sandbox.state import SANDBOX

PROFILES, BUFFER, LIVE = 20_000, 4_000, 400


def backfill(numbers: range) -> list[dict[str, str]]:
    return [{"email": f"back-{number}@people.example", "city": "old", "x_version": "1"} for number in numbers]


def live(number: int) -> dict[str, str]:
    """Every tenth is of somebody whom the backfill is about as well."""
    who = f"back-{number}" if number % 10 == 0 else f"live-{number}"
    return {"email": f"{who}@people.example", "city": "new", "x_version": "2"}


@asynccontextmanager
async def sandbox() -> AsyncIterator[tuple[str, Sandbox]]:
    app = create_app(Settings(seed=7))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", app[SANDBOX]
    finally:
        await runner.cleanup()


def consumer_of(engine: Engine) -> Consumer:
    assert engine._parts is not None
    (found,) = engine._parts.consumers
    return found


def config(url: str, folder: Path) -> Config:
    tables: dict[str, Any] = {
        "engine": {"data_dir": str(folder)},
        "journal": {"min_free_bytes": 0},
        "buffer": {"max_profiles": BUFFER},
        "source": [
            {"name": "default", "mapping": {"x_version": "x_version"}},
            {"name": "audience", "lane": "backfill", "mapping": {"x_version": "x_version"}},
        ],
        "account": [{"name": "a", "base_url": url, "rate": {"requests_per_second": 2_000.0, "burst": 20}}],
        "destination": [{"name": "demo", "encoding": "array"}],
    }
    return Config.from_dict(tables)


async def test_a_backfill_larger_than_the_buffer_loses_nothing_and_nobody_goes_back(tmp_path: Path) -> None:
    """One half comes from a source of that lane, the other names the lane; the engine stops while much is on disk."""
    async with sandbox() as (url, store):
        async with Engine(config(url, tmp_path), random=random.Random(1)) as engine:
            await engine.pause("demo")
            for first in range(0, PROFILES // 2, 500):
                await engine.submit(backfill(range(first, first + 500)), source="audience")
            for first in range(PROFILES // 2, PROFILES, 500):
                await engine.submit(backfill(range(first, first + 500)), lane="backfill")
            consumer = consumer_of(engine)
            await until(lambda: consumer.position == PROFILES and not consumer.holding.over(), "it stopped", 50.0)
            assert consumer.coalescer.waiting <= 0.8 * BUFFER
            assert consumer.books.held_profiles >= PROFILES - 0.8 * BUFFER
            assert (await engine.control.audit())["ok"]
        async with Engine(config(url, tmp_path), random=random.Random(1)) as engine:
            await engine.resume("demo")
            for number in range(LIVE):
                await engine.submit([live(number)])
            await until(lambda: not consumer_of(engine).pending(PROFILES + LIVE), "events are still pending", 50.0)
            counts = engine.control.destinations()[0]["counts"]
            report = await engine.control.audit()
        assert report["ok"], report
        settled = counts["delivered"] + counts["superseded"]  # type: ignore[index]
        assert settled == counts["accepted"] == PROFILES + LIVE  # type: ignore[index]
        assert store.store.regressions == 0
        cities = {one.email: one.fields["city"] for one in store.store}
        assert len(cities) == PROFILES + LIVE - LIVE // 10
        renewed = {live(number)["email"] for number in range(LIVE)}
        assert {email for email, city in cities.items() if city == "new"} == renewed
