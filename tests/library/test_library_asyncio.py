"""The engine in a plain asyncio program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from engine import Config, Engine, Overloaded, ProfileEvent, Stopped, StorageFailed
from engine.adapters.memory_journal import MemoryJournal
from engine.errors import NoSpace
from engine.testing.destination import FakeDestination, Step, reject

Run = Callable[[Callable[[], object]], None]


def test_what_submit_returned_is_delivered_and_the_receipt_says_so(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            receipt = await rainfocus.submit(
                [ProfileEvent(email="Lea@Example.com", city="Lille"), {"email": "lea@example.com", "city": "Lyon"}]
            )
            counts = await receipt.settled(timeout=10)
        assert receipt.accepted == 2
        assert counts is not None
        assert counts["crm"]["delivered"] + counts["crm"]["superseded"] == 2
        assert [fields["city"] for fields in crm.stored.values()] == ["Lyon"]

    run(main)


def test_a_bad_record_never_raises_and_leaves_the_others_alone(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            events: list[dict[str, object]] = [
                {"email": "no address"},
                {"email": "lea@example.com", "countryid": "XX", "city": "Lille"},
                {"city": "nobody's"},
            ]
            receipt = await rainfocus.submit(events)
            await receipt.settled(timeout=10)
        assert [it.index for it in receipt.rejected] == [0, 2]
        assert [(it.index, it.field) for it in receipt.dropped] == [(1, "countryid")]
        assert crm.stored == {"lea@example.com": {"email": "lea@example.com", "city": "Lille"}}

    run(main)


def test_only_bad_records_give_a_receipt_that_is_settled_at_once(run: Run, config: Config) -> None:
    async def main() -> None:
        async with Engine(config, destinations={"crm": FakeDestination()}) as rainfocus:
            receipt = await rainfocus.submit([{"email": "no address"}])
            assert (receipt.accepted, await receipt.settled(timeout=0)) == (0, {})

    run(main)


def test_a_receipt_that_waits_too_long_raises_timeout_and_nothing_is_lost(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            await rainfocus.pause("crm")
            receipt = await rainfocus.submit([{"email": "lea@example.com"}])
            with pytest.raises(TimeoutError):
                await receipt.settled(timeout=0.05)
            await rainfocus.resume("crm")
            assert (await receipt.settled(timeout=10) or {})["crm"]["delivered"] == 1

    run(main)


def test_the_backlog_of_one_run_is_delivered_by_the_next(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        async with Engine(config, destinations={"crm": FakeDestination()}) as rainfocus:
            await rainfocus.pause("crm")
            await rainfocus.submit([{"email": f"p{i}@example.com"} for i in range(50)])
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            await rainfocus.recovered()
            await rainfocus.resume("crm")
            receipt = await rainfocus.submit([{"email": "last@example.com"}])
            await receipt.settled(timeout=10)
            report = await rainfocus.control.audit()
        assert report["ok"], report

    run(main)
    assert len(crm.stored) == 51


def test_lookup_forget_and_dead_letters_answer_in_the_same_process(run: Run, config: Config) -> None:
    async def main() -> None:
        crm = FakeDestination([Step(reject("response_code_103"))])
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            await (await rainfocus.submit([{"email": "lea@example.com"}])).settled(timeout=10)
            found = await rainfocus.lookup(" Lea@Example.com")
            assert found["destinations"]["crm"]["outcome"] == "dead_lettered"  # type: ignore[index]
            await rainfocus.forget("lea@example.com")
            with pytest.raises(ValueError, match="e-mail"):
                await rainfocus.lookup("nobody")

    run(main)


def test_an_engine_that_does_not_run_says_so(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        rainfocus = Engine(config, destinations={"crm": crm})
        assert rainfocus.readiness() == ["starting"]
        with pytest.raises(Stopped, match="not been started"):
            await rainfocus.submit([{"email": "lea@example.com"}])
        async with rainfocus:
            assert rainfocus.readiness() == []
        assert rainfocus.readiness() == ["stopped"]
        with pytest.raises(Stopped, match="stopped"):
            await rainfocus.submit([{"email": "lea@example.com"}])
        with pytest.raises(Stopped, match="once"):
            await rainfocus.__aenter__()

    run(main)


def test_a_caller_is_told_when_to_come_back(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        journal.fail.append(NoSpace("journal-full", "the journal is full"))
        async with Engine(config, destinations={"crm": crm}, journal=journal) as rainfocus:
            with pytest.raises(Overloaded) as caught:
                await rainfocus.submit([{"email": "lea@example.com"}])
        assert caught.value.type == "journal-full"
        assert caught.value.retry_after_seconds > 0

    run(main)


def test_wrong_use_raises_what_is_documented(run: Run, tmp_path: object, crm: FakeDestination) -> None:
    async def main() -> None:
        config = Config.from_dict(
            {"ingress": {"max_events": 2}, "journal": {"kind": "memory"}, "destination": [{"name": "crm"}]}
        )
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            with pytest.raises(KeyError):
                await rainfocus.submit([{"email": "lea@example.com"}], source="nowhere")
            with pytest.raises(KeyError):
                await rainfocus.submit([{"email": "lea@example.com"}], lane="fast")
            with pytest.raises(KeyError):
                await rainfocus.pause("nowhere")
            with pytest.raises(ValueError, match="2"):
                await rainfocus.submit([{"email": f"p{i}@example.com"} for i in range(3)])

    run(main)


def test_a_storage_failure_stops_the_engine_and_never_the_host(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        async with Engine(config, destinations={"crm": crm}, journal=journal) as rainfocus:
            watching = asyncio.create_task(rainfocus.stopped())
            journal.fail.append(StorageFailed("fsync: EIO"))
            with pytest.raises(Stopped) as caught:
                await rainfocus.submit([{"email": "lea@example.com"}])
            assert isinstance(caught.value.__cause__, StorageFailed)
            with pytest.raises(StorageFailed, match="EIO"):
                await watching
            with pytest.raises(Stopped) as later:
                await rainfocus.submit([{"email": "lea@example.com"}])
            assert isinstance(later.value.__cause__, StorageFailed)
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()
        with pytest.raises(StorageFailed):
            await rainfocus.stopped()
        with pytest.raises(Stopped) as afterwards:
            await rainfocus.submit([{"email": "lea@example.com"}])
        assert isinstance(afterwards.value.__cause__, StorageFailed)

    run(main)


def test_those_who_wait_for_a_receipt_hear_that_the_engine_failed(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        async with Engine(config, destinations={"crm": crm}, journal=journal) as rainfocus:
            await rainfocus.pause("crm")
            receipt = await rainfocus.submit([{"email": "lea@example.com"}])
            waiting = asyncio.create_task(receipt.settled())
            await asyncio.sleep(0)
            journal.fail.append(StorageFailed("fsync: EIO"))
            with pytest.raises(Stopped):
                await rainfocus.submit([{"email": "ivar@example.com"}])
            with pytest.raises(Stopped) as caught:
                await waiting
            assert isinstance(caught.value.__cause__, StorageFailed)

    run(main)


def test_those_who_wait_for_a_receipt_hear_that_the_engine_stopped(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            done = await rainfocus.submit([{"email": "ivar@example.com"}])
            await done.settled(timeout=10)
            await rainfocus.pause("crm")
            receipt = await rainfocus.submit([{"email": "lea@example.com"}])
            waiting = asyncio.create_task(receipt.settled())
            await asyncio.sleep(0)
        with pytest.raises(Stopped):
            await waiting
        with pytest.raises(Stopped):
            await receipt.settled()
        assert (await done.settled() or {})["crm"]["delivered"] == 1, "what was settled stays settled"

    run(main)


def test_a_failure_in_the_program_ends_the_engine_and_is_the_programs_own(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        rainfocus = Engine(config, destinations={"crm": crm})

        async def program() -> None:
            async with rainfocus:
                await rainfocus.submit([{"email": "lea@example.com"}])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await program()
        assert rainfocus.readiness() == ["stopped"]
        await rainfocus.stopped()

    run(main)


def test_cancelling_the_program_stops_the_engine(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        rainfocus = Engine(config, destinations={"crm": crm})
        inside = asyncio.Event()

        async def program() -> None:
            async with rainfocus:
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(program())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rainfocus.readiness() == ["stopped"]
        async with Engine(config, destinations={"crm": crm}):
            pass  # the data directory is free again

    run(main)


def test_cancelling_the_start_leaves_nothing_behind(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        for turns in range(12):
            task = asyncio.create_task(Engine(config, destinations={"crm": crm}).__aenter__())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if task.cancelled():
                assert not others
            else:
                await task.result().__aexit__()
        async with Engine(config, destinations={"crm": crm}) as rainfocus:
            assert rainfocus.readiness() == []

    run(main)
