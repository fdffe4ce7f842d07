"""What is judged when a profile is handed over: may it leave, and as what? Pure.

Audience and consent are judged on the merged profile, at lease, never on single events (DESIGN §4, Coalescer).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.core.codec import unpack_audiences
from engine.core.consent import Rule, allowed, opted_out
from engine.core.fold import Merge, fold_audiences, fold_under, overtaken
from engine.model import NOTHING, LedgerEntry, Membership, Profile, Trait

SYNTHETIC = b"@bench.invalid"
"""Addresses that load benches use; they must never reach a real attendee store."""

# Plain numbers: an IntFlag takes a microsecond to join.
_EMAIL, _ERASED, _LOST = int(Trait.EMAIL), int(Trait.ERASED), int(Trait.LOST)

_FLAG = "flag:"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What may leave for one destination. `exits`: "ignore", "store" or "flag:FIELD" (domain reference U-15).
    `consents`: what has to be given, all of it."""

    audiences: frozenset[str] | None = None  # None: every audience, and profiles without one
    names: frozenset[str] = frozenset()  # audiences by their names, where producers give them, beside those by id
    exits: str = "ignore"
    refuse_synthetic: bool = True
    needs_email: bool = True
    consents: tuple[Rule, ...] = ()


def exclusion(profile: Profile, policy: Policy) -> str:
    """Why this profile must not be sent, as a stable reason; "" when it may go. Where one event was emptied in the
    journal, the forget that did it comes later: what was held of the key, or merged in, is from before it as well."""
    if profile.traits & _LOST:
        return "lost"
    if profile.traits & _ERASED:
        return "forgotten"
    if policy.needs_email and not profile.traits & _EMAIL:
        return "no_email"
    if policy.refuse_synthetic and SYNTHETIC in profile.content:
        return "synthetic"
    relevant = _relevant(profile.audiences, policy)
    if policy.audiences is not None and not relevant:
        return "audience"
    if relevant and policy.exits == "ignore" and not any(membership.realized for membership in relevant):
        return "exited"
    if policy.consents and not allowed(profile.consents, policy.consents) and not opts_out(profile, policy):
        return "consent"
    return ""


def nobody_is_excluded(profiles: Sequence[Profile], policy: Policy) -> bool:
    """Is `exclusion` "" for each of them? Asked of all at once; False where only each by itself can tell."""
    if policy.audiences is not None or policy.consents:
        return False
    needed = _EMAIL if policy.needs_email else 0
    for traits in {profile.traits for profile in profiles}:
        if traits & (_LOST | _ERASED | needed) != needed:
            return False
    if policy.refuse_synthetic and SYNTHETIC in b"".join([profile.content for profile in profiles]):
        return False
    return policy.exits != "ignore" or not _somebody_has_left_all(profiles)


def _somebody_has_left_all(profiles: Sequence[Profile]) -> bool:
    """Is there anybody who was in audiences, and is in none any more?"""
    for profile in profiles:
        if profile.audiences:
            for membership in profile.audiences.values():
                if membership.realized:
                    break
            else:
                return True
    return False


def opts_out(profile: Profile, policy: Policy) -> bool:
    """Has the person refused, where that is told to the destination? Then `reduced` is what leaves."""
    return flags(policy) and opted_out(profile.consents, policy.consents)


def reduced(profile: Profile, policy: Policy) -> Profile:
    """The profile as it may leave: of somebody who has opted out a copy without anything but the address."""
    if not policy.consents or not opts_out(profile, policy):
        return profile
    content = msgspec.json.encode(msgspec.json.decode(profile.content, type=_Address))
    return msgspec.structs.replace(profile, content=content, traits=_EMAIL)


class _Address(msgspec.Struct):
    email: msgspec.Raw


def flags(policy: Policy) -> bool:
    """Can there be anything for `flag` to say?"""
    return policy.exits.startswith(_FLAG)


def flag(profile: Profile, policy: Policy) -> bool | None:
    """With exits = "flag:FIELD": is the attendee in one of the audiences now? None when there is nothing to say.
    Whoever has opted out is in none; of whom only the consent is known, that is what the flag tells."""
    if not flags(policy):
        return None
    if policy.consents and opts_out(profile, policy):
        return False
    relevant = _relevant(profile.audiences, policy)
    if not relevant:
        return True if policy.consents and profile.consents else None
    return any(membership.realized for membership in relevant)


def _relevant(audiences: dict[str, Membership] | None, policy: Policy) -> list[Membership]:
    if not audiences:
        return []
    if policy.audiences is None:
        return list(audiences.values())
    chosen, names = policy.audiences, policy.names
    return [one for audience, one in audiences.items() if audience in chosen or (one.name and one.name in names)]


def depends_on_audiences(policy: Policy) -> bool:
    """Whether what leaves, or whether, depends on somebody's standing in single audiences."""
    return policy.audiences is not None or flags(policy)


def recall_audiences(profile: Profile, entry: LedgerEntry | None) -> None:
    """Where a settled event told of a newer standing in an audience of the leased profile, that one counts. Of those
    that the profile does not name nothing is said with it either; they are only remembered."""
    known = unpack_audiences(entry.audiences) if entry is not None and entry.audiences else {}
    own = profile.audiences or {}
    profile.standing = {audience: one for audience, one in known.items() if audience not in own} or None
    told = {audience: known[audience] for audience in own if audience in known}
    if told:
        profile.audiences = fold_audiences(told, own)


def fold_replays(profile: Profile, entry: LedgerEntry | None, merge: Merge) -> None:
    """Fold replayed dead letters under the leased profile. Those that a confirmed newer state has passed are only
    counted: they get their outcome with the rest, since no newer event's may be durable before an older one's."""
    if not profile.under:
        return
    parts = sorted(profile.under, key=lambda part: part.through, reverse=True)
    profile.under = None
    confirmed = entry.confirmed_through if entry else NOTHING
    passed = [part for part in parts if overtaken(part, confirmed)]
    for part in parts:
        if not overtaken(part, confirmed):
            fold_under(profile, part, merge)
    profile.passed = [*(profile.passed or ()), *passed] or None
