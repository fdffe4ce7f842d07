"""Hourly runs of a running engine: what counts where, across restarts and crashes, and that an audit checks them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.history import HOUR_SECONDS, OutcomeFilter, RunFilter
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, ok, reject, retry
from engine.testing.lasting import LastingState

VIP, STAFF = "ups/vip", "ups/staff"
WHEN = "2026-01-01T00:00:00Z"


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(lambda: test(**fixtures))

    return run


class Scene:
    """Storage that outlives the engines on it, and a clock that goes on."""

    def __init__(self, **destination: Any) -> None:
        self.journal, self.state = MemoryJournal(max_bytes=1 << 40), LastingState()
        self.destination = {"name": "demo", "start_at": "oldest", "retry": {"max_attempts": 2, "base_ms": 1}}
        self.destination |= destination

    def engine(self, store: FakeDestination | None = None, **tables: Any) -> Engine:
        account = {"name": "a", "rate": {"requests_per_second": 1_000.0, "burst": 10}}
        tables = {"account": [account], "destination": [self.destination], "journal": {"kind": "memory"}} | tables
        return Engine(
            Config.from_dict(tables),
            destinations={"demo": store or FakeDestination()},
            journal=self.journal,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(1),
        )


def person(name: str, *audiences: str, left: tuple[str, ...] = (), **fields: str) -> dict[str, Any]:
    standing = {audience: {"status": "realized", "lastQualificationTime": WHEN} for audience in audiences}
    standing |= {audience: {"status": "exited", "lastQualificationTime": WHEN} for audience in left}
    return {"email": f"{name}@example.com", "audiences": standing, **fields}


async def send(engine: Engine, *people: dict[str, Any]) -> None:
    receipt = await engine.submit(list(people))
    await receipt.settled(timeout=60)


async def runs_of(engine: Engine, audience: str | None = "") -> list[dict[str, Any]]:
    found: Any = await engine.control.runs(RunFilter(audience=audience), 100)
    return list(found["runs"])


def figures(run: dict[str, Any]) -> tuple[int, ...]:
    """Received, activated, excluded, failed."""
    parts = ("activated", "excluded", "failed")
    return (run["profiles_received"], *(run[f"identities_{part}"] for part in parts))


async def assert_even(engine: Engine) -> None:
    report = await engine.control.audit()
    assert report["problems"] == []


@on_virtual_time
async def test_a_run_has_what_became_of_events() -> None:
    store = FakeDestination(
        answer=lambda batch: (
            Step(reject("response_code_27")) if b"bad@" in batch.profiles[0].content else Step(ok("A1"))
        )
    )
    async with Scene().engine(store) as engine:
        await send(engine, person("lea"), person("lea", city="Lille"), person("lea", city="Arras"), person("bad"))
        await send(engine, {"email_lc_sha256": "ab" * 32}, {"email_lc_sha256": "ab" * 32})
        (run,) = await runs_of(engine)
        assert figures(run) == (6, 3, 2, 1)
        assert run["outcomes"]["superseded"] == 3, "two of Léa's and one of the hash"
        assert run["excluded"] == {"no_email": 2}, "what was merged in ended as the newest did"
        assert [(it["code"], it["recordCount"]) for it in run["errors"]] == [
            ("RFDEST-1101-422", 2),
            ("RFDEST-1402-422", 1),
        ]
        await assert_even(engine)


@on_virtual_time
async def test_an_event_counts_for_every_audience_the_destination_activates() -> None:
    scene = Scene(audiences=[VIP, STAFF])
    async with scene.engine() as engine:
        await send(engine, person("lea", VIP, STAFF, "ups/others"), person("bo", VIP), person("cy", "ups/others"))
        by_audience = {run["audience"]: figures(run) for run in await runs_of(engine, None)}
    assert by_audience == {None: (3, 2, 1, 0), VIP: (2, 2, 0, 0), STAFF: (1, 1, 0, 0)}


@on_virtual_time
async def test_who_has_left_is_activated_and_removed() -> None:
    scene = Scene(audiences=[VIP, STAFF], exits="store")
    async with scene.engine() as engine:
        await send(engine, person("lea", VIP, left=(STAFF,)), person("bo", left=(VIP,)))
        runs = {run["audience"]: run for run in await runs_of(engine, None)}
    removed = {audience: run["identities_removed"] for audience, run in runs.items()}
    assert removed == {None: 1, VIP: 1, STAFF: 1}
    assert figures(runs[None]) == (2, 2, 0, 0)


@on_virtual_time
async def test_only_the_last_try_counts_as_failed() -> None:
    """AEP's rule since March 2025."""
    store = FakeDestination([Step(retry()), Step(ok())])
    async with Scene().engine(store) as engine:
        await send(engine, person("lea"))
        (run,) = await runs_of(engine)
    assert figures(run) == (1, 1, 0, 0)
    assert run["errors"] == []


