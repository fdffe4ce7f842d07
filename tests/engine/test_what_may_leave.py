"""`fields` and `sources` of a destination hold on every way out: first sends, what waited over a restart, replays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine import Config, Engine
from engine.ports import LetterFilter
from engine.sandbox import Sandbox, Settings, running_sandbox

LEA, TOM = "lea@example.com", "tom@example.com"
WHOLE = {"city": "Lille", "jobtitle": "Buyer", "phone": "+33320000000"}
REFUSED = {"kind": "error_code", "code": "27"}
RATE = {"requests_per_second": 1_000.0, "burst": 20}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox(Settings(port=0)) as running:
        yield running


async def faults(sandbox: Sandbox, *wanted: dict[str, Any]) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.put(f"{sandbox.url}/_sandbox/faults", json=[*wanted]) as answer,
    ):
        assert answer.status == 200, await answer.text()


@asynccontextmanager
async def engine(folder: Path, sandbox: Sandbox, **destination: Any) -> AsyncIterator[Engine]:
    """The destination that is looked at sends to event code `seen`; the other one takes everything."""
    tables = {
        "source": [{"name": "crm"}, {"name": "web"}],
        "account": [{"base_url": sandbox.url, "rate": RATE}],
        "destination": [
            {"name": "seen", "event_code": "seen", "encoding": "single", **destination},
            {"name": "all", "event_code": "all"},
        ],
    }
    async with Engine(Config.from_dict(tables, base=folder)) as running:
        yield running
        report = await running.control.audit()
        assert report["ok"], report


def seen(sandbox: Sandbox, event: str = "seen") -> dict[str, dict[str, str]]:
    return {it.email: it.fields | it.extra for it in sandbox.store if it.event == event}


async def test_only_the_fields_of_the_destination_leave_it(tmp_path: Path, sandbox: Sandbox) -> None:
    async with engine(tmp_path, sandbox, fields=["city"]) as running:
        await (await running.submit([{"email": LEA, **WHOLE}], source="crm")).settled(timeout=20)
    assert seen(sandbox) == {LEA: {"city": "Lille"}}
    assert seen(sandbox, "all") == {LEA: WHOLE}


async def test_a_replay_sends_only_the_fields_that_may_leave_by_then(tmp_path: Path, sandbox: Sandbox) -> None:
    """Fewer than when the letter was made: what it holds besides stays here."""
    await faults(sandbox, REFUSED)
    async with engine(tmp_path, sandbox) as running:
        await (await running.submit([{"email": LEA, **WHOLE}], source="crm")).settled(timeout=20)
    assert seen(sandbox) == {}
    await faults(sandbox)
    async with engine(tmp_path, sandbox, fields=["city", "phone"]) as running:
        assert (await running.control.replay(LetterFilter(consumer="seen")))["replayed"] == 1
        await (await running.submit([{"email": TOM}], source="crm")).settled(timeout=20)
    assert seen(sandbox)[LEA] == {"city": "Lille", "phone": "+33320000000"}


async def test_what_waited_over_a_restart_is_narrowed_too(tmp_path: Path, sandbox: Sandbox) -> None:
    async with engine(tmp_path, sandbox) as running:
        await running.pause("seen")
        await running.submit([{"email": LEA, **WHOLE}], source="crm")
        await running.submit([{"email": TOM, **WHOLE}], source="web")
    async with engine(tmp_path, sandbox, fields=["jobtitle"], sources=["crm"]) as running:
        await running.recovered()
        await running.resume("seen")
        await (await running.submit([{"email": LEA, "zip": "59000"}], source="crm")).settled(timeout=20)
    assert seen(sandbox) == {LEA: {"jobtitle": "Buyer"}}
    assert seen(sandbox, "all").keys() == {LEA, TOM}


async def test_a_replay_reaches_only_the_destination_whose_letter_it_is(tmp_path: Path, sandbox: Sandbox) -> None:
    """Also when another one takes every source."""
    await faults(sandbox, REFUSED)
    async with engine(tmp_path, sandbox, sources=["crm"]) as running:
        await (await running.submit([{"email": LEA, **WHOLE}], source="crm")).settled(timeout=20)
        await (await running.submit([{"email": TOM, **WHOLE}], source="web")).settled(timeout=20)
        await faults(sandbox)
        assert (await running.control.replay(LetterFilter(consumer="all")))["matched"] == 2
        await (await running.submit([{"email": "last@example.com"}], source="crm")).settled(timeout=20)
        assert seen(sandbox).keys() == {"last@example.com"}
        assert seen(sandbox, "all").keys() == {LEA, TOM, "last@example.com"}
