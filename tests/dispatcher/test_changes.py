"""What RainFocus reports as changed there: no digest of that attendee is certain any more, and nothing is written back.

The case that all of this is for: a profile is confirmed, somebody edits the attendee in RainFocus, and the producer
sends the same profile again. Suppressed, the edit would stay for ever.
"""

from __future__ import annotations

import anyio
from stage import HOLD_SECONDS, Stage, address, event, key, on_virtual_time

from engine.model import NOTHING, Batch, Event, Kind, LedgerEntry, Trait
from engine.profiles.identity import key_of
from engine.testing.destination import FakeDestination, Step, ok, reject, retry, unknown

ID = "1700000000000001AbCd"


def change(person: int | str, attendee_id: str = "") -> Event:
    content = b'[{"id":"c1","record":{}}]'
    return Event(key(person), content, Trait.EMAIL, kind=Kind.CHANGE, attendee_id=attendee_id)


async def entry(stage: Stage, name: str = "demo", person: int | str = 1) -> LedgerEntry | None:
    """As a question about this person is answered now."""
    found = await stage.consumers[name].books.look_up(stage.state, [key(person)])
    return found[key(person)].entry if key(person) in found else None


async def stored(stage: Stage, name: str = "demo", person: int | str = 1) -> LedgerEntry | None:
    """As it is on disk."""
    found = await stage.state.keys(name, [key(person)])
    return found[key(person)].entry if key(person) in found else None


@on_virtual_time
async def test_the_same_content_is_sent_again_after_a_change() -> None:
    stage, demo = Stage(), FakeDestination()
    stage.destination("demo", demo)
    async with stage.running():
        for _ in range(2):
            await stage.submit(event(1, city="Lille"))
            await stage.settled()
        assert stage.counts("demo") == {"delivered": 1, "suppressed": 1}
        await stage.submit(change(1), source="")
        await stage.submit(event(1, city="Lille"))
        await stage.settled()
        assert stage.counts("demo") == {"delivered": 2, "suppressed": 1}
        await stage.submit(event(1, city="Lille"))
        await stage.settled()
        assert stage.counts("demo") == {"delivered": 2, "suppressed": 2}, "and then its digest is certain again"


@on_virtual_time
async def test_nothing_is_ever_sent_because_of_a_change() -> None:
    stage, demo = Stage(), FakeDestination()
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1, city="Lille"))
        await stage.settled()
        for _ in range(20):
            await stage.submit(change(1, ID), change(2), source="")
        await anyio.sleep(3_600.0)
        assert len(demo.requests) == 1
        assert demo.stored == {address(1): {"email": address(1), "city": "Lille"}}


@on_virtual_time
async def test_a_change_is_nobody_s_event_where_profiles_are_delivered() -> None:
    """Conservation: accepted counts what is for the destination, and a change is about it."""
    stage = Stage()
    stage.destination("demo", FakeDestination())
    stage.destination("picky", FakeDestination(), sources=frozenset({"crm"}))
    async with stage.running():
        await stage.submit(event(1))
        await stage.submit(change(1), change(2), source="")
        await stage.settled()
        end = stage.pipeline.commit.next_offset
        assert {name: one.accepted(end) for name, one in stage.consumers.items()} == {"demo": 1, "picky": 0}
        assert [one.books.not_addressed for one in stage.consumers.values()] == [2, 3]


@on_virtual_time
async def test_a_destination_that_reads_certain_sources_hears_of_every_change() -> None:
    stage, demo = Stage(), FakeDestination()
    stage.destination("demo", demo, sources=frozenset({"crm"}))
    async with stage.running():
        await stage.submit(event(1), source="crm")
        await stage.settled()
        await stage.submit(change(1), source="")
        await stage.submit(event(1), source="crm")
        await stage.settled()
        assert stage.counts("demo") == {"delivered": 2}


@on_virtual_time
async def test_every_destination_hears_of_it() -> None:
    stage = Stage()
    for name in ("one", "other"):
        stage.destination(name, FakeDestination())
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
        await stage.submit(change(1), source="")
        await stage.submit(event(1))
        await stage.settled()
        assert [stage.counts(name) for name in stage.consumers] == [{"delivered": 2}, {"delivered": 2}]


