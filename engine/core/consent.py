"""What a person's consents allow at one destination: XDM's rules, judged on the merged profile. Pure.

A consent path is ``collect``, ``share``, ``adID``, ``personalize.content`` or ``marketing.CHANNEL``. Under a path that
begins with ``idSpecific.`` stands what was said for this very address; the address itself is not kept. Of all that
bears on a path a refusal wins, wherever it stands: ``marketing.any`` overrides every channel, a channel overrides what
was said for the address, and that overrides a channel that allows (domain reference, 2.9).
"""

from __future__ import annotations

import msgspec

from engine.core.codec import unpack_consents
from engine.core.fold import fold_consents
from engine.model import Consent, LedgerEntry, Profile

Consents = dict[str, Consent]

YES, NO, UNKNOWN = "y", "n", "u"
FOR_THE_ADDRESS = "idSpecific."
MARKETING, ANY = "marketing.", "marketing.any"


class Rule(msgspec.Struct, frozen=True):
    """One consent that has to be given. `accepted`: the values that give it; `absent_allows`: what it means that
    nothing was said."""

    path: str
    accepted: frozenset[str] = frozenset({YES})
    absent_allows: bool = False


def places_of(path: str) -> tuple[str, ...]:
    """Every path that bears on this one, the most specific first."""
    whole = (path, ANY) if path.startswith(MARKETING) and path != ANY else (path,)
    return (*(FOR_THE_ADDRESS + place for place in whole), *whole)


def stated(consents: Consents | None, path: str) -> str:
    """The value that holds for a path, "" when nothing was said; an unknown preference ("u") says nothing."""
    if not consents:
        return ""
    values = [consents[place].value for place in places_of(path) if place in consents]
    values = [value for value in values if value != UNKNOWN]
    if NO in values:
        return NO
    if path.startswith(MARKETING) and ANY in consents and consents[ANY].value == YES:
        return YES
    return values[0] if values else ""


def allowed(consents: Consents | None, rules: tuple[Rule, ...]) -> bool:
    """Is every consent that is asked for given?"""
    for rule in rules:
        value = stated(consents, rule.path)
        if not (value in rule.accepted if value else rule.absent_allows):
            return False
    return True


def opted_out(consents: Consents | None, rules: tuple[Rule, ...]) -> bool:
    """Was one of them refused? That is more than not to have been given: it behaves as an exit."""
    return any(stated(consents, rule.path) == NO for rule in rules)


def recall(profile: Profile, entry: LedgerEntry | None) -> None:
    """Fold under the leased profile what was said in events that have their outcome: an event that says nothing about
    consent changes nothing about it."""
    if entry is not None and entry.consents:
        profile.consents = fold_consents(unpack_consents(entry.consents), profile.consents)
