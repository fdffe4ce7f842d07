"""Whose fault is a failure (DESIGN §4): what counts against a profile, what opens a breaker, who is slowed by whom."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import anyio
import pytest
from stage import Stage, event, key, on_virtual_time

from engine.core.handover import Policy
from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Permit
from engine.testing.destination import FakeDestination, Step, ok, reject, retry, unknown

CONFIG = Verdict(VerdictKind.CONFIG, "http_404")


def until(mended_at: float, broken: Verdict, seconds: float = 0.0) -> Callable[[Batch], Step]:
    """Answers `broken` for so long, and OK from then on."""
    return lambda batch: Step(broken, seconds=seconds) if anyio.current_time() < mended_at else Step(ok())


def only(person: int, bad: Verdict) -> Callable[[Batch], Step]:
    """One record is answered badly, the others well."""
    return lambda batch: Step(verdicts=[bad if p.key == key(person) else ok() for p in batch.profiles])


# -- attempts ---------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_outage_of_hours_dead_letters_nothing() -> None:
    """Attempts that an outage explains are given back."""
    destination = FakeDestination(answer=until(7_200.0, retry()))
    stage = Stage()
    stage.destination("demo", destination, max_attempts=3)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(30)))
        await stage.settled(within=10_000.0)
    assert stage.counts("demo") == {"delivered": 30}
    assert len(destination.requests) < 300, "and little was sent meanwhile"


@on_virtual_time
async def test_a_record_that_keeps_failing_while_others_succeed_is_dead_lettered() -> None:
    destination = FakeDestination(answer=only(7, retry("http_500")))
    stage = Stage()
    stage.destination("demo", destination, max_attempts=4)
    async with stage.running():
        await stage.submit(event(7))
        for person in range(100, 400):
            await stage.submit(event(person))
            await anyio.sleep(0.5)
        await stage.settled()
        ((kind, reason, profile),) = await stage.letters("demo")
    assert (kind, reason) == ("dead_lettered", "http_500")
    assert (profile.key, profile.tries) == (key(7), 4)
    assert stage.counts("demo") == {"delivered": 300, "dead_lettered:http_500": 1}


@on_virtual_time
async def test_a_rejected_record_leaves_the_others_of_its_batch_alone() -> None:
    destination = FakeDestination(answer=only(7, reject("response_code_27")), profiles_per_request=50)
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(50)))
        await stage.settled()
    assert stage.counts("demo") == {"delivered": 49, "dead_lettered:response_code_27": 1}
    assert len(destination.requests) == 1


@on_virtual_time
async def test_after_a_retry_the_newest_state_is_sent() -> None:
    destination = FakeDestination([Step(retry(), seconds=1.0)])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(event(1, v="old", city="Lille"))
        await anyio.sleep(0.5)
        await stage.submit(event(1, v="new"))
        await stage.settled()
    assert destination.stored["p1@example.com"] == {"email": "p1@example.com", "v": "new", "city": "Lille"}
    assert len(destination.requests) == 2
    assert stage.counts("demo") == {"delivered": 1, "superseded": 1}


# -- age --------------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_record_that_is_too_old_expires_and_is_kept() -> None:
    destination = FakeDestination(answer=only(7, retry()))
    stage = Stage()
    stage.destination("demo", destination, max_age_seconds=60.0, max_attempts=1_000)
    async with stage.running():
        await stage.submit(event(7))
        for person in range(100, 400):
            await stage.submit(event(person))
            await anyio.sleep(0.5)
        await stage.settled()
        ((kind, reason, _),) = await stage.letters("demo")
    assert (kind, reason) == ("expired", "max_age")
    assert stage.counts("demo") == {"delivered": 300, "expired:max_age": 1}


@on_virtual_time
async def test_nobody_ages_while_the_destination_is_paused() -> None:
    stage = Stage()
    stage.destination("demo", FakeDestination(), max_age_seconds=60.0)
    async with stage.running():
        stage.consumers["demo"].set_paused(True)
        await stage.submit(event(1))
        await anyio.sleep(10_000.0)
        stage.consumers["demo"].set_paused(False)
        await stage.settled()
    assert stage.counts("demo") == {"delivered": 1}


@pytest.mark.parametrize("broken", [retry(), CONFIG], ids=["outage", "config"])
def test_nobody_ages_while_a_breaker_is_open(broken: Verdict) -> None:
    @on_virtual_time
    async def scene() -> None:
        stage = Stage()
        stage.destination("demo", FakeDestination(answer=until(5_000.0, broken)), max_age_seconds=60.0)
        async with stage.running():
            await stage.submit(*(event(person) for person in range(10)))
            await stage.settled(within=10_000.0)
        assert stage.counts("demo") == {"delivered": 10}

    scene()


# -- breakers ---------------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_config_error_opens_the_destination_s_breaker_and_dead_letters_nothing() -> None:
    wrong, right = FakeDestination(answer=until(500.0, CONFIG)), FakeDestination()
    stage = Stage()
    stage.destination("wrong", wrong, max_attempts=1)
    stage.destination("right", right)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(50)))
        await stage.settled("right", within=2.0)
        await anyio.sleep(100.0)
        breaker = stage.consumers["wrong"].breaker
        assert (breaker.state, breaker.reason) == ("open", "http_404")
        assert stage.accounts["a"].breaker.state == "closed"
        await stage.settled()
    assert stage.counts("wrong") == stage.counts("right") == {"delivered": 50}


@pytest.mark.parametrize("bad", [retry(), CONFIG, Verdict(VerdictKind.AUTH, "http_401")], ids=lambda it: it.reason)
def test_an_open_breaker_lets_one_probe_go_in_each_step(bad: Verdict) -> None:
    @on_virtual_time
    async def scene() -> None:
        destination = FakeDestination(answer=lambda batch: Step(bad, seconds=0.2))
        stage = Stage()
        stage.destination("demo", destination)
        async with stage.running():
            await stage.submit(*(event(person) for person in range(50)))
            await anyio.sleep(600.0)
        at = [request.at for request in destination.requests if request.at > 1.0]
        assert len(at) > 5
        assert min(later - earlier for earlier, later in pairwise(at)) > 0.4

    scene()


@on_virtual_time
async def test_a_straggler_does_not_end_the_probe_of_another() -> None:
    """Requests from before the opening come back while a probe is under way; they told what they knew already."""
    slow = Step(Verdict(VerdictKind.AUTH, "http_401"), seconds=3.0)
    fast = Step(CONFIG, seconds=0.1)
    probe = Step(ok(), seconds=20.0)
    destination = FakeDestination([*[slow] * 7, fast, probe])
    stage = Stage()
    stage.destination("demo", destination)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(30)))
        await anyio.sleep(15.0)
        assert len(destination.requests) == 9
        await stage.settled()


@on_virtual_time
async def test_one_key_that_fails_does_not_open_the_breaker_while_others_are_under_way() -> None:
    """Many failures in a row, but all of one key: that is the record, not the destination."""
    destination = FakeDestination(
        answer=lambda batch: Step(retry()) if batch.profiles[0].key == key(7) else Step(seconds=60.0)
    )
    stage = Stage()
    stage.destination("demo", destination, max_attempts=100)
    async with stage.running():
        await stage.submit(event(7), *(event(person) for person in range(100, 107)))
        await anyio.sleep(50.0)
        assert len(destination.requests) > 7 + 5
        assert stage.consumers["demo"].breaker.state == "closed"


def those(people: range, bad: Verdict, seconds: float = 0.0) -> Callable[[Batch], Step]:
    """Requests with one of them are answered badly, after so many seconds; the others well."""
    keys = {key(person) for person in people}
    return lambda batch: Step(bad, seconds=seconds) if batch.profiles[0].key in keys else Step(seconds=0.05)


@pytest.mark.parametrize(("bad", "seconds"), [(retry("http_500"), 0.05), (unknown(), 5.0)], ids=["500", "timeout"])
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("people", [4, 16])
def test_records_that_always_fail_do_not_stop_the_others(
    bad: Verdict, seconds: float, concurrency: int, people: int
) -> None:
    """Neither when they are first in the queue and open the breaker, nor when they take ever so long."""

    @on_virtual_time
    async def scene() -> None:
        stage = Stage()
        stage.account(concurrency=concurrency)
        stage.destination("demo", FakeDestination(answer=those(range(people), bad, seconds)))
        async with stage.running():
            await stage.submit(*(event(person) for person in range(300)))
            with anyio.fail_after(150.0 + 10.0 * seconds):
                while stage.counts("demo").get("delivered") != 300 - people:  # noqa: ASYNC110 - there is no event for it
                    await anyio.sleep(1.0)

    scene()


@on_virtual_time
async def test_records_that_always_fail_are_dead_lettered_although_they_open_the_breaker() -> None:
    """Their failures are no outage: whenever one that had not failed is tried instead, it succeeds."""
    stage = Stage()
    stage.destination("demo", FakeDestination(answer=those(range(8), retry("http_500"))), max_attempts=6)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(8)))
        for person in range(100, 400):
            await stage.submit(event(person))
            await anyio.sleep(10.0)
        await stage.settled()
    assert stage.counts("demo") == {"delivered": 300, "dead_lettered:http_500": 8}


@on_virtual_time
async def test_an_outage_that_meets_the_same_few_again_and_again_dead_letters_none_of_them() -> None:
    """There is nobody else to be tried; that they succeed in the end tells whose fault it was."""
    stage = Stage()
    stage.destination("demo", FakeDestination(answer=until(3_600.0, retry())), max_attempts=3)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(3)))
        await stage.settled(within=10_000.0)
    assert stage.counts("demo") == {"delivered": 3}


# -- who is slowed by whom --------------------------------------------------------------------------------------------


def pair(bad: FakeDestination, good: FakeDestination, accounts: tuple[str, str]) -> Stage:
    stage = Stage()
    for name, destination, account in zip(("bad", "good"), (bad, good), accounts, strict=True):
        stage.destination(name, destination, account=account)
    return stage


@pytest.mark.parametrize("accounts", [("a", "b"), ("a", "a")], ids=["own account", "same account"])
@pytest.mark.parametrize("bad", [retry(), CONFIG], ids=lambda it: it.reason)
def test_a_failing_destination_does_not_slow_another_one(bad: Verdict, accounts: tuple[str, str]) -> None:
    @on_virtual_time
    async def scene() -> None:
        good = FakeDestination(answer=lambda batch: Step(seconds=0.1))
        stage = pair(FakeDestination(answer=lambda batch: Step(bad)), good, accounts)
        async with stage.running():
            await stage.submit(*(event(person) for person in range(160)))
            await stage.settled("good", within=2.5)  # 160 requests, 8 at a time, 0.1 s each: 2 s
            assert stage.pending("bad") == 160

    scene()


@on_virtual_time
async def test_a_destination_that_hangs_does_not_slow_another_account() -> None:
    good = FakeDestination(answer=lambda batch: Step(seconds=0.1))
    stage = pair(FakeDestination(answer=lambda batch: Step(unknown(), seconds=10.0)), good, ("a", "b"))
    async with stage.running():
        await stage.submit(*(event(person) for person in range(160)))
        await stage.settled("good", within=2.5)


class Raises(FakeDestination):
    """Breaks its contract for some people."""

    def __init__(self, where: str, whom: int | None = None) -> None:
        super().__init__()
        self.where, self.whom = where, whom

    def encode(self, profile: Profile, /) -> bytes:
        if self.where == "encode" and self.whom in (None, self._person(profile)):
            raise UnicodeError("p7@example.com cannot be encoded")
        return super().encode(profile)

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        if self.where == "send" and self.whom in (None, self._person(batch.profiles[0])):
            raise RuntimeError("p7@example.com cannot be sent")
        if self.where == "count" and self.whom in (None, self._person(batch.profiles[0])):
            await permit.use()
            return Reply([])
        return await super().send(batch, permit)

    def _person(self, profile: Profile) -> int:
        return 7 if profile.key == key(7) else 0


@pytest.mark.parametrize("where", ["send", "count", "encode"])
def test_a_destination_that_breaks_its_contract_stops_nobody_else(where: str) -> None:
    @on_virtual_time
    async def scene() -> None:
        bad, good = Raises(where), FakeDestination()
        stage = pair(bad, good, ("a", "a"))
        async with stage.running():
            await stage.submit(*(event(person) for person in range(50)))
            await stage.settled("good", within=2.0)
            await anyio.sleep(100.0)
            assert stage.counts("good") == {"delivered": 50}
            if where == "encode":
                assert stage.counts("bad") == {"dead_lettered:encoding_UnicodeError": 50}
            else:
                assert stage.pending("bad") == 50
                assert stage.consumers["bad"].breaker.state != "closed"

    scene()


@pytest.mark.parametrize(
    ("where", "reason"), [("send", "destination_RuntimeError"), ("count", "destination_miscounted")]
)
def test_one_record_that_breaks_a_destination_is_dead_lettered(where: str, reason: str) -> None:
    @on_virtual_time
    async def scene() -> None:
        stage = Stage()
        stage.destination("demo", Raises(where, whom=7), max_attempts=3)
        async with stage.running():
            await stage.submit(event(7))
            for person in range(100, 200):
                await stage.submit(event(person))
                await anyio.sleep(0.5)
            await stage.settled()
        assert stage.counts("demo") == {"delivered": 100, f"dead_lettered:{reason}": 1}

    scene()


@on_virtual_time
async def test_what_broke_is_logged_without_the_person(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.destination("demo", Raises("encode", whom=7))
    async with stage.running():
        await stage.submit(event(7))
        await stage.settled()
        ((_, reason, _),) = await stage.letters("demo")
    assert reason == "encoding_UnicodeError"
    assert "example.com" not in caplog.text


@on_virtual_time
async def test_what_broke_while_it_was_sent_is_logged_without_the_person(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.destination("demo", Raises("send", whom=7))
    async with stage.running():
        await stage.submit(event(7))
        await anyio.sleep(1.0)
    assert "destination demo broke its contract in send(): RuntimeError" in caplog.text
    assert "example.com" not in caplog.text


# -- dead letters full ------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_when_no_more_dead_letters_fit_profiles_wait() -> None:
    destination = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    stage = Stage(most_letters=3)
    stage.destination("demo", destination, handover=Policy())
    async with stage.running():
        await stage.submit(*(event(person) for person in range(8)))
        await anyio.sleep(600.0)
        assert stage.counts("demo") == {"dead_lettered:response_code_27": 3}
        assert stage.pending("demo") == 5
        stage.most_letters = 100
        await stage.settled()
        assert len(await stage.letters("demo")) == 8


@on_virtual_time
async def test_when_no_more_dead_letters_fit_what_is_too_old_is_tried_once_more() -> None:
    stage = Stage(most_letters=0)
    stage.destination("demo", FakeDestination([Step(retry())]), max_age_seconds=0.001)
    async with stage.running():
        await stage.submit(event(1))
        await stage.settled()
    assert stage.counts("demo") == {"delivered": 1}