@on_virtual_time
async def test_what_happened_last_is_still_known_and_the_attendee_id_is_learned() -> None:
    stage = Stage()
    stage.destination("demo", FakeDestination())
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
        before = await entry(stage)
        assert before is not None
        assert before.digest
        await stage.submit(change(1, ID), source="")
        await anyio.sleep(1.0)
        for found in (await entry(stage), await stored(stage)):
            assert found is not None
            assert (found.outcome, found.at, found.settled_through) == ("delivered", before.at, before.settled_through)
            assert (found.digest, found.attendee_id, found.confirmed_through) == (b"", ID, before.confirmed_through)


@on_virtual_time
async def test_the_id_of_an_attendee_whom_nobody_has_sent_yet_is_learned_too() -> None:
    stage = Stage()
    stage.destination("demo", FakeDestination())
    async with stage.running():
        await stage.submit(change(1, ID), source="")
        await anyio.sleep(1.0)
        found = await stored(stage)
        assert found is not None
        assert (found.outcome, found.attendee_id, found.settled_through) == ("", ID, NOTHING)
        await stage.submit(event(1))
        await stage.settled()
        found = await stored(stage)
        assert found is not None
        assert (found.outcome, found.attendee_id, bool(found.digest)) == ("delivered", ID, True)


@on_virtual_time
async def test_a_session_is_nobody_s_and_leaves_no_trace_in_a_ledger() -> None:
    stage = Stage()
    stage.destination("demo", FakeDestination())
    session = key_of("session:1700000000000009QwEr")
    async with stage.running():
        await stage.submit(Event(session, b"[]", Trait.ENTITY, kind=Kind.CHANGE), source="")
        await anyio.sleep(1.0)
        assert await stage.state.keys("demo", [session]) == {}


# -- while an attempt is under way ------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_attempt_that_was_under_way_leaves_no_digest() -> None:
    """`ok` says that RainFocus took our write, and not whether the change came before or after it."""
    stage, demo = Stage(), FakeDestination([Step(ok("A1"), seconds=5.0)])
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1))
        await anyio.sleep(1.0)
        await stage.submit(change(1), source="")
        await stage.settled()
        found = await stored(stage)
        assert found is not None
        assert (found.outcome, found.digest, found.attendee_id) == ("delivered", b"", "A1")
        await stage.submit(event(1))
        await stage.settled()
        assert stage.counts("demo") == {"delivered": 2}


@on_virtual_time
async def test_an_attempt_that_began_after_the_change_leaves_one() -> None:
    """The first attempt was under way when the change came; the second was not."""
    stage, demo = Stage(), FakeDestination([Step(retry(), seconds=5.0)])
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1))
        await anyio.sleep(1.0)
        await stage.submit(change(1), source="")
        await stage.settled()
        found = await stored(stage)
        assert found is not None
        assert (len(demo.requests), bool(found.digest)) == (2, True)


@on_virtual_time
async def test_a_change_while_an_outcome_is_unknown_leaves_the_retry_certain() -> None:
    stage, demo = Stage(), FakeDestination([Step(unknown(), lands=True)])
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1))
        await anyio.sleep(HOLD_SECONDS / 2)
        await stage.submit(change(1), source="")
        await stage.settled()
        found = await stored(stage)
        assert found is not None
        assert (len(demo.requests), bool(found.digest)) == (2, True)


@on_virtual_time
async def test_a_change_that_comes_during_the_look_up_is_not_overlooked() -> None:
    """The ledger was asked before the change, and its answer comes after the change is durable and forgotten here."""
    stage, demo = Stage(), FakeDestination()
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
        asked, answer = anyio.Event(), anyio.Event()
        look_up = stage.state.keys

        async def slow(consumer: str, keys: object, /) -> object:
            found = await look_up(consumer, keys)  # type: ignore[arg-type]
            asked.set()
            await answer.wait()
            return found

        stage.state.keys = slow  # type: ignore[method-assign,assignment]
        await stage.submit(event(1))
        await asked.wait()
        await stage.submit(change(1), source="")
        stage.state.keys = look_up  # type: ignore[method-assign]
        await stage.pipeline.settler.flush()
        assert not stage.consumers["demo"].books.recent
        answer.set()
        await stage.settled()
        assert stage.counts("demo") == {"delivered": 2}


