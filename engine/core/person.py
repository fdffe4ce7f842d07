"""What became of one person at one destination, in a sentence. Pure."""

from __future__ import annotations

from engine.core.codes import explained
from engine.model import Outcome

_PENDING = {
    "waiting": "On its way: waiting to be sent",
    "leased": "On its way: in a request now, or about to be tried again",
    "held": "On its way: kept on disk, to be sent later",
}
_ENDED = {
    Outcome.DELIVERED: "Delivered: RainFocus confirmed it",
    Outcome.SUPPRESSED: "Already there: RainFocus holds exactly this content, so nothing was sent",
    Outcome.SUPERSEDED: "Merged into a newer event",
    Outcome.EXCLUDED: "Not sent",
    Outcome.DEAD_LETTERED: "Failed: it is a dead letter",
    Outcome.EXPIRED: "Expired: given up as too old",
}
UNKNOWN = "Nothing is known: no event has come, it was forgotten, or it is older than what the ledger keeps"


def summary(state: str, outcome: str | None, reason: str | None, letters: int, trouble: str) -> str:
    """`state`: see `ports.Control.lookup`. `outcome`, `reason`: the last one, None without. `letters`: dead letters
    that are kept of the person. `trouble`: why the destination sends nothing now, "" if it does."""
    parts = [_PENDING.get(state) or _ended(outcome, reason) if state != "unknown" else UNKNOWN]
    if state in _PENDING:
        parts += [f"the destination stands still: {trouble}"] if trouble else []
        parts += [f"before that: {_ended(outcome, reason)}"] if outcome else []
    if letters and (state != "settled" or outcome not in (Outcome.DEAD_LETTERED, Outcome.EXPIRED)):
        parts.append(f"dead letters kept: {letters}")
    return "; ".join(parts) + "."


def _ended(outcome: str | None, reason: str | None) -> str:
    ended = _ENDED[Outcome(outcome)] if outcome else UNKNOWN
    return f"{ended}: {explained(reason)}" if reason else ended
