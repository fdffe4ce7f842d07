"""What became of events, counted for the hourly runs: of all of them, and by audience.

An event that was merged into a newer one has the fate of that one. An event of a profile counts for every audience of
the profile that the destination activates, so that the audiences of a run may add up to more than the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from itertools import chain

from engine.history import OTHER, REMOVED
from engine.model import Membership, Outcome, Profile
from engine.ports import Transition

MOST_AUDIENCES = 1_000
"""Audiences counted apart in one transaction; how many a run keeps is the state file's to know."""

DELIVERED = str(Outcome.DELIVERED)


def count(open: Transition, profile: Profile, fate: str, events: int, activated: Set[str] | None) -> None:
    """`activated`: the audiences of the destination; None: all."""
    open.fates[fate] = open.fates.get(fate, 0) + events
    for audience in _named(profile.audiences or (), activated):
        _add(open, audience, fate, events)


class Deliveries:
    """What nearly every event ends as, counted once a batch: one profile of one event, in the audiences it was sent
    for, costs an entry in a list."""

    def __init__(self, activated: Set[str] | None) -> None:
        self._activated = activated
        self._plain: list[dict[str, Membership]] = []
        self._removed = 0

    def add(self, open: Transition, audiences: dict[str, Membership], events: int) -> None:
        if events == 1 and all_realized(audiences):
            self._plain.append(audiences)
            return
        stays = False
        named = [*_named(audiences, self._activated)]
        for audience in named:
            realized = audiences[audience].realized
            stays = stays or realized
            _add(open, audience, DELIVERED if realized else REMOVED, events)
        if named and not stays:
            self._removed += events

    def close(self, open: Transition, events: int) -> None:
        """The batch is over: `events` were delivered in it, those without an audience included."""
        for fate, some in ((REMOVED, self._removed), (DELIVERED, events - self._removed)):
            if some:
                open.fates[fate] = open.fates.get(fate, 0) + some
        if self._plain:
            plain = self._plain
            together = dict.fromkeys(plain[0], 1) if len(plain) == 1 else Counter(chain.from_iterable(plain))
            for audience in _named(together, self._activated):
                _add(open, audience, DELIVERED, together[audience])
            self._plain.clear()
        self._removed = 0


def all_realized(audiences: dict[str, Membership]) -> bool:
    """A generator in all() costs three times as much."""
    for membership in audiences.values():  # noqa: SIM110
        if not membership.realized:
            return False
    return True


def _named(audiences: Iterable[str], activated: Set[str] | None) -> Iterable[str]:
    return audiences if activated is None else [audience for audience in audiences if audience in activated]


def _add(open: Transition, audience: str, fate: str, events: int) -> None:
    counts = open.audiences.get(audience)
    if counts is None:
        if len(open.audiences) >= MOST_AUDIENCES:
            audience = OTHER
        counts = open.audiences.setdefault(audience, {})
    counts[fate] = counts.get(fate, 0) + events
