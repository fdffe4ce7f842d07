"""What became of events, counted for the hourly runs: of all of them, and by audience.

An event that was merged into a newer one has the fate of that one. An event of a profile counts for every audience of
the profile that the destination activates, so that the audiences of a run may add up to more than the run.
"""

from __future__ import annotations

from collections.abc import Set

from engine.history import OTHER, REMOVED
from engine.model import Membership, Outcome, Profile
from engine.ports import Transition

MOST_AUDIENCES = 1_000
"""Audiences counted apart in one transaction; how many a run keeps is the state file's to know."""

DELIVERED = str(Outcome.DELIVERED)


def count(open: Transition, profile: Profile, fate: str, events: int, activated: Set[str] | None) -> None:
    """`activated`: the audiences of the destination; None: all."""
    open.fates[fate] = open.fates.get(fate, 0) + events
    if profile.audiences:
        _count_audiences(open, profile.audiences, fate, events, activated)


def deliver(open: Transition, profile: Profile, events: int, activated: Set[str] | None) -> int:
    """As `count` for a delivered profile with audiences, whose events the caller counts as delivered. Returns how many
    of them are of somebody who has left all of the audiences."""
    assert profile.audiences is not None
    stays = _count_audiences(open, profile.audiences, DELIVERED, events, activated)
    if stays is not False:
        return 0
    open.fates[REMOVED] = open.fates.get(REMOVED, 0) + events
    return events


def _count_audiences(
    open: Transition, audiences: dict[str, Membership], fate: str, events: int, activated: Set[str] | None
) -> bool | None:
    """Is the person in one of the audiences? None when the destination activates none of them."""
    found: bool | None = None
    for audience, membership in audiences.items():
        if activated is not None and audience not in activated:
            continue
        found = found or membership.realized
        counts = open.audiences.get(audience)
        if counts is None:
            if len(open.audiences) >= MOST_AUDIENCES:
                audience = OTHER
            counts = open.audiences.setdefault(audience, {})
        name = fate if membership.realized or fate != DELIVERED else REMOVED
        counts[name] = counts.get(name, 0) + events
    return found
