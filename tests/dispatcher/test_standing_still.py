"""Nobody ages while an account cannot send at all, whichever of its destinations found out."""

from __future__ import annotations

import anyio
import msgspec
from stage import Stage, Tokens, event, on_virtual_time

from engine.model import Lane, Verdict, VerdictKind
from engine.testing.destination import FakeDestination, Step

MAX_AGE_SECONDS = 60.0
REFUSED = Verdict(VerdictKind.AUTH, "http_401")


@on_virtual_time
async def test_nobody_ages_while_no_token_is_granted() -> None:
    destination = FakeDestination()
    stage = Stage()
    stage.account(tokens=Tokens(seconds=10 * MAX_AGE_SECONDS))
    stage.destination("demo", destination, max_age_seconds=MAX_AGE_SECONDS)
    async with stage.running():
        await stage.submit(event(1, city="Lille"))
        await stage.settled()
    assert stage.counts("demo") == {"delivered": 1}


@on_virtual_time
async def test_nobody_ages_while_the_account_s_breaker_is_open() -> None:
    """The other destination finds out; this one has not sent anything yet."""
    stage = Stage()
    stage.account(tokens=Tokens())
    patient = FakeDestination()
    wrong = FakeDestination(answer=lambda batch: Step(REFUSED))
    stage.destination("finds out", wrong)
    stage.destination("waits", patient, max_age_seconds=MAX_AGE_SECONDS)
    async with stage.running():
        account = stage.accounts["a"]
        await stage.submit(event(1, city="Lille"))
        with anyio.fail_after(60):
            while account.breaker.state != "open":  # noqa: ASYNC110
                await anyio.sleep(0.01)
        before = stage.consumers["waits"].still_seconds()
        await anyio.sleep(10 * MAX_AGE_SECONDS)
        assert stage.consumers["waits"].still_seconds() - before > 9 * MAX_AGE_SECONDS


@on_virtual_time
async def test_what_an_earlier_process_stood_still_makes_nobody_older() -> None:
    stage = Stage()
    stage.destination("demo", FakeDestination(), max_age_seconds=MAX_AGE_SECONDS)
    async with stage.running():
        consumer = stage.consumers["demo"]
        consumer.set_paused(True)
        await stage.submit(event(1, city="Lille"))
        await anyio.sleep(0.1)
        head = consumer.coalescer.head(Lane.LIVE)
        assert head is not None
        copy = msgspec.structs.replace(head, still_seconds=10 * MAX_AGE_SECONDS)
        assert not consumer.too_old(copy)
