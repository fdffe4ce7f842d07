"""One request: lease, look up, judge, send, and conclude from the reply.

What a verdict does to a leased profile::

    ok       settled: delivered; digest and confirmed_through known
    reject   settled: dead-lettered
    retry    waits again after a backoff; the attempt counts, unless an outage explains it
    auth     waits again at once, uncounted; the token that was refused is discarded
    config   waits again, uncounted; the destination's breaker opens
    split    stays leased; its batch goes on as two halves, each under a permit of its own
    unknown  stays leased until the request can no longer arrive, then as retry
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
import msgspec

from engine.core.consent import recall
from engine.core.fold import EMPTY, fold_held
from engine.core.handover import exclusion, fold_replays, recall_audiences, reduced
from engine.core.verdicts import may_be_stored
from engine.dispatcher import fault, together
from engine.errors import PermitVoid
from engine.model import Batch, HeldKind, Outcome, Profile, Reply, Verdict, VerdictKind
from engine.ports import KeyState, LetterFilter

if TYPE_CHECKING:
    from engine.core.breaker import Breaker
    from engine.dispatcher.account import AccountPermit
    from engine.dispatcher.consumer import Consumer

logger = logging.getLogger("engine.dispatcher")

SEARCH_PROFILES = 64
"""How many profiles are looked at, at most at once, for one that is not suppressed."""


class Leased(msgspec.Struct):
    """What goes under one permit. `again`: a half of a batch that was split, looked at before."""

    profiles: list[Profile]
    again: bool = False


async def run(consumer: Consumer, permit: AccountPermit, leased: Leased) -> None:
    """Use one permit, or give it back when nothing needs to be sent."""
    batch: Batch | None = None
    reply: Reply | None = None
    probed: Sequence[Breaker] = ()
    started = consumer.clock.monotonic()
    try:
        batch = await prepare(consumer, leased)
        if batch is not None:
            probed = fault.probe(consumer)
            again_since = consumer.retries.begin(batch)
            try:
                reply = await _send(consumer, batch, permit)
            finally:
                consumer.retries.end(again_since)
    except PermitVoid:
        assert batch is not None
        fault.lapse(probed, consumer.clock.monotonic())
        _give_back_untried(consumer, batch.profiles)
    finally:
        consumer.account.done(permit)
    if batch is not None and reply is not None:
        now = consumer.clock.monotonic()
        seconds = now - started
        kinds = [verdict.kind for verdict in reply.verdicts]  # no set: to hash an enum costs more than to compare it
        consumer.metrics.request(reply, seconds)
        fault.judge_destination(consumer, permit, batch, reply, kinds, probed, seconds, now)
        await _conclude(consumer, batch, reply, kinds)
    consumer.dirty()


async def _send(consumer: Consumer, batch: Batch, permit: AccountPermit) -> Reply:
    """One attempt; a destination that breaks its contract is at fault, and stops nobody else."""
    try:
        reply = await consumer.destination.send(batch, permit)
    except PermitVoid:
        raise
    except Exception as error:
        logger.error("destination %s broke its contract in send(): %s", consumer.name, type(error).__name__)
        return _unknown(batch, f"destination_{type(error).__name__}")
    if len(reply.verdicts) != len(batch.profiles):
        return _unknown(batch, "destination_miscounted")
    return reply


def _unknown(batch: Batch, reason: str) -> Reply:
    return Reply([Verdict(VerdictKind.UNKNOWN, reason)] * len(batch.profiles), destination_fault=True)


# -- before the request ---------------------------------------------------------------------------------------------


async def prepare(consumer: Consumer, leased: Leased) -> Batch | None:
    """Settle those that need no request, and return the others as a batch; lease more while none is left of them. None
    when nothing has to be sent at all."""
    profiles = leased.profiles
    if leased.again:
        return _half(consumer, profiles)
    at_most = consumer.destination.profiles_per_request
    search = at_most
    while profiles:
        known = await _known(consumer, profiles)
        batch = _sift(consumer, profiles, known)
        if batch.profiles:
            _trim(consumer, batch, at_most)
            return batch
        consumer.dirty()
        search = max(at_most, min(search * 8, SEARCH_PROFILES))
        profiles = consumer.lease(search)
    return None


def _half(consumer: Consumer, profiles: list[Profile]) -> Batch | None:
    """A half of a split batch: looked at before, but a forget or an opt-out may have come since, and this is a new
    request."""
    withdrawn = [profile for profile in profiles if consumer.is_withdrawn(profile.key)]
    kept = [profile for profile in profiles if not consumer.is_withdrawn(profile.key)]
    _give_back_untried(consumer, withdrawn)
    batch = Batch([], [])
    for profile in kept:
        record = _encode(consumer, profile)
        consumer.changes.came(profile.key)
        if record is None:
            consumer.coalescer.settle(profile.key)
        else:
            batch.profiles.append(profile)
            batch.records.append(record)
    return batch if batch.profiles else None


async def _known(consumer: Consumer, profiles: list[Profile]) -> dict[bytes, KeyState]:
    for profile in profiles:
        if profile.under:
            await _drop_forgotten_letters(consumer, profiles)
            break
    keys = [profile.key for profile in profiles]
    return await consumer.books.look_up(consumer.store, keys)


async def _drop_forgotten_letters(consumer: Consumer, profiles: list[Profile]) -> None:
    """Empty the replays whose dead letter is gone: a predecessor carried out a forget after it had accepted them."""
    parts = [part for profile in profiles for part in profile.under or () if part.letter]
    if not parts:
        return
    which = LetterFilter(consumer=consumer.name, ids=tuple(part.letter for part in parts), state=None)
    kept = {held.id for _, held in await consumer.store.letters(which, len(parts))}
    for part in parts:
        if part.letter not in kept:
            part.content, part.traits, part.audiences, part.consents = EMPTY, 0, None, None


def _sift(consumer: Consumer, profiles: list[Profile], known: dict[bytes, KeyState]) -> Batch:
    """Complete each leased profile with what is stored of it, and settle it if it must not or need not be sent."""
    usual = [profile for profile in profiles if profile.key not in known] if known else profiles
    records = together.records_of(consumer, usual) if usual else None
    if records is not None and usual is profiles:
        return Batch(profiles, records)
    made = dict(zip([profile.key for profile in usual], records, strict=True)) if records is not None else {}
    batch = Batch([], [])
    for profile in profiles:
        record = made.get(profile.key) or _judged(consumer, profile, known.get(profile.key))
        if record is None:
            consumer.coalescer.settle(profile.key)
        else:
            batch.profiles.append(profile)
            batch.records.append(record)
    return batch


def _judged(consumer: Consumer, profile: Profile, stored: KeyState | None) -> bytes | None:
    if stored is not None or profile.under:
        _complete(consumer, profile, stored or KeyState())
    return _record(consumer, profile, stored)


def _complete(consumer: Consumer, profile: Profile, stored: KeyState) -> None:
    """Fold in what is held on disk and replays; both are older than what was waiting. What was said about consent in
    settled events comes between the two: a replayed dead letter is one of those. Audiences have times of their own."""
    gained = fold_held(profile, stored.held, consumer.merge)
    if gained and stored.held is not None:
        consumer.holding.joined(profile, stored.held, gained)
    recall(profile, stored.entry)
    fold_replays(profile, None if consumer.policy.every_event else stored.entry, consumer.merge)
    if consumer.books.remembers_audiences:
        recall_audiences(profile, stored.entry)
    consumer.coalescer.gained(gained)


def _record(consumer: Consumer, profile: Profile, stored: KeyState | None) -> bytes | None:
    """The record to send, or None when the profile was settled without a request."""
    books, now = consumer.books, consumer.clock.time()
    if not profile.events:
        books.settle_nothing(profile, now)
        return None
    reason = (
        "forgotten" if consumer.coalescer.is_forgotten(profile.key) else exclusion(profile, consumer.policy.handover)
    )
    if not reason and consumer.policy.dry_run:
        reason = "dry_run"
    if reason:
        books.settle(profile, Outcome.EXCLUDED, reason, at=now, in_ledger=not consumer.policy.dry_run)
        return None
    if consumer.too_old(profile) and not consumer.letters_full():
        books.bury(profile, HeldKind.EXPIRED, "max_age", "", at=now)
        return None
    record = _encode(consumer, profile)
    if record is None:
        return None
    entry = stored.entry if stored else None
    changed = consumer.changes.leased and consumer.changes.came(profile.key)  # perhaps after it was looked up
    if entry and entry.digest and profile.certain and consumer.policy.suppress and not changed:
        fresh = now - entry.at <= consumer.policy.suppress_ttl_seconds
        if fresh and [entry.digest] == together.digests_of(consumer, [record]):
            books.settle(profile, Outcome.SUPPRESSED, at=entry.at, confirmed=True, digest=entry.digest)
            return None
    return record


def _encode(consumer: Consumer, profile: Profile) -> bytes | None:
    """The record as it leaves; None when it cannot be made: then the profile is a dead letter, and nobody else is."""
    try:
        return consumer.destination.encode(reduced(profile, consumer.policy.handover))
    except Exception as error:
        reason = f"encoding_{type(error).__name__}"
        consumer.books.bury(profile, HeldKind.DEAD, reason, "", at=consumer.clock.time())
        return None


def _trim(consumer: Consumer, batch: Batch, at_most: int) -> None:
    """Give back what was only looked at, and what no longer fits now that its record is known."""
    records, batcher = batch.records, consumer.batcher
    if len(records) <= at_most and batcher.holds(len(records), sum(map(len, records))):
        batcher.cut(len(records), False)
        return
    size, keep, full = 0, 0, False
    for record in records[:at_most]:
        full = not batcher.fits(keep, size, len(record))
        if full:
            break
        size += len(record)
        keep += 1
    batcher.cut(keep, full)
    _give_back_untried(consumer, batch.profiles[keep:])
    del batch.profiles[keep:], batch.records[keep:]


def _give_back_untried(consumer: Consumer, profiles: list[Profile]) -> None:
    for profile in profiles:
        _give_back(consumer, profile, None)


# -- after the request ----------------------------------------------------------------------------------------------


async def _conclude(consumer: Consumer, batch: Batch, reply: Reply, kinds: Sequence[VerdictKind]) -> None:
    now = consumer.clock.time()
    if VerdictKind.OK in kinds:
        _deliver(consumer, batch, reply, kinds, now)
    if kinds.count(VerdictKind.OK) < len(kinds):
        await _undelivered(consumer, batch, reply, now)
    else:
        consumer.account.wake()


async def _undelivered(consumer: Consumer, batch: Batch, reply: Reply, now: float) -> None:
    """All the others of a batch."""
    unknown: list[tuple[Profile, Verdict]] = []
    split: list[Profile] = []
    for profile, verdict in zip(batch.profiles, reply.verdicts, strict=True):
        if verdict.kind == VerdictKind.OK:
            continue
        profile.tries += 1
        profile.first_tried_at = profile.first_tried_at or now
        if may_be_stored(verdict):
            profile.certain = False
        if verdict.kind == VerdictKind.SPLIT:
            split.append(profile)
        elif verdict.kind == VerdictKind.UNKNOWN:
            unknown.append((profile, verdict))
        else:
            _apply(consumer, profile, verdict)
    if split:
        half = (len(split) + 1) // 2
        consumer.halves.extend(part for part in (split[:half], split[half:]) if part)
    consumer.account.wake()
    if unknown:
        await _outlive(consumer, unknown)


def _deliver(consumer: Consumer, batch: Batch, reply: Reply, kinds: Sequence[VerdictKind], now: float) -> None:
    """What nearly every attempt ends in, done for all of them together."""
    profiles, records, verdicts = batch.profiles, batch.records, reply.verdicts
    if len(kinds) > kinds.count(VerdictKind.OK):
        good = [place for place, kind in enumerate(kinds) if kind == VerdictKind.OK]
        profiles, records = [profiles[place] for place in good], [records[place] for place in good]
        verdicts = [verdicts[place] for place in good]
    digests = _certain(consumer, profiles, records)
    attendee_ids = [verdict.attendee_id for verdict in verdicts]
    consumer.books.deliver_all(profiles, digests, attendee_ids, now)
    consumer.coalescer.settle_all(profiles)
    accepted = [profile.oldest_at for profile in profiles]
    alike = accepted.count(accepted[0]) == len(accepted)  # as a rule they are of one append
    for accepted_at, times in ((accepted[0], len(accepted)),) if alike else Counter(accepted).items():
        consumer.metrics.delivered_after(now - accepted_at, times)


def _certain(consumer: Consumer, profiles: list[Profile], records: list[bytes]) -> list[bytes]:
    """The digest of each; none of whom somebody has changed over there meanwhile."""
    if not consumer.policy.suppress:
        return [b""] * len(profiles)
    digests, changes = together.digests_of(consumer, records), consumer.changes
    if not changes.leased:
        return digests
    return [b"" if changes.came(profile.key) else digest for profile, digest in zip(profiles, digests, strict=True)]


def _apply(consumer: Consumer, profile: Profile, verdict: Verdict) -> None:
    if verdict.kind == VerdictKind.REJECT:
        _bury(consumer, profile, verdict)
    elif verdict.kind in (VerdictKind.AUTH, VerdictKind.CONFIG):
        _give_back(consumer, profile, None)
    else:
        _retry(consumer, profile, verdict)


def _retry(consumer: Consumer, profile: Profile, verdict: Verdict) -> None:
    """Count the attempt (a breaker that opens gives it back) and wait, or stop trying."""
    profile.attempts += 1
    consumer.blame.failed(profile.key)
    if consumer.breaker.state != "closed":
        consumer.blame.opened()
    if profile.attempts >= consumer.policy.max_attempts:
        _bury(consumer, profile, verdict)
        return
    # By all its tries: what was given back must not come first again and again, and fail for all in a row.
    pause = consumer.backoff.seconds(max(1, profile.tries), consumer.random)
    _give_back(consumer, profile, consumer.clock.monotonic() + pause)


def _bury(consumer: Consumer, profile: Profile, verdict: Verdict) -> None:
    """Dead-letter it; when no more dead letters fit, it waits. What is forgotten meanwhile leaves no letter."""
    if consumer.coalescer.is_forgotten(profile.key):
        _give_back(consumer, profile, None)
        return
    if consumer.letters_full():
        consumer.metrics.letters_full()
        profile.certain = False
        _give_back(consumer, profile, consumer.clock.monotonic() + consumer.backoff.cap_seconds)
        return
    consumer.books.bury(profile, HeldKind.DEAD, verdict.reason, verdict.excerpt, at=consumer.clock.time())
    consumer.coalescer.settle(profile.key)


def _give_back(consumer: Consumer, profile: Profile, not_before: float | None) -> None:
    if consumer.coalescer.is_forgotten(profile.key):
        consumer.books.settle(profile, Outcome.EXCLUDED, "forgotten", at=consumer.clock.time())
        consumer.coalescer.settle(profile.key)
    else:
        consumer.coalescer.give_back(profile.key, not_before)


async def _outlive(consumer: Consumer, unknown: list[tuple[Profile, Verdict]]) -> None:
    """Keep the leases until the requests can no longer arrive, whatever happened to their connections."""
    consumer.unknown += len(unknown)
    consumer.dirty()
    await anyio.sleep(consumer.policy.unknown_hold_seconds)
    consumer.unknown -= len(unknown)
    for profile, verdict in unknown:
        _retry(consumer, profile, verdict)
    consumer.account.wake()