@on_virtual_time
async def test_what_is_delivered_in_an_hour_counts_in_it_and_a_run_that_is_over_stays_as_it_is() -> None:
    scene = Scene()
    async with scene.engine() as engine:
        await engine.pause("demo")
        receipt = await engine.submit([person("lea"), person("bo")])
        await asyncio.sleep(HOUR_SECONDS)
        assert await runs_of(engine) == [], "what waits is in no run"
        await engine.resume("demo")
        await receipt.settled(timeout=60)
        (first,) = await runs_of(engine)
        assert (first["status"], figures(first)) == ("Processing", (2, 2, 0, 0))
        await asyncio.sleep(HOUR_SECONDS)
        (over,) = await runs_of(engine)
        assert (over["status"], over["processing_seconds"]) == ("Completed", HOUR_SECONDS)
        await send(engine, person("cy"))
        assert (await runs_of(engine))[1] == over
        await assert_even(engine)


@on_virtual_time
async def test_runs_survive_a_restart_and_go_on_in_the_same_hour() -> None:
    scene = Scene()
    for number in range(3):
        async with scene.engine() as engine:
            await send(engine, person(f"p{number}", VIP))
            by_audience = {run["audience"]: figures(run)[0] for run in await runs_of(engine, None)}
            assert by_audience == {None: number + 1, VIP: number + 1}
            await assert_even(engine)


@on_virtual_time
async def test_an_audit_finds_a_run_that_does_not_add_up() -> None:
    scene = Scene()
    async with scene.engine() as engine:
        await send(engine, person("lea"))
        await assert_even(engine)
        for damage, found in (
            ("UPDATE run SET events = events + 1", "its runs hold 2 events delivered, and 1 are counted"),
            ("UPDATE run_fate SET events = events + 1 WHERE audience = ''", "in 1 of its runs"),
        ):
            await scene.state._writer.run(lambda connection, damage=damage: connection.execute(damage))  # type: ignore[misc]
            report = await engine.control.audit()
            assert any(found in str(problem) for problem in report["problems"]), report["problems"]  # type: ignore[attr-defined]
            undo = damage.replace("+ 1", "- 1")
            await scene.state._writer.run(lambda connection, undo=undo: connection.execute(undo))  # type: ignore[misc]


@on_virtual_time
async def test_a_flow_has_its_audiences_only_where_they_were_asked_for() -> None:
    async with Scene().engine() as engine:
        await send(engine, person("lea", VIP), person("bo"))
        for audience, wanted in ((None, ["segment:vip"]), ("", [])):
            found: Any = await engine.control.runs(RunFilter(audience=audience), 10, flow=True)
            (run,) = found["runs"]
            targets = run["metrics"]["recordSummary"]["targetSummaries"]
            assert [entity["id"] for target in targets for entity in target["entitySummaries"]] == wanted


@on_virtual_time
async def test_a_cursor_goes_on_where_the_page_ended() -> None:
    async with Scene().engine() as engine:
        for name in ("lea", "bo", "cy"):
            await send(engine, person(name, VIP, STAFF))
            await asyncio.sleep(HOUR_SECONDS)
        whole = await runs_of(engine, None)
        paged, cursor = list[Any](), ""
        while True:
            page: Any = await engine.control.runs(RunFilter(audience=None), 4, cursor=cursor)
            paged += page["runs"]
            cursor = page["next"]
            if not cursor:
                break
        assert paged == whole
        assert len(whole) == 9
        with pytest.raises(ValueError, match="cursor"):
            await engine.control.runs(RunFilter(), 4, cursor="no cursor")


@on_virtual_time
async def test_an_export_has_the_last_outcome_of_everybody_and_every_dead_letter() -> None:
    store = FakeDestination(
        answer=lambda batch: Step(reject("http_422")) if b"Rome" in batch.profiles[0].content else Step(ok("A1"))
    )
    async with Scene().engine(store) as engine:
        await send(engine, person("lea", city="Rome"), person("bo", city="Oslo"))
        await send(engine, person("lea", city="Lille"))
        rows = [row async for page in engine.control.outcomes(OutcomeFilter(consumer="demo")) for row in page]
        assert sorted((str(row["record"]), str(row["outcome"])) for row in rows) == [
            ("dead_letter", "dead_lettered"),
            ("last_outcome", "delivered"),
            ("last_outcome", "delivered"),
        ]
        assert {row["attendee_id"] for row in rows if row["record"] == "last_outcome"} == {"A1"}
        only = OutcomeFilter(consumer="demo", outcome="dead_lettered")
        assert [row["record"] async for page in engine.control.outcomes(only) for row in page] == ["dead_letter"]
        with pytest.raises(KeyError):
            [page async for page in engine.control.outcomes(OutcomeFilter(consumer="nobody"))]