@on_virtual_time
async def test_what_is_remembered_of_leases_ends_with_them() -> None:
    """A change for a lease that ends badly costs at most one request, and no memory."""
    stage, demo = Stage(), FakeDestination([Step(reject(), seconds=5.0)] * 3)
    stage.destination("demo", demo)
    async with stage.running():
        for person in range(3):
            await stage.submit(event(person))
        await anyio.sleep(1.0)
        await stage.submit(*(change(person) for person in range(3)), source="")
        changes = stage.consumers["demo"].changes
        assert changes.leased == {key(person) for person in range(3)}
        await stage.settled()
        await stage.submit(change(9), source="")
        assert changes.leased == set()
        assert repr(changes) == "<Changes [0 of leased profiles]>"


# -- order, crashes, forgets ------------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_event_from_before_the_change_is_still_suppressed_in_its_place() -> None:
    """The journal's order decides: what came before the change is judged by what was certain then."""
    stage, demo = Stage(), FakeDestination()
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
        await stage.submit(event(1))
        await stage.settled()
        await stage.submit(change(1), source="")
        await stage.settled()
        assert stage.counts("demo") == {"delivered": 1, "suppressed": 1}


@on_virtual_time
async def test_a_change_that_was_accepted_survives_a_crash() -> None:
    stage, demo = Stage(), FakeDestination()
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
    async with stage.running():
        await stage.submit(change(1, ID), source="")  # killed before anything of it is settled
        found = await stored(stage)
        assert found is not None
        assert found.digest
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
        assert stage.counts("demo") == {"delivered": 2}


@on_virtual_time
async def test_a_change_is_not_taken_twice_after_a_crash() -> None:
    """Events of its key that came later are settled, so the change was: their digest stands."""
    stage = Stage()
    stage.destination("demo", FakeDestination(answer=_stuck_for_the_first))
    async with stage.running():
        await stage.submit(event(0))  # holds the watermark
        await stage.submit(change(1), source="")
        await stage.submit(event(1))
        await anyio.sleep(5.0)
        await stage.pipeline.settler.flush()
        assert stage.consumers["demo"].watermark == 0
    async with stage.running():
        await anyio.sleep(5.0)
        found = await stored(stage)
        assert found is not None
        assert found.digest
        assert stage.counts("demo") == {"delivered": 1}


def _stuck_for_the_first(batch: Batch) -> Step:
    return Step(retry() if batch.profiles[0].key == key(0) else ok())


@on_virtual_time
async def test_a_waiting_event_from_before_the_change_is_not_lost_in_a_crash() -> None:
    """What the ledger learns from a change must not count as an outcome of anything."""
    stage, demo = Stage(), FakeDestination([Step(retry())] * 2)
    stage.destination("demo", demo)
    async with stage.running():
        await stage.submit(event(1, city="Lille"))
        await stage.submit(change(1, ID), source="")
        await anyio.sleep(0.3)
        await stage.pipeline.settler.flush()
    async with stage.running():
        await stage.settled()
        assert demo.stored.get(address(1)) == {"email": address(1), "city": "Lille"}


@on_virtual_time
async def test_a_forget_takes_what_was_learned_before_it() -> None:
    stage = Stage()
    stage.destination("demo", FakeDestination())
    async with stage.running():
        await stage.submit(change(1, ID), source="")
        await stage.submit(Event(key(1), b"{}", kind=Kind.FORGET), source="")
        await anyio.sleep(5.0)
        assert await stored(stage) is None
        assert all(one.content == b"{}" for append in await stage.journal.read(0, 10) for one in append.events)
