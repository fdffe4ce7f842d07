"""Whose fault it was (DESIGN §4): what a reply tells of the destination and its account, and the probes of breakers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import PermitVoid
from engine.model import Batch, Reply, VerdictKind

if TYPE_CHECKING:
    from engine.core.breaker import Breaker
    from engine.dispatcher.account import AccountPermit
    from engine.dispatcher.consumer import Consumer


def probe(consumer: Consumer) -> Sequence[Breaker]:
    """A request is about to leave: the breakers whose one probe it is. Raises PermitVoid where another one's is under
    way."""
    breakers = (consumer.breaker, consumer.account.breaker)
    if breakers[0].state == "closed" == breakers[1].state:
        return ()
    now = consumer.clock.monotonic()
    if not all(breaker.may_send(now) for breaker in breakers):
        raise PermitVoid
    probed = [breaker for breaker in breakers if breaker.state != "closed"]
    for breaker in probed:
        breaker.probing(now)
    return probed


def lapse(probed: Sequence[Breaker], now: float) -> None:
    """Whoever was not the probe has no say in it: another one may be under way."""
    for breaker in probed:
        breaker.lapse(now)


def _answers(kinds: Sequence[VerdictKind]) -> bool:
    """Did it say something that only a destination says that is well?"""
    return VerdictKind.OK in kinds or VerdictKind.REJECT in kinds or VerdictKind.SPLIT in kinds


def judge_destination(
    consumer: Consumer,
    permit: AccountPermit,
    batch: Batch,
    reply: Reply,
    kinds: Sequence[VerdictKind],
    probed: Sequence[Breaker],
    seconds: float,
    now: float,
) -> None:
    account, breaker = consumer.account, consumer.breaker
    if reply.retry_after_seconds is not None:
        account.pause(reply.retry_after_seconds)
    account.window.observe(throttled=reply.throttled, timed_out=VerdictKind.UNKNOWN in kinds, seconds=seconds, now=now)
    if VerdictKind.AUTH in kinds:
        account.refused(permit.token)
    elif not reply.destination_fault:
        account.accepted()
    if breaker in probed and (VerdictKind.CONFIG in kinds or reply.destination_fault):
        consumer.blame.probe_failed(batch.profiles)
    if VerdictKind.CONFIG in kinds:
        breaker.trip(next(v.reason for v in reply.verdicts if v.kind == VerdictKind.CONFIG), now)
    elif reply.destination_fault:
        keys = [profile.key for profile in batch.profiles]
        breaker.failure(keys, now, waiting_keys=len(consumer.coalescer), reason=reply.verdicts[0].reason)
    elif _answers(kinds):
        consumer.blame.succeeded()
        if breaker.success(now) and consumer.blame.closed(batch.profiles):
            consumer.coalescer.wake(float("inf"))  # whoever backed off from the outage may go now
    if breaker.state != "closed":
        consumer.blame.opened()
    lapse(probed, now)  # those it told nothing about
    consumer.note_still()
