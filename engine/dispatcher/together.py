"""What is judged of a whole batch at once, where there is nothing odd about any of it.

Nearly every profile is one of whom nothing is stored, under a policy that asks nothing of anybody. Looked at one by one
(`attempts`), all of them cost as many questions as the one that is excluded, too old, forgotten or cannot be encoded.
Here the questions are asked of all of them together: the answer is that all may leave, or None, which says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from engine.core.handover import nobody_is_excluded
from engine.model import Profile
from engine.ports import Destination, EncodesTogether

if TYPE_CHECKING:
    from engine.dispatcher.consumer import Consumer

DIGEST_BYTES = 16


def records_of(consumer: Consumer, profiles: Sequence[Profile]) -> list[bytes] | None:
    """The records of profiles of whom nothing is stored; None where each has to be looked at by itself."""
    if consumer.policy.dry_run or consumer.changes.leased or consumer.coalescer.forgets_waiting:
        return None
    if _somebody_is_odd(consumer, profiles) or not nobody_is_excluded(profiles, consumer.policy.handover):
        return None
    try:
        records = consumer.encode_all(profiles)
    except Exception:  # whose record it is shows when they are encoded one by one
        return None
    return records if len(records) == len(profiles) else None


def _somebody_is_odd(consumer: Consumer, profiles: Sequence[Profile]) -> bool:
    """Replays, or nothing but replays that were overtaken; or perhaps too old: standing still makes younger."""
    if [True for profile in profiles if profile.under or not profile.events]:
        return True
    limit = consumer.policy.max_age_seconds
    return bool(limit) and consumer.clock.time() - min([profile.oldest_at for profile in profiles]) > limit


def encoder_of(destination: Destination) -> Callable[[Sequence[Profile]], list[bytes]]:
    """Its own way to encode many, or `encode` for each."""
    if isinstance(destination, EncodesTogether):
        return destination.encode_all
    return lambda profiles: [destination.encode(profile) for profile in profiles]


def digests_of(consumer: Consumer, records: Sequence[bytes]) -> list[bytes]:
    """Of each: what its destination is certain to hold, once it has said so."""
    settings = sha256(consumer.destination.fingerprint).digest()  # of one length, whatever the record begins with
    return [sha256(settings + record).digest()[:DIGEST_BYTES] for record in records]
