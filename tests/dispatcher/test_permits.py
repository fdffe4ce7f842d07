"""Permits: what has to be there before one is given, what it is taken for, and what makes it void."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence

import anyio
import pytest
from stage import Connecting, Stage, Tokens, event, on_virtual_time

from engine.model import Batch, Verdict, VerdictKind
from engine.testing.destination import FakeDestination, Request, Step, ok

THROTTLED = Verdict(VerdictKind.RETRY, "http_429")


def most_over(requests: Sequence[Request], rate: float, burst: int) -> float:
    """By how many requests some sliding window exceeds rate × window + burst."""
    at = [request.at for request in requests]
    return max(
        (j - i + 1 - (rate * (at[j] - at[i]) + burst) for i in range(len(at)) for j in range(i, len(at))), default=0.0
    )


def versions(destination: FakeDestination) -> list[str]:
    return [json.loads(record)["v"] for request in destination.requests for record in request.records]


@on_virtual_time
async def test_a_key_is_never_in_two_requests_at_once_and_arrives_in_order() -> None:
    destination = FakeDestination(answer=lambda batch: Step(seconds=0.3))
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        for version in range(40):
            await stage.submit(event(1, v=version), event(2, v=version), event(f"other{version}", v=version))
            await anyio.sleep(0.05)
        await stage.settled()
    assert destination.most_in_flight_of_a_key == 1
    mine = [int(json.loads(r.records[0])["v"]) for r in destination.requests if b"p1@" in r.records[0]]
    assert mine == sorted(set(mine))
    assert mine[-1] == 39
    assert len(mine) < 15, "what came during an attempt left together"


@on_virtual_time
async def test_the_batch_is_taken_after_the_permit_so_it_carries_the_newest_state() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1, v="early"))
        await anyio.sleep(0.5)  # the bucket begins empty: the first permit comes after a second
        assert destination.requests == []
        await stage.submit(event(1, v="late"))
        await stage.settled()
    assert versions(destination) == ["late"]


@on_virtual_time
async def test_whoever_was_due_before_the_bucket_had_room_is_asked_again() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1), event(2))
        await anyio.sleep(1.5)  # one has left; the other is due, and the arbiter waits for a permit
        stage.consumers["demo"].set_paused(True)
        await anyio.sleep(5.0)
        assert len(destination.requests) == 1
        stage.consumers["demo"].set_paused(False)
        await stage.settled()
    assert len(destination.requests) == 2


@on_virtual_time
async def test_a_pause_that_begins_while_the_bucket_is_waited_for_is_kept() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1), event(2))
        await anyio.sleep(1.5)
        stage.accounts["a"].pause(30.0)
        leased = 0
        for _ in range(29):
            await anyio.sleep(1.0)
            leased += stage.consumers["demo"].coalescer.leased
        assert (len(destination.requests), leased) == (1, 0), "nobody holds a lease through a pause"
        await stage.settled()
    assert len(destination.requests) == 2


@on_virtual_time
async def test_while_the_rate_binds_batches_fill_by_themselves() -> None:
    destination = FakeDestination(profiles_per_request=100)
    stage = Stage()
    stage.account(rate=1.0)
    stage.destination("demo", destination)
    async with stage.running():
        for person in range(100):
            await stage.submit(event(person))
            await anyio.sleep(0.03)
        await stage.settled()
    assert 3 <= len(destination.requests) <= 5
    assert len(destination.stored) == 100


@on_virtual_time
async def test_the_rate_is_kept_over_every_window() -> None:
    destination = FakeDestination(answer=lambda batch: Step(seconds=0.02))
    stage = Stage()
    stage.account(rate=100.0, burst=5)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(300)))
        await anyio.sleep(10.0)
        await stage.submit(*(event(person) for person in range(300, 600)))  # a quiet time earns no more than a burst
        await stage.settled()
    assert most_over(destination.requests, 100.0, 5) <= 1e-6
    span = destination.requests[299].at - destination.requests[0].at
    assert 300 / span > 95.0, "and it is used"


@on_virtual_time
async def test_a_permit_older_than_20_ms_is_asked_for_again_and_the_rate_holds_at_the_socket() -> None:
    """Connections that take long to open would otherwise let out together what was granted one by one."""
    source = random.Random(3)
    destination = Connecting(lambda: source.choice([0.0, 0.05, 0.4]))
    stage = Stage()
    stage.account(rate=50.0, burst=4, concurrency=30)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(200)))
        await stage.settled()
    assert len(destination.stored) == 200
    assert most_over(destination.requests, 50.0, 4) <= 1e-6


@on_virtual_time
async def test_a_first_connection_that_takes_almost_20_ms_breaks_no_window() -> None:
    """The first permits are used late, the next ones at once: granted one by one, they would meet at the socket."""
    slow = iter([0.019] * 19)
    destination = Connecting(lambda: next(slow, 0.0))
    stage = Stage()
    stage.account(rate=1_000.0, burst=10, concurrency=100)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(200)))
        await stage.settled()
    assert most_over(destination.requests, 1_000.0, 10) <= 1e-6


@on_virtual_time
async def test_no_more_requests_are_under_way_than_the_window_allows() -> None:
    destination = FakeDestination(answer=lambda batch: Step(seconds=1.0))
    stage = Stage()
    stage.account(concurrency=3)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(12)))
        await stage.settled()
    at = [request.at for request in destination.requests]
    assert max(sum(start <= one < start + 1.0 for one in at) for start in at) == 3


@on_virtual_time
async def test_destinations_of_an_account_share_its_permits_by_weight() -> None:
    order: list[str] = []

    def sent(name: str, batch: Batch) -> Step:
        order.append(name)
        return Step(ok())

    stage = Stage()
    stage.account(rate=100.0, burst=2)
    stage.destination("big", FakeDestination(answer=lambda batch: sent("big", batch)), weight=3)
    stage.destination("small", FakeDestination(answer=lambda batch: sent("small", batch)), weight=1)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(400)))
        await anyio.sleep(3.0)
    assert Counter(order[:200]) == {"big": 150, "small": 50}


@on_virtual_time
async def test_a_share_that_is_not_used_goes_to_the_others() -> None:
    big, small = FakeDestination(), FakeDestination()
    stage = Stage()
    stage.account(rate=100.0)
    stage.destination("big", big, weight=9, sources=frozenset(["nobody"]))
    stage.destination("small", small, weight=1)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(100)))
        await stage.settled(within=1.5)
    assert (len(big.requests), len(small.requests)) == (0, 100)


# -- pauses -----------------------------------------------------------------------------------------------------------


def asks_for_silence(seconds: float) -> list[Step]:
    return [Step(THROTTLED, retry_after_seconds=seconds, throttled=True)]


@on_virtual_time
async def test_retry_after_silences_every_destination_of_the_account_and_no_other() -> None:
    loud, quiet = FakeDestination(asks_for_silence(30.0)), FakeDestination()
    elsewhere = FakeDestination()
    stage = Stage()
    stage.account("a", concurrency=1)
    stage.destination("loud", loud)
    stage.destination("quiet", quiet)
    stage.destination("elsewhere", elsewhere, account="b")
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled("elsewhere", within=1.0)
        asked = loud.requests[0].at
        for person in range(2, 20):
            await stage.submit(event(person))
            await anyio.sleep(1.0)
        assert len(elsewhere.stored) == 19
        await stage.settled()
    after = [request.at for request in [*loud.requests, *quiet.requests] if request.at > asked + 0.01]
    assert min(after) >= asked + 30.0
    assert len(loud.stored) == len(quiet.stored) == 19


@on_virtual_time
async def test_a_pause_survives_a_restart() -> None:
    destination = FakeDestination(asks_for_silence(600.0))
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1))
        await anyio.sleep(1.0)
        assert list(await stage.state.pauses()) == ["a"]
    asked = destination.requests[0].at
    async with stage.running():
        await stage.submit(event(2))
        await stage.settled()
    assert destination.requests[1].at >= asked + 600.0
    assert len(destination.stored) == 2


@on_virtual_time
async def test_a_longer_pause_is_not_cut_short_by_a_shorter_one() -> None:
    """Two requests under way come back one after the other: an hour, then a second."""
    hour = Step(THROTTLED, retry_after_seconds=3_600.0, throttled=True, seconds=0.1)
    second = Step(THROTTLED, retry_after_seconds=1.0, throttled=True, seconds=0.2)
    destination = FakeDestination([hour, second])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1), event(2))
        await stage.settled(within=10_000.0)
    assert destination.requests[2].at >= 3_600.0


@on_virtual_time
async def test_a_permit_that_became_void_returns_its_batch_uncounted() -> None:
    """The first request is told to be silent while eight others open their connections: none of them may follow."""
    connect = iter([0.0] + [0.5] * 7)
    destination = Connecting(lambda: next(connect, 0.0), script=asks_for_silence(20.0))
    stage = Stage()
    stage.destination("demo", destination, max_attempts=2)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(8)))
        await anyio.sleep(10.0)
        assert len(destination.requests) == 1
        waiting = [stage.consumers["demo"].coalescer.find(event(person).key)[0] for person in range(8)]
        assert sorted(profile.tries for profile in waiting if profile) == [0] * 7 + [1]
        await stage.settled()
    assert stage.counts("demo") == {"delivered": 8}
    assert destination.requests[1].at >= 20.0


# -- tokens -----------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_nothing_is_sent_without_a_token_and_one_refresh_serves_everybody() -> None:
    destination, tokens = FakeDestination(), Tokens(seconds=5.0)
    stage = Stage()
    stage.account(tokens=tokens)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(20)))
        await stage.settled()
    assert min(request.at for request in destination.requests) >= 5.0
    assert {request.token for request in destination.requests} == {"token-1"}
    assert tokens.refreshes == 1


REFUSED = Verdict(VerdictKind.AUTH, "http_401")


@on_virtual_time
async def test_a_refused_token_is_discarded_once_and_dead_letters_nothing() -> None:
    """Eight requests leave with one token and come back refused: one refresh, no attempt counted, all delivered."""
    destination, tokens = FakeDestination([Step(REFUSED, seconds=0.1)] * 8), Tokens()
    stage = Stage()
    stage.account(tokens=tokens)
    stage.destination("demo", destination, max_attempts=1)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(8)))
        await stage.settled(within=5.0)
        assert stage.accounts["a"].breaker.state == "closed"
    assert tokens.discarded == ["token-1"]
    assert stage.counts("demo") == {"delivered": 8}
    assert [request.token for request in destination.requests] == ["token-1"] * 8 + ["token-2"] * 8


@pytest.mark.parametrize("with_tokens", [True, False])
def test_a_wrong_client_opens_the_account_s_breaker_and_dead_letters_nothing(with_tokens: bool) -> None:
    """The second refusal in a row is not the token's fault. Both destinations wait until somebody has mended it."""

    @on_virtual_time
    async def scene() -> None:
        mended = 1_000.0
        refuse = lambda batch: Step(REFUSED if anyio.current_time() < mended else ok())  # noqa: E731
        one, other = FakeDestination(answer=refuse), FakeDestination(answer=refuse)
        stage = Stage()
        stage.account(tokens=Tokens() if with_tokens else None)
        stage.destination("one", one, max_attempts=1)
        stage.destination("other", other, max_attempts=1)
        async with stage.running():
            await stage.submit(*(event(person) for person in range(50)))
            await anyio.sleep(100.0)
            account = stage.accounts["a"]
            assert account.breaker.state != "closed"
            assert account.breaker.reason == "unauthorized"
            assert len(one.requests) + len(other.requests) < 40, "probes, and what was under way"
            await stage.settled()
        assert stage.counts("one") == stage.counts("other") == {"delivered": 50}

    scene()


@on_virtual_time
async def test_a_late_refusal_of_an_old_token_leaves_the_new_one_alone() -> None:
    slow, fast = Step(REFUSED, seconds=3.0), Step(REFUSED, seconds=0.1)
    destination, tokens = FakeDestination([slow, fast]), Tokens()
    stage = Stage()
    stage.account(tokens=tokens)
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1), event(2))
        await stage.settled()
    assert tokens.discarded == ["token-1"]
    assert tokens.refreshes == 2
    assert stage.counts("demo") == {"delivered": 2}
