"""What alerts look at: the figures of one moment, and what each kind of alert reads from them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from engine.model import Outcome

BY_DESIGN = frozenset({"audience", "exited", "synthetic", "dry_run", "forgotten", "overtaken", "lost"})
"""Reasons of `excluded` that are no skipped activation: somebody wanted it so, or nothing could be activated. What is
left is a missing attribute (`no_email`) or a consent, as AEP counts it (domain reference §2.8)."""

_ACTIVATED = (Outcome.DELIVERED, Outcome.SUPPRESSED, Outcome.SUPERSEDED)
_FAILED = (Outcome.DEAD_LETTERED, Outcome.EXPIRED)


class DestinationFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`counts`: events by outcome, as `ConsumerState.counts`; they only grow. `delay_seconds`: the age of the oldest
    pending event, or accepted → confirmed of what was delivered since the last look, whichever is more."""

    counts: Mapping[str, int] = {}
    delay_seconds: float = 0.0
    behind_events: int = 0
    paused: bool = False
    breaker: str = ""  # why it is not closed
    token: str = ""  # why there is none
    stalled: bool = False


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """`at`: epoch seconds. `laggard`: the destination furthest behind. `stalled`: commit or settle is stuck."""

    at: float
    journal_bytes: int = 0
    journal_max_bytes: int = 1
    journal_seconds_left: float = math.inf
    laggard: str = ""
    disk_free_bytes: int = 1 << 62
    letters: int = 0
    letters_max: int = 1
    stalled: bool = False
    destinations: Mapping[str, DestinationFigures] = {}


class Reading(msgspec.Struct, frozen=True):
    """`figure` against a threshold; in a window `figure` and `whole` are counts that only grow. `detail`: which one,
    why; a short code or a name of the configuration."""

    figure: float
    whole: float = 0.0
    detail: str = ""


OfDestination = Callable[[DestinationFigures], Reading]
OfEngine = Callable[[Figures], Reading]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One `when`. `window`: how a window is looked at, "rate" (figure / whole) or "growth" (figure); "": not at all.
    `below`: it is the small figure that is bad."""

    threshold: float = 0.0
    unit: str = ""
    window: str = ""
    below: bool = False
    destination: OfDestination | None = None
    engine: OfEngine | None = None

    def readings(self, figures: Figures) -> dict[str, Reading]:
        """By destination; under "" what is about the whole engine."""
        found = {"": self.engine(figures)} if self.engine is not None else {}
        if self.destination is not None:
            found |= {name: self.destination(one) for name, one in figures.destinations.items()}
        return found


def _yes(reason: str) -> Reading:
    return Reading(1.0 if reason else 0.0, detail=reason)


def _sum(counts: Mapping[str, int], names: tuple[Outcome, ...]) -> int:
    return sum(events for name, events in counts.items() if name.partition(":")[0] in names)


def _skipped(counts: Mapping[str, int]) -> int:
    excluded = ((name.partition(":"), events) for name, events in counts.items())
    return sum(
        events for (outcome, _, reason), events in excluded if outcome == Outcome.EXCLUDED and reason not in BY_DESIGN
    )


def _judged(counts: Mapping[str, int]) -> int:
    """Activations: all that got an outcome, without what was never meant to be activated."""
    return _sum(counts, _ACTIVATED) + _sum(counts, _FAILED) + _skipped(counts)


def _skipped_rate(one: DestinationFigures) -> Reading:
    return Reading(_skipped(one.counts), _judged(one.counts))


def _failed_rate(one: DestinationFigures) -> Reading:
    return Reading(_sum(one.counts, _FAILED), _judged(one.counts))


def _journal(figures: Figures) -> Reading:
    laggard = figures.destinations.get(figures.laggard, DestinationFigures())
    left = figures.journal_seconds_left
    lasts = "it does not grow at present" if math.isinf(left) else f"full in about {left / 60:.0f} minutes"
    who = f"destination {figures.laggard} is furthest behind, by {laggard.behind_events} events; {lasts}"
    return Reading(figures.journal_bytes / figures.journal_max_bytes, detail=who)


KINDS: dict[str, Kind] = {
    "activation-skipped-rate": Kind(threshold=0.01, unit="share", window="rate", destination=_skipped_rate),
    "run-failed": Kind(threshold=0.05, unit="share", window="rate", destination=_failed_rate),
    "delivery-delay": Kind(
        threshold=900.0,
        unit="seconds",
        destination=lambda one: Reading(0.0 if one.paused else one.delay_seconds),
    ),
    "breaker-open": Kind(destination=lambda one: _yes(one.breaker)),
    "token-failing": Kind(destination=lambda one: _yes(one.token)),
    "dead-letters-growing": Kind(
        unit="letters", window="growth", destination=lambda one: Reading(_sum(one.counts, _FAILED))
    ),
    "dead-letters-full": Kind(
        threshold=0.9, unit="share", engine=lambda figures: Reading(figures.letters / figures.letters_max)
    ),
    "journal-filling": Kind(threshold=0.5, unit="share", engine=_journal),
    "disk-filling": Kind(unit="bytes", below=True, engine=lambda figures: Reading(float(figures.disk_free_bytes))),
    "watchdog": Kind(
        destination=lambda one: _yes("read or send" if one.stalled else ""),
        engine=lambda figures: _yes("commit or settle" if figures.stalled else ""),
    ),
}
"""By the `when` of the configuration. The thresholds are AEP's where it has one (§2.8: skipped > 1 %)."""
