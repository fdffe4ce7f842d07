"""Engine as a library: what a program that embeds it may rely on (DESIGN §6.4)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import Config, ConfigError, Engine, Overloaded, ProfileEvent, Stopped, StorageFailed
from engine.adapters.memory_journal import MemoryJournal
from engine.errors import DataDirectoryError
from engine.ports import LetterFilter
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, ok, reject, unknown
from engine.testing.lasting import LastingState

LEA = {"email": "lea@example.com", "city": "Lille"}


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(lambda: test(**fixtures))

    return run


class Disk:
    """A journal and a state file in memory that outlive the engines on them."""

    def __init__(self, *, max_bytes: int = 1 << 40, commit_seconds: float = 0.001) -> None:
        self.journal = MemoryJournal(max_bytes=max_bytes, commit_seconds=commit_seconds)
        self.state = LastingState()

    def engine(self, **destinations: FakeDestination) -> Engine:
        config = config_of(*(destinations or ["demo"]))
        return Engine(
            config,
            destinations=destinations or {"demo": FakeDestination()},
            journal=self.journal,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(1),
        )


def config_of(*names: str, **tables: Any) -> Config:
    account = {"name": "a", "rate": {"requests_per_second": 1_000.0, "burst": 10}}
    retry = {"unknown_hold_seconds": 1.0}
    destinations = [{"name": name, "start_at": "oldest", "retry": retry} for name in names]
    return Config.from_dict({"account": [account], "destination": destinations, "journal": {"kind": "memory"}} | tables)


def outcomes(counts: dict[str, dict[str, int]] | None) -> dict[str, dict[str, int]]:
    assert counts is not None
    return {name: {outcome: n for outcome, n in row.items() if n} for name, row in counts.items()}


async def assert_even(engine: Engine) -> None:
    report = await engine.control.audit()
    assert report["ok"], report


# -- submit and receipts ----------------------------------------------------------------------------------------------


@on_virtual_time
async def test_what_was_submitted_is_durable_on_return_and_delivered() -> None:
    disk, fake = Disk(), FakeDestination()
    async with disk.engine(demo=fake) as engine:
        receipt = await engine.submit([LEA, {"email": "ana@example.com"}])
        assert receipt.accepted == 2
        assert sum(len(append.events) for append in await disk.journal.read(0, 10)) == 2
        assert outcomes(await receipt.settled(timeout=5)) == {"demo": {"delivered": 2}}
    assert fake.stored["lea@example.com"]["city"] == "Lille"


@on_virtual_time
async def test_profile_events_and_mappings_are_the_same_to_it() -> None:
    disk, fake = Disk(), FakeDestination()
    async with disk.engine(demo=fake) as engine:
        await (await engine.submit([ProfileEvent(email="Lea@Example.com ", city="Lille")])).settled(timeout=5)
        receipt = await engine.submit(iter([LEA]))
        assert outcomes(await receipt.settled(timeout=5)) == {"demo": {"suppressed": 1}}


@on_virtual_time
async def test_a_bad_record_never_raises_and_leaves_the_others_alone() -> None:
    disk, fake = Disk(), FakeDestination()
    async with disk.engine(demo=fake) as engine:
        receipt = await engine.submit([{"city": "Lille"}, LEA, {"email": "x"}, LEA | {"countryid": "Atlantis"}])
        assert receipt.accepted == 2
        assert [one.index for one in receipt.rejected] == [0, 2]
        assert [(one.index, one.field) for one in receipt.dropped] == [(3, "countryid")]
        assert outcomes(await receipt.settled(timeout=5)) == {"demo": {"delivered": 1, "superseded": 1}}


@pytest.mark.parametrize("records", [[], [{"city": "Lille"}]])
def test_nothing_valid_is_settled_at_once_and_writes_nothing(records: list[dict[str, str]]) -> None:
    @on_virtual_time
    async def scene() -> None:
        disk = Disk()
        async with disk.engine() as engine:
            receipt = await engine.submit(records)
            assert (receipt.accepted, await receipt.settled(timeout=0)) == (0, {})
            assert await disk.journal.read(0, 10) == []

    scene()


@on_virtual_time
async def test_settled_gives_up_after_its_time_and_nothing_is_lost_by_it() -> None:
    async with Disk().engine(demo=FakeDestination([Step(seconds=8.0)])) as engine:
        receipt = await engine.submit([LEA])
        with pytest.raises(TimeoutError):
            await receipt.settled(timeout=3)
        assert outcomes(receipt.counts()) == {"demo": {"pending": 1}}
        assert outcomes(await receipt.settled()) == {"demo": {"delivered": 1}}


@on_virtual_time
async def test_every_outcome_is_counted_destination_by_destination() -> None:
    good, bad = FakeDestination(), FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    async with Disk().engine(good=good, bad=bad) as engine:
        receipt = await engine.submit([LEA, LEA])
        assert outcomes(await receipt.settled(timeout=5)) == {
            "good": {"delivered": 1, "superseded": 1},
            "bad": {"dead_lettered": 1, "superseded": 1},
        }
        await assert_even(engine)


@on_virtual_time
async def test_sources_reach_only_the_destinations_that_read_them() -> None:
    fakes = {"all": FakeDestination(), "crm": FakeDestination()}
    destinations = [{"name": "all"}, {"name": "crm", "sources": ["crm"]}]
    config = config_of(destination=destinations, source=[{"name": "crm"}, {"name": "web"}])
    async with Engine(config, destinations=fakes, journal=MemoryJournal(), clock=VirtualClock()) as engine:
        await (await engine.submit([LEA], source="crm")).settled(timeout=5)
        receipt = await engine.submit([{"email": "ana@example.com"}], source="web")
        assert outcomes(await receipt.settled(timeout=5)) == {"all": {"delivered": 1}, "crm": {}}
        await assert_even(engine)
    assert set(fakes["all"].stored) == {"lea@example.com", "ana@example.com"}
    assert set(fakes["crm"].stored) == {"lea@example.com"}


@on_virtual_time
async def test_a_full_journal_is_overloaded_and_says_when_to_come_back() -> None:
    disk = Disk(max_bytes=3_000)
    async with disk.engine(demo=FakeDestination(answer=lambda batch: Step(seconds=50.0))) as engine:
        accepted = 0
        for person in range(10):
            accepted += (await engine.submit([{"email": f"p{person}@example.com"}])).accepted
        with pytest.raises(Overloaded) as refused:
            await engine.submit([{"email": f"late{person}@example.com"} for person in range(10)])
        assert refused.value.type == "journal-full"
        assert refused.value.retry_after_seconds > 0
        assert sum(len(append.events) for append in await disk.journal.read(0, 1_000)) == accepted


@pytest.mark.parametrize("word", ["source", "lane"])
def test_an_unknown_source_or_lane_is_an_error_of_the_caller(word: str) -> None:
    @on_virtual_time
    async def scene() -> None:
        async with Disk().engine() as engine:
            with pytest.raises(KeyError):
                await engine.submit([LEA], **{word: "nobody"})

    scene()


# -- life -------------------------------------------------------------------------------------------------------------


def test_making_one_needs_no_loop_and_touches_nothing(tmp_path: Path) -> None:
    engine = Engine(config_of("demo", engine={"data_dir": str(tmp_path / "data")}, journal={"kind": "sqlite"}))
    assert repr(engine) == "<Engine not running>"
    assert not (tmp_path / "data").exists()


def test_a_destination_that_is_not_configured_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no such destination"):
        Engine(config_of("demo"), destinations={"other": FakeDestination()})


@on_virtual_time
async def test_before_the_start_and_after_the_end_it_is_stopped() -> None:
    engine = Disk().engine()
    for question in (lambda: engine.submit([LEA]), lambda: engine.lookup("lea@example.com"), engine.stopped):
        with pytest.raises(Stopped):
            await question()
    async with engine:
        await engine.submit([LEA])
    with pytest.raises(Stopped):
        await engine.submit([LEA])
    await engine.stopped()  # it did not fail
    with pytest.raises(Stopped):
        await engine.__aenter__()


@on_virtual_time
async def test_enter_and_exit_may_come_from_different_tasks() -> None:
    fake = FakeDestination()
    engine = Disk().engine(demo=fake)
    await asyncio.create_task(engine.__aenter__())
    receipt = await asyncio.create_task(engine.submit([LEA]))
    await asyncio.create_task(receipt.settled(timeout=5))
    await asyncio.create_task(engine.__aexit__(None, None, None))
    assert "lea@example.com" in fake.stored


@on_virtual_time
async def test_leaving_from_within_a_cancelled_scope_still_stops_it() -> None:
    engine = Disk().engine()
    with anyio.move_on_after(0.5):
        async with engine:
            await anyio.sleep_forever()
    await engine.stopped()


@on_virtual_time
async def test_lifespan_is_one_context_manager_for_every_framework() -> None:
    disk = Disk()
    engine = disk.engine()
    async with engine.lifespan(object()):
        await engine.submit([LEA])
    with pytest.raises(Stopped):
        await engine.submit([LEA])


class Breaks(FakeDestination):
    async def open(self) -> None:
        raise OSError("no such host")


@on_virtual_time
async def test_a_start_that_fails_raises_and_leaves_nothing_running() -> None:
    engine = Disk().engine(demo=Breaks())
    with pytest.raises(OSError, match="no such host"):
        await engine.__aenter__()
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(Stopped):
        await engine.submit([LEA])


@on_virtual_time
async def test_a_failure_of_the_engine_never_cancels_its_host() -> None:
    """An I/O error is fail-stop: whoever waits hears Stopped from it, `stopped()` raises it, the host goes on."""
    disk = Disk()
    async with disk.engine() as engine:
        await engine.submit([LEA])
        disk.journal.fail.append(StorageFailed("Input/output error"))
        with pytest.raises(Stopped) as stopped:
            await engine.submit([LEA])
        assert isinstance(stopped.value.__cause__, StorageFailed)
        await anyio.sleep(10.0)  # the host is not cancelled
        with pytest.raises(StorageFailed):
            await engine.stopped()
        with pytest.raises(Stopped) as later:
            await engine.submit([LEA])
        assert isinstance(later.value.__cause__, StorageFailed)


@on_virtual_time
async def test_who_waits_for_a_receipt_when_the_engine_ends_is_not_left_waiting() -> None:
    disk = Disk()
    engine = disk.engine(demo=FakeDestination())
    await engine.__aenter__()
    await engine.pause("demo")
    receipt = await engine.submit([LEA])
    waiting = asyncio.create_task(receipt.settled())
    await anyio.sleep(1.0)
    await engine.__aexit__(None, None, None)
    with anyio.fail_after(60), pytest.raises(Stopped):
        await waiting


@on_virtual_time
async def test_a_drain_lets_attempts_finish_and_leaves_the_backlog_in_the_journal() -> None:
    disk, first, second = Disk(), FakeDestination(answer=lambda batch: Step(seconds=3.0)), FakeDestination()
    async with disk.engine(demo=first) as engine:
        await engine.submit([{"email": f"p{n}@example.com"} for n in range(20)])
        await anyio.sleep(0.5)
    delivered = len(first.stored)
    assert 0 < delivered < 20
    async with disk.engine(demo=second) as engine:
        with anyio.fail_after(60):
            while engine.control.destinations()[0]["counts"]["pending"]:  # type: ignore[index]  # noqa: ASYNC110
                await anyio.sleep(0.1)
        await assert_even(engine)
    assert len(second.stored) == 20 - delivered, "nothing twice after a clean stop, nothing missing"


@on_virtual_time
async def test_a_kill_loses_nothing() -> None:
    disk, fake = Disk(), FakeDestination(answer=lambda batch: Step(seconds=3.0))
    engine = disk.engine(demo=fake)
    await engine.__aenter__()
    await engine.submit([{"email": f"p{n}@example.com"} for n in range(20)])
    await engine.kill()
    async with disk.engine(demo=fake) as engine:
        await anyio.sleep(60.0)
        await assert_even(engine)
    assert len(fake.stored) == 20


# -- cancellation -----------------------------------------------------------------------------------------------------


async def cancelled_after(turns: int, work: Awaitable[Any]) -> tuple[bool, Any]:
    """Run `work` as a task, and cancel it after so many turns of the loop. (did it end by itself?, its result)"""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return True, await task
    except asyncio.CancelledError:
        return False, None


@pytest.mark.parametrize("turns", range(0, 30))
def test_cancelling_whoever_submits_loses_nothing_that_was_acknowledged(turns: int) -> None:
    @on_virtual_time
    async def scene() -> None:
        disk, fake = Disk(commit_seconds=0.0), FakeDestination()
        async with disk.engine(demo=fake) as engine:
            acknowledged, _ = await cancelled_after(turns, engine.submit([LEA]))
            await (await engine.submit([{"email": "ana@example.com"}])).settled(timeout=60)
            await assert_even(engine)
        assert "ana@example.com" in fake.stored, "and the engine goes on"
        assert not acknowledged or "lea@example.com" in fake.stored

    scene()


ORDERS: dict[str, Callable[[Engine], Awaitable[Any]]] = {
    "pause": lambda engine: engine.pause("other"),
    "forget": lambda engine: engine.forget("lea@example.com"),
    "lookup": lambda engine: engine.lookup("lea@example.com"),
    "audit": lambda engine: engine.control.audit(),
    "replay": lambda engine: engine.dead_letters.replay(LetterFilter()),
    "purge": lambda engine: engine.dead_letters.purge(LetterFilter()),
}


@pytest.mark.parametrize("order", ORDERS)
def test_cancelling_an_order_loses_nothing(order: str) -> None:
    """Whatever it was in the middle of writing down for everybody: the sums stay even, over a crash too."""

    @on_virtual_time
    async def scene(turns: int) -> None:
        disk, step = Disk(commit_seconds=0.0), [ok(), reject()]
        fakes = {
            name: FakeDestination(answer=lambda batch: Step(step[int(batch.profiles[0].key[0]) % 2], seconds=0.003))
            for name in ("demo", "other")
        }
        engine = disk.engine(**fakes)
        await engine.__aenter__()
        receipts = []
        for round in range(3):
            receipts.append(await engine.submit([LEA] + [{"email": f"p{round}-{n}@example.com"} for n in range(6)]))
            await anyio.sleep(0.028)  # delivered (20 ms linger, 3 ms on the way), but not written down yet
            await cancelled_after(turns, ORDERS[order](engine))
        await engine.resume("other")
        for receipt in receipts:
            await receipt.settled(timeout=60)
        await assert_even(engine)
        await engine.kill()
        async with disk.engine(**fakes) as engine:
            await anyio.sleep(30.0)
            await assert_even(engine)

    for turns in range(14):
        scene(turns=turns)


@pytest.mark.parametrize("turns", range(0, 40, 2))
def test_cancelling_the_start_leaves_nothing_running(turns: int) -> None:
    @on_virtual_time
    async def scene() -> None:
        disk = Disk()
        engine = disk.engine()
        entered, _ = await cancelled_after(turns, engine.__aenter__())
        if entered:
            await engine.__aexit__(None, None, None)
        assert len(asyncio.all_tasks()) == 1
        async with disk.engine() as again:
            await (await again.submit([LEA])).settled(timeout=60)

    scene()


@pytest.mark.parametrize("turns", range(1, 31, 3))
def test_cancelling_the_end_stops_at_once_and_loses_nothing(turns: int) -> None:
    @on_virtual_time
    async def scene() -> None:
        disk, fake = Disk(), FakeDestination(answer=lambda batch: Step(seconds=5.0))
        engine = disk.engine(demo=fake)
        await engine.__aenter__()
        await engine.submit([LEA])
        await cancelled_after(turns, engine.__aexit__(None, None, None))
        assert len(asyncio.all_tasks()) == 1
        async with disk.engine(demo=fake) as engine:
            await anyio.sleep(60.0)
            await assert_even(engine)
        assert "lea@example.com" in fake.stored

    scene()


# -- orders and questions ---------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_paused_destination_stays_paused_over_a_restart_and_goes_on_when_told() -> None:
    disk, fake = Disk(), FakeDestination()
    async with disk.engine(demo=fake) as engine:
        await engine.pause("demo")
        await engine.submit([LEA])
    async with disk.engine(demo=fake) as engine:
        await anyio.sleep(100.0)
        assert fake.requests == []
        assert engine.control.destinations()[0]["state"] == "paused"
        await engine.resume("demo")
        await anyio.sleep(1.0)
        assert len(fake.requests) == 1
    async with disk.engine(demo=fake) as engine:
        assert engine.control.destinations()[0]["state"] == "active"


@on_virtual_time
async def test_lookup_tells_what_became_of_an_attendee_by_any_spelling() -> None:
    async with Disk().engine(demo=FakeDestination(answer=lambda batch: Step(ok("A-7")))) as engine:
        assert (await engine.lookup("lea@example.com"))["destinations"]["demo"]["state"] == "unknown"  # type: ignore[index]
        await (await engine.submit([LEA])).settled(timeout=5)
        found = (await engine.lookup(" LEA@example.com"))["destinations"]["demo"]  # type: ignore[index]
        assert (found["state"], found["outcome"], found["attendee_id"]) == ("settled", "delivered", "A-7")
        with pytest.raises(ValueError, match="not an e-mail"):
            await engine.lookup("nobody")


@on_virtual_time
async def test_a_forgotten_attendee_is_gone_everywhere() -> None:
    disk, fake = Disk(), FakeDestination()
    async with disk.engine(demo=fake) as engine:
        await (await engine.submit([LEA])).settled(timeout=5)
        await engine.pause("demo")
        await engine.submit([LEA | {"city": "Paris"}, {"email": "ana@example.com"}])
        await engine.forget("lea@example.com")
        await anyio.sleep(5.0)
        await engine.resume("demo")
        await anyio.sleep(5.0)
        found = (await engine.lookup("lea@example.com"))["destinations"]["demo"]  # type: ignore[index]
        assert (found["state"], found["outcome"]) == ("unknown", None)
        assert b"lea@" not in b"".join(e.content for a in await disk.journal.read(0, 100) for e in a.events)
        await assert_even(engine)
    assert len(fake.requests) == 2


@on_virtual_time
async def test_a_dead_letter_is_not_replayed_once_its_forget_was_accepted() -> None:
    """It waits for an attempt under way; the letter is still there."""
    fake = FakeDestination([Step(reject()), Step(unknown())])
    disk = Disk()
    async with disk.engine(demo=fake) as engine:
        await (await engine.submit([LEA])).settled(timeout=5)
        await engine.submit([LEA | {"city": "Paris"}])
        await anyio.sleep(0.5)
        await engine.forget("lea@example.com")
        assert await engine.dead_letters.replay(LetterFilter()) == {"matched": 1, "replayed": 0}
        await anyio.sleep(10.0)
        assert len(fake.requests) == 2
        assert engine.control.destinations()[0]["excluded"] == {"forgotten": 1}
        assert b"lea@" not in b"".join(e.content for a in await disk.journal.read(0, 100) for e in a.events)
        await assert_even(engine)


@on_virtual_time
async def test_dead_letters_can_be_replayed_and_purged() -> None:
    fake = FakeDestination([Step(reject("response_code_27"))] * 2)
    async with Disk().engine(demo=fake) as engine:
        receipt = await engine.submit([LEA, {"email": "ana@example.com"}])
        await receipt.settled(timeout=5)
        letters = (await engine.dead_letters.letters(LetterFilter(), 10))["letters"]
        one, other = (letter["id"] for letter in letters)  # type: ignore[union-attr]
        assert await engine.dead_letters.replay(LetterFilter(ids=(one,)), dry_run=True) == {"matched": 1, "replayed": 0}
        assert await engine.dead_letters.replay(LetterFilter(ids=(one,))) == {"matched": 1, "replayed": 1}
        assert await engine.dead_letters.purge(LetterFilter(ids=(other,))) == {"matched": 1, "purged": 1}
        await anyio.sleep(5.0)
        assert (await engine.dead_letters.letters(LetterFilter(), 10))["letters"] == []
        assert engine.control.destinations()[0]["dead_letters"] == 0
        await assert_even(engine)
    assert len(fake.stored) == 1


@on_virtual_time
async def test_a_replay_does_not_overwrite_a_newer_state() -> None:
    fake = FakeDestination([Step(reject())])
    async with Disk().engine(demo=fake) as engine:
        await (await engine.submit([LEA])).settled(timeout=5)
        await (await engine.submit([LEA | {"city": "Paris"}])).settled(timeout=5)
        await engine.dead_letters.replay(LetterFilter())
        await anyio.sleep(5.0)
        counts = engine.control.destinations()[0]
        assert counts["excluded"] == {"overtaken": 1}
    assert fake.stored["lea@example.com"]["city"] == "Paris"


@pytest.mark.parametrize(
    "paris",
    [[Step(unknown(), lands=True), Step(reject())], [Step(reject("no_envelope"), lands=True)]],
    ids=["no-reply-then-rejected", "a-reply-that-says-nothing"],
)
@on_virtual_time
async def test_nor_one_that_may_have_arrived_before_it_became_a_dead_letter_itself(paris: list[Step]) -> None:
    """Lille is rejected; Paris arrives without a word about it and becomes a dead letter: Lille must not come after."""
    fake = FakeDestination([Step(reject()), *paris])
    async with Disk().engine(demo=fake) as engine:
        await (await engine.submit([LEA])).settled(timeout=5)
        await (await engine.submit([LEA | {"city": "Paris"}])).settled(timeout=60)
        assert fake.stored["lea@example.com"]["city"] == "Paris"
        oldest = (await engine.dead_letters.letters(LetterFilter(), 1))["letters"][0]["id"]  # type: ignore[index]
        await engine.dead_letters.replay(LetterFilter(ids=(oldest,)))
        await anyio.sleep(5.0)
        assert fake.stored["lea@example.com"]["city"] == "Paris"
        assert engine.control.destinations()[0]["excluded"] == {"overtaken": 1}
        await engine.dead_letters.replay(LetterFilter())
        await anyio.sleep(5.0)
        assert len(fake.requests) == len(paris) + 2, "the newest letter itself may be replayed"
        await assert_even(engine)


@on_virtual_time
async def test_a_consumer_that_left_the_configuration_is_a_config_error_that_says_what_to_do() -> None:
    disk = Disk()
    async with disk.engine(old=FakeDestination(), demo=FakeDestination()):
        pass
    with pytest.raises(ConfigError, match="destinations remove old"):
        await disk.engine(demo=FakeDestination()).__aenter__()


@pytest.mark.parametrize(("start_at", "delivered"), [("oldest", 1), ("now", 0)])
def test_a_new_destination_begins_where_it_was_told(start_at: str, delivered: int) -> None:
    @on_virtual_time
    async def scene() -> None:
        disk, late = Disk(), FakeDestination()
        async with disk.engine(demo=FakeDestination()) as engine:
            await engine.pause("demo")
            await engine.submit([LEA])
        config = config_of(destination=[{"name": "demo"}, {"name": "late", "start_at": start_at}])
        fakes = {"demo": FakeDestination(), "late": late}
        both = Engine(config, destinations=fakes, journal=disk.journal, state=disk.state, clock=VirtualClock())
        async with both:
            await anyio.sleep(5.0)
            assert "is new: it starts" in str(both.status()["notes"])
            await assert_even(both)
        assert len(late.stored) == delivered

    scene()


# -- on a real disk ---------------------------------------------------------------------------------------------------


def on_disk(folder: Path, fake: FakeDestination) -> Engine:
    config = config_of("demo", engine={"data_dir": str(folder)}, journal={"kind": "sqlite", "min_free_bytes": 0})
    return Engine(config, destinations={"demo": fake})


async def test_a_restart_from_disk_goes_on_where_it_was(tmp_path: Path) -> None:
    first, second = FakeDestination(), FakeDestination()
    async with on_disk(tmp_path, first) as engine:
        await (await engine.submit([LEA])).settled(timeout=10)
        await engine.pause("demo")
        await engine.submit([LEA | {"city": "Paris"}, {"email": "ana@example.com"}])
    async with on_disk(tmp_path, second) as engine:
        await engine.resume("demo")
        receipt = await engine.submit([{"email": "lea@example.com", "zip": "59000"}])
        await receipt.settled(timeout=10)
        await assert_even(engine)
    assert second.stored["lea@example.com"] == {"email": "lea@example.com", "city": "Paris", "zip": "59000"}
    assert set(second.stored) == {"lea@example.com", "ana@example.com"}


async def test_one_process_owns_the_directory(tmp_path: Path) -> None:
    async with on_disk(tmp_path, FakeDestination()):
        with pytest.raises(DataDirectoryError):
            await on_disk(tmp_path, FakeDestination()).__aenter__()


async def test_a_backup_opens_as_a_data_directory_and_knows_everything(tmp_path: Path) -> None:
    fake = FakeDestination()
    async with on_disk(tmp_path / "data", FakeDestination()) as engine:
        await (await engine.submit([LEA])).settled(timeout=10)
        await engine.pause("demo")
        await engine.submit([{"email": "ana@example.com"}])
        answer = await engine.control.backup(tmp_path / "copy")
        assert answer["files"] == ["journal.db", "state.db"]
    async with on_disk(tmp_path / "copy", fake) as engine:
        await engine.resume("demo")
        receipt = await engine.submit([LEA])
        assert outcomes(await receipt.settled(timeout=10)) == {"demo": {"suppressed": 1}}
        await assert_even(engine)
    assert set(fake.stored) == {"ana@example.com"}
