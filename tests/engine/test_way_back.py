"""The way back through a whole engine: what RainFocus reports is forwarded, every event of it, in order, and nothing of
it goes back to RainFocus."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import anyio
import pytest
from aiohttp.test_utils import TestClient, TestServer

from engine import Config, ConfigError, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.assembly.offline import remove_destination, rename_destination
from engine.errors import EngineError
from engine.model import Append, Batch, Profile, Reply
from engine.ports import LetterFilter, Permit
from engine.profiles.changes import ChangeReader
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, ok, reject, retry
from engine.testing.lasting import LastingState

LEA = {"email": "lea@example.com", "city": "Lille"}
SECRET = "whsec_" + "QUJD" * 8
HOOK = {"name": "hook", "url": "https://hook.example/x", "secret": SECRET, "start_at": "oldest"}


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(lambda: test(**fixtures))

    return run


class Hook(FakeDestination):
    """A webhook in memory: what it was posted, request by request, as (key, [eventType, …])."""

    def __init__(self, script: Any = (), **more: Any) -> None:
        super().__init__(script, **more)
        self.posted: list[tuple[str, list[str]]] = []
        self.taken: list[str] = []

    def encode(self, profile: Profile, /) -> bytes:
        return profile.content

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        names = [it["record"]["eventType"] for it in json.loads(batch.records[0])]
        self.posted.append((batch.profiles[0].key.hex()[:4], names))
        records, batch = batch.records, Batch(batch.profiles, [b'{"email":"x"}'] * len(batch.profiles))
        reply = await super().send(batch, permit)
        batch.records = records
        if reply.verdicts[0].kind == "ok":
            self.taken += names
        return reply


class Disk:
    def __init__(self) -> None:
        self.journal, self.state = MemoryJournal(), LastingState()

    def engine(self, demo: FakeDestination, hook: Hook | None = None, **retry: Any) -> Engine:
        rate = {"requests_per_second": 1_000.0, "burst": 10}
        again = {"unknown_hold_seconds": 1.0, **retry}
        hooks = [{**HOOK, "rate": rate, "retry": again}] if hook else []
        tables = {
            "account": [{"name": "a", "rate": rate}],
            "destination": [{"name": "demo", "start_at": "oldest", "retry": again}],
            "forward": hooks,
            "journal": {"kind": "memory"},
        }
        return Engine(
            Config.from_dict(tables),
            destinations={"demo": demo} | ({"hook": hook} if hook else {}),
            journal=self.journal,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(1),
        )


def record(name: str, email: str = "lea@example.com", **more: Any) -> dict[str, Any]:
    return {"attendee": {"email": email} if email else {}, "eventType": name, **more}


async def push(engine: Engine, *records: dict[str, Any]) -> str:
    parsed = ChangeReader(max_events=100).read(json.dumps(records).encode(), "application/json")
    assert not parsed.rejected
    return await engine.intake.accept(Append(parsed.events, ""))


async def settled(engine: Engine, within: float = 3_600.0) -> dict[str, dict[str, int]]:
    """Counts that are not 0, by destination, once nothing is pending."""
    with anyio.fail_after(within):
        while any(one["counts"]["pending"] for one in engine.control.destinations()):  # type: ignore[index,call-overload]  # noqa: ASYNC110
            await anyio.sleep(0.05)
    await anyio.sleep(0.2)
    report = await engine.control.audit()
    assert report["ok"], report
    counts = {str(one["name"]): dict(one["counts"]) for one in engine.control.destinations()}  # type: ignore[call-overload]
    return {name: {what: n for what, n in row.items() if n} for name, row in counts.items()}


@on_virtual_time
async def test_every_event_is_forwarded_in_order_and_none_goes_to_rainfocus() -> None:
    demo, hook = FakeDestination(), Hook()
    async with Disk().engine(demo, hook) as engine:
        names = [f"E{number}" for number in range(30)]
        for name in names:
            await push(engine, record(name))
        counts = await settled(engine)
        assert hook.taken == names, "each of them, not only the newest state"
        assert demo.requests == []
        merged = counts["hook"].get("superseded", 0)
        assert counts["hook"]["accepted"] == 30 == counts["hook"]["delivered"] + merged
        assert counts["demo"] == {}


@on_virtual_time
async def test_profiles_are_not_forwarded() -> None:
    demo, hook = FakeDestination(), Hook()
    async with Disk().engine(demo, hook) as engine:
        await engine.submit([LEA])
        await push(engine, record("E"))
        counts = await settled(engine)
        assert (hook.taken, len(demo.requests)) == (["E"], 1)
        assert counts == {"demo": {"accepted": 1, "delivered": 1}, "hook": {"accepted": 1, "delivered": 1}}


@on_virtual_time
async def test_a_receipt_follows_changes_too() -> None:
    async with Disk().engine(FakeDestination(), Hook()) as engine:
        id = await push(engine, record("E1"), record("E2", email="ana@example.com"))
        assert await engine.intake.settled(id, 10.0)
        found = engine.intake.receipt(id)
        assert found is not None
        assert found["destinations"]["hook"]["delivered"] == 2  # type: ignore[index,call-overload]


@on_virtual_time
async def test_without_a_forward_a_change_is_settled_at_once() -> None:
    async with Disk().engine(FakeDestination()) as engine:
        id = await push(engine, record("E1"))
        assert await engine.intake.settled(id, 10.0)


@on_virtual_time
async def test_what_comes_while_the_receiver_is_down_follows_what_it_did_not_take() -> None:
    demo, hook = FakeDestination(), Hook([Step(retry(), seconds=1.0)])
    async with Disk().engine(demo, hook) as engine:
        await push(engine, record("E1"))
        await anyio.sleep(0.5)
        await push(engine, record("E2"))
        await settled(engine)
        assert hook.posted == [(hook.posted[0][0], ["E1"]), (hook.posted[0][0], ["E1", "E2"])]


@on_virtual_time
async def test_a_session_keeps_its_order_and_is_nobody_s_attendee() -> None:
    demo, hook = FakeDestination(), Hook()
    async with Disk().engine(demo, hook) as engine:
        for number in range(5):
            await push(engine, record(f"S{number}", email="", session={"sessionId": "1700000000000004MnOp"}))
        await settled(engine)
        assert hook.taken == [f"S{number}" for number in range(5)]


@on_virtual_time
async def test_what_was_accepted_is_forwarded_after_a_crash() -> None:
    disk, hook = Disk(), Hook([Step(retry())] * 3)
    engine = disk.engine(FakeDestination(), hook)
    async with engine:
        await push(engine, record("E1"), record("E2"))
        await engine.kill()
    async with disk.engine(FakeDestination(), hook) as engine:
        await settled(engine)
    assert hook.taken == ["E1", "E2"]


@on_virtual_time
async def test_a_dead_letter_is_forwarded_when_it_is_replayed_whatever_came_since() -> None:
    """Of profiles a newer state overtakes an older one; of events none does."""
    disk, hook = Disk(), Hook([Step(reject())])
    async with disk.engine(FakeDestination(), hook) as engine:
        await push(engine, record("E1"))
        await settled(engine)
        await push(engine, record("E2"))
        await settled(engine)
        assert (await engine.dead_letters.replay(LetterFilter(consumer="hook")))["replayed"] == 1
        counts = await settled(engine)
        assert hook.taken == ["E2", "E1"]
        assert counts["hook"] == {"accepted": 3, "delivered": 2, "dead_lettered": 1}


@on_virtual_time
async def test_a_receiver_that_is_gone_dead_letters_nothing() -> None:
    hook = Hook(answer=lambda batch: Step(retry()))
    async with Disk().engine(FakeDestination(), hook, max_attempts=2) as engine:
        for person in range(20):
            await push(engine, record("E", email=f"p{person}@example.com"))
        await anyio.sleep(600.0)
        (shown,) = [one for one in engine.control.destinations() if one["name"] == "hook"]
        assert shown["state"] == "open"
        assert shown["dead_letters"] == 0
        hook.answer = lambda batch: Step(ok())
        await settled(engine)
        assert len(hook.taken) == 20


@on_virtual_time
async def test_a_forget_takes_what_was_not_forwarded_yet() -> None:
    hook, disk = Hook(), Disk()
    async with disk.engine(FakeDestination(), hook) as engine:
        await engine.pause("hook")
        await push(engine, record("E1"))
        await engine.forget("lea@example.com")
        await engine.resume("hook")
        counts = await settled(engine)
        assert hook.taken == []
        assert counts["hook"] == {"accepted": 1, "excluded": 1}
        kept = [event for append in await disk.journal.read(0, 10) for event in append.events]
        assert all(event.content == b"{}" for event in kept)


@on_virtual_time
async def test_another_destination_s_limits_do_not_hold_a_forward_up() -> None:
    demo, hook = FakeDestination(answer=lambda batch: Step(retry())), Hook()
    async with Disk().engine(demo, hook) as engine:
        await engine.submit([LEA])
        await push(engine, record("E1"))
        with anyio.fail_after(5.0):
            while hook.taken != ["E1"]:  # noqa: ASYNC110
                await anyio.sleep(0.05)


@on_virtual_time
async def test_status_shows_the_attendee_id_that_a_change_told_of() -> None:
    async with Disk().engine(FakeDestination()) as engine:
        await push(engine, {"attendee": {"email": "lea@example.com", "attendeeId": "1700000000000001AbCd"}})
        await anyio.sleep(0.2)
        found = (await engine.lookup("lea@example.com"))["destinations"]["demo"]  # type: ignore[index,call-overload]
        assert (found["state"], found["outcome"], found["attendee_id"]) == ("unknown", None, "1700000000000001AbCd")
        await engine.submit([LEA])
        await settled(engine)
        found = (await engine.lookup("lea@example.com"))["destinations"]["demo"]  # type: ignore[index,call-overload]
        assert (found["state"], found["outcome"], found["attendee_id"]) == (
            "settled",
            "delivered",
            "1700000000000001AbCd",
        )


# -- as a part of the configuration ------------------------------------------------------------------------------------


def on_disk(tmp_path: Any, *hooks: dict[str, Any]) -> Config:
    return Config.from_dict({"engine": {"data_dir": "var"}, "forward": list(hooks)}, base=tmp_path)


async def test_a_forward_that_left_the_configuration_has_to_be_removed_or_renamed(tmp_path: Any) -> None:
    async with Engine(on_disk(tmp_path, HOOK)) as engine:
        await push(engine, record("E1"))
    with pytest.raises(ConfigError, match="destination 'hook' is in the data directory"):
        async with Engine(on_disk(tmp_path)):
            pass
    renamed = on_disk(tmp_path, {**HOOK, "name": "other"})
    await rename_destination(renamed, "hook", "other")
    with pytest.raises(EngineError, match="still in the configuration"):
        await remove_destination(renamed, "other")
    await remove_destination(on_disk(tmp_path), "other")
    async with Engine(on_disk(tmp_path)):
        pass


async def test_a_secret_that_is_none_is_refused_at_the_start(tmp_path: Any) -> None:
    config = on_disk(tmp_path, {**HOOK, "secret": "A" * 33})
    with pytest.raises(ConfigError, match="the secret of forward 'hook' is not base64"):
        async with Engine(config):
            pass


async def test_the_address_is_part_of_an_embedded_ingress(tmp_path: Any) -> None:
    engine = Engine(on_disk(tmp_path))
    async with TestClient(TestServer(engine.ingress_app())) as client, engine:
        answer = await client.post("/v1/sources/rainfocus", json=[record("E1"), {}])
        assert answer.status == 207
        body = await answer.json()
        assert (body["accepted"], [it["reason"] for it in body["rejected"]]) == (1, ["missing"])
        receipt = await client.get(answer.headers["Location"])
        assert receipt.status == 200
