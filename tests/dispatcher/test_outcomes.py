"""What becomes of a profile: split batches, unknown attempts, suppression, exclusion."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import ceil, log2

import anyio
import pytest
from stage import HOLD_SECONDS, Stage, event, key, on_virtual_time

from engine.core.handover import Policy
from engine.model import Batch, Event, Kind, Membership, Verdict, VerdictKind
from engine.testing.destination import FakeDestination, Step, ok, reject, retry, unknown

SPLIT = Verdict(VerdictKind.SPLIT, "response_code_27")


def spoiled_by(*people: int) -> Callable[[Batch], Step]:
    """One envelope for all: it is refused while one of these is in it, without a word on which."""
    bad = {key(person) for person in people}

    def answer(batch: Batch) -> Step:
        if not bad & {profile.key for profile in batch.profiles}:
            return Step(ok())
        return Step(reject("response_code_27") if len(batch.profiles) == 1 else SPLIT)

    return answer


# -- split ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 64, 100])
def test_one_bad_record_is_found_and_the_others_are_delivered_in_few_requests(size: int) -> None:
    @on_virtual_time
    async def scene() -> None:
        destination = FakeDestination(answer=spoiled_by(1), profiles_per_request=size)
        stage = Stage()
        stage.destination("demo", destination, max_attempts=1)
        async with stage.running():
            await stage.submit(*(event(person) for person in range(size)))
            await stage.settled()
        assert stage.counts("demo") == {"delivered": size - 1, "dead_lettered:response_code_27": 1}
        assert len(destination.requests) <= 1 + 2 * ceil(log2(size))
        assert destination.most_in_flight_of_a_key == 1

    scene()


@on_virtual_time
async def test_several_bad_records_are_all_found() -> None:
    destination = FakeDestination(answer=spoiled_by(0, 31, 32, 63), profiles_per_request=64)
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(64)))
        await stage.settled()
        assert {profile.key for _, _, profile in await stage.letters("demo")} == {key(n) for n in (0, 31, 32, 63)}
    assert len(destination.stored) == 60


@on_virtual_time
async def test_what_comes_meanwhile_waits_behind_the_halves() -> None:
    destination = FakeDestination(answer=spoiled_by(1), profiles_per_request=8)
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person, v=1) for person in range(8)))
        await anyio.sleep(1.5)
        await stage.submit(*(event(person, v=2) for person in range(8) if person != 1))
        await stage.settled()
    assert {fields["v"] for fields in destination.stored.values()} == {"2"}


@on_virtual_time
async def test_halves_that_are_left_at_the_end_are_sent_by_the_next_process() -> None:
    destination = FakeDestination(answer=spoiled_by(1), profiles_per_request=64)
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running(drain=True):
        await stage.submit(*(event(person) for person in range(64)))
        await anyio.sleep(2.5)
    assert len(destination.requests) == 2
    async with stage.running():
        await stage.settled()
    assert len(destination.stored) == 63


@on_virtual_time
async def test_a_forget_in_the_middle_of_a_split_sends_nothing_of_the_person_any_more() -> None:
    destination = FakeDestination(answer=spoiled_by(1), profiles_per_request=4)
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(4)))
        await anyio.sleep(1.5)
        assert len(destination.requests) == 1
        await stage.submit(Event(key(3), b"{}", kind=Kind.FORGET), source="")
        await stage.settled()
    assert not any(b"p3@" in record for request in destination.requests[1:] for record in request.records)
    assert stage.counts("demo")["excluded:forgotten"] == 1


# -- unknown ----------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_after_an_unknown_outcome_the_key_is_held_until_the_request_can_no_longer_arrive() -> None:
    destination = FakeDestination([Step(unknown(), seconds=1.0)])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1, v=1))
        await anyio.sleep(0.5)
        await stage.submit(event(1, v=2), event(2))
        await stage.settled()
    others = [request for request in destination.requests if b"p2@" in request.records[0]]
    mine = [request for request in destination.requests if b"p1@" in request.records[0]]
    assert others[0].at < 0.6, "no key blocks another"
    assert mine[1].at >= 1.0 + HOLD_SECONDS
    assert json.loads(mine[1].records[0])["v"] == "2"


@on_virtual_time
async def test_a_killed_process_leaves_its_requests_time_to_arrive() -> None:
    destination = FakeDestination([Step(seconds=100.0)])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1))
        await anyio.sleep(1.0)
    killed = anyio.current_time()
    async with stage.running():
        await stage.settled()
    assert destination.requests[1].at >= killed + HOLD_SECONDS


@on_virtual_time
async def test_a_drained_process_leaves_nothing_to_wait_for() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running(drain=True):
        await stage.submit(event(1))
        await stage.settled()
    again = anyio.current_time()
    async with stage.running():
        await stage.submit(event(2))
        await stage.settled()
    assert destination.requests[1].at < again + 0.5


@on_virtual_time
async def test_a_drain_that_left_an_unknown_attempt_is_not_clean() -> None:
    destination = FakeDestination([Step(unknown())])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running(drain=True):
        await stage.submit(event(1))
        await anyio.sleep(0.1)
    again = anyio.current_time()
    async with stage.running():
        await stage.settled()
    assert destination.requests[1].at >= again + HOLD_SECONDS


# -- suppression ------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_the_same_content_is_not_sent_twice() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        for _ in range(3):
            await stage.submit(event(1, city="Lille"))
            await stage.settled()
    assert len(destination.requests) == 1
    assert stage.counts("demo") == {"delivered": 1, "suppressed": 2}


@pytest.mark.parametrize("end", [unknown(), reject(), retry()], ids=["unknown", "dead letter", "retry"])
def test_suppression_needs_certainty(end: Verdict) -> None:
    """Delivered A; B ended badly, so the store may hold either; A comes again: it has to be sent."""

    @on_virtual_time
    async def scene() -> None:
        destination = FakeDestination([Step(ok()), Step(end, lands=end.kind != VerdictKind.RETRY)])
        stage = Stage()
        stage.destination("demo", destination)
        async with stage.running():
            await stage.submit(event(1, city="A"))
            await stage.settled()
            await stage.submit(event(1, city="B"))
            await anyio.sleep(0.1)
            await stage.submit(event(1, city="A"))
            await stage.settled()
        assert destination.stored["p1@example.com"]["city"] == "A"
        assert "suppressed" not in stage.counts("demo")

    scene()


@on_virtual_time
async def test_what_recovery_reads_is_sent_never_suppressed() -> None:
    """A predecessor may have sent anything in between."""
    destination = FakeDestination([Step(ok()), Step(ok(), seconds=100.0)])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1, city="A"))
        await stage.settled()
        await stage.submit(event(1, city="B"))
        await anyio.sleep(0.5)
        await stage.submit(event(1, city="A"))
        await anyio.sleep(0.5)
    async with stage.running():
        await stage.settled()
    assert json.loads(destination.requests[-1].records[0])["city"] == "A"
    assert len(destination.requests) == 3


@pytest.mark.parametrize(("later", "requests"), [(3_599.0, 1), (3_700.0, 2)])
def test_a_confirmation_does_not_hold_for_ever(later: float, requests: int) -> None:
    @on_virtual_time
    async def scene() -> None:
        destination = FakeDestination()
        stage = Stage()
        stage.destination("demo", destination, suppress_ttl_seconds=3_600.0)
        async with stage.running():
            await stage.submit(event(1))
            await stage.settled()
            await anyio.sleep(later)
            await stage.submit(event(1))
            await stage.settled()
        assert len(destination.requests) == requests

    scene()


@on_virtual_time
async def test_a_suppressed_profile_does_not_renew_its_confirmation() -> None:
    """Otherwise a profile that comes every hour would never be sent again, whatever somebody changed by hand."""
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination, suppress_ttl_seconds=3_600.0)
    async with stage.running():
        for _ in range(5):
            await stage.submit(event(1))
            await stage.settled()
            await anyio.sleep(1_500.0)
    assert len(destination.requests) == 2


@on_virtual_time
async def test_suppression_can_be_switched_off() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination, suppress=False)
    async with stage.running():
        for _ in range(3):
            await stage.submit(event(1))
            await stage.settled()
    assert stage.counts("demo") == {"delivered": 3}


@on_virtual_time
async def test_suppressed_profiles_use_up_no_permits() -> None:
    """One permit finds the one profile of 300 that has to be sent."""
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(300)))
        await stage.settled()
    stage._accounts[0]["rate"] = 1.0
    async with stage.running(drain=True):
        await stage.submit(*(event(person) for person in range(300)), event("new"))
        await stage.settled(within=10.0)
    assert len(destination.requests) == 301


# -- exclusion --------------------------------------------------------------------------------------------------------


def member(**audiences: bool) -> dict[str, Membership]:
    return {name: Membership(realized, 1.0) for name, realized in audiences.items()}


@pytest.mark.parametrize(
    ("one", "policy", "reason"),
    [
        (Event(key("hash"), b'{"city":"Lille"}'), Policy(), "no_email"),
        (event(1), Policy(audiences=frozenset(["vip"])), "audience"),
        (event(1, audiences=member(vip=False)), Policy(audiences=frozenset(["vip"])), "exited"),
        (event(1, note="u@bench.invalid"), Policy(), "synthetic"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_what_must_not_leave_is_excluded_with_its_reason(one: Event, policy: Policy, reason: str) -> None:
    @on_virtual_time
    async def scene() -> None:
        destination = FakeDestination()
        stage = Stage()
        stage.destination("demo", destination, handover=policy)
        async with stage.running():
            await stage.submit(one)
            await stage.settled()
        assert destination.requests == []
        assert stage.counts("demo") == {f"excluded:{reason}": 1}

    scene()


@on_virtual_time
async def test_a_hash_joins_a_profile_that_waits_with_its_address() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(Event(key(1), b'{"city":"Lille"}'), event(1, zip=1))
        await stage.settled()
    assert destination.stored["p1@example.com"] == {"email": "p1@example.com", "city": "Lille", "zip": "1"}
    assert stage.counts("demo") == {"delivered": 1, "superseded": 1}


@on_virtual_time
async def test_a_dry_run_does_everything_but_the_request() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination, dry_run=True)
    async with stage.running():
        await stage.submit(event(1), event(1), event(2))
        await stage.settled()
    assert destination.requests == []
    assert stage.counts("demo") == {"excluded:dry_run": 2, "superseded": 1}


@on_virtual_time
async def test_after_a_dry_run_everything_is_sent() -> None:
    """What a dry run has seen confirms nothing."""
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination, dry_run=True)
    async with stage.running(drain=True):
        await stage.submit(event(1))
        await stage.settled()
    stage._destinations[0]["policy"]["dry_run"] = False
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
    assert len(destination.requests) == 1


@on_virtual_time
async def test_events_of_other_sources_do_not_reach_a_destination() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.destination("demo", destination, sources=frozenset(["crm"]))
    async with stage.running():
        await stage.submit(event(1), source="crm")
        await stage.submit(event(2), source="web")
        await stage.settled()
    assert list(destination.stored) == ["p1@example.com"]
    assert stage.counts("demo") == {"delivered": 1}
