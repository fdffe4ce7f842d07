"""One alert at one destination: its rule, what is remembered of it, and how it goes from state to state. Pure.

    ok ──holds──▶ pending ──for so long──▶ raised ──cleared for so long──▶ resolved ──holds──▶ pending

Rules:
- `NEXT` has every way from state to state; what has no row there changes nothing.
- Times are epoch seconds, since they survive restarts; one of the future (the clock was set back) counts as now.
- "Raised" is told once, then "repeated" every cooldown while it lasts, then "resolved" once; a "resolved" follows only
  a "raised" that was told. What comes again right after it was resolved is told `FLAP_SECONDS` after the last time.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from engine.core.alert_figures import KINDS, Kind, Reading
from engine.model import Notice, NoticeEvent

FLAP_SECONDS = 300.0
"""So long after it was told of last, an alert that comes again is told of anew (or after its cooldown, if shorter)."""

MARGIN = 0.1
"""A raised alert counts as cleared only this much beyond its threshold, so that what stands at the edge is still."""

SAMPLES = 60
"""How many samples a window has: it is exact to a sixtieth of itself."""


class State(StrEnum):
    OK = "ok"
    PENDING = "pending"
    RAISED = "raised"
    RESOLVED = "resolved"


class Step(StrEnum):
    HOLD = "hold"
    PASS = "pass"  # it no longer holds
    RAISE = "raise"
    RESOLVE = "resolve"


NEXT: dict[State, dict[Step, State]] = {
    State.OK: {Step.HOLD: State.PENDING},
    State.PENDING: {Step.PASS: State.OK, Step.RAISE: State.RAISED},
    State.RAISED: {Step.RESOLVE: State.RESOLVED},
    State.RESOLVED: {Step.HOLD: State.PENDING},
}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[alert]]`, or one that is built in. `destinations` None: all."""

    name: str
    when: str
    threshold: float
    window_seconds: float = 3_600.0
    for_seconds: float = 60.0
    clear_seconds: float = 60.0
    cooldown_seconds: float = 3_600.0
    destinations: frozenset[str] | None = None
    targets: tuple[str, ...] = ()
    built_in: bool = False

    @property
    def kind(self) -> Kind:
        return KINDS[self.when]

    def concerns(self, destination: str) -> bool:
        return self.destinations is None or destination in self.destinations


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """Counts as they were at `at`."""

    at: float
    figure: float
    whole: float


class Entry(msgspec.Struct, array_like=True):
    """One rule at one destination, as it is stored. Times are epoch seconds, 0: never."""

    when: str
    state: State = State.OK
    since: float = 0.0  # when the condition began to hold
    clear_since: float = 0.0  # raised, and below the threshold since then
    told: bool = False  # somebody was told that it is raised, and not yet that it is over
    told_at: float = 0.0
    samples: list[Sample] = msgspec.field(default_factory=list)
    notices: list[Notice] = msgspec.field(default_factory=list)


def judge(entry: Entry, rule: Rule, figure: float, now: float) -> None:
    """One step of the state machine, or two where nothing has to be waited for."""
    if entry.state == State.RAISED:
        _judge_raised(entry, rule, figure, now)
        return
    if not _holds(rule, figure):
        _move(entry, Step.PASS)
        return
    if entry.state != State.PENDING:
        _move(entry, Step.HOLD)
        entry.since = now
    if now - entry.since >= rule.for_seconds:
        _move(entry, Step.RAISE)
        entry.clear_since = 0.0


def _judge_raised(entry: Entry, rule: Rule, figure: float, now: float) -> None:
    if not _is_cleared(rule, figure):
        entry.clear_since = 0.0
        return
    entry.clear_since = entry.clear_since or now
    if now - entry.clear_since >= rule.clear_seconds:
        _move(entry, Step.RESOLVE)


def to_tell(entry: Entry, rule: Rule, now: float) -> NoticeEvent | None:
    if entry.state == State.RESOLVED and entry.told:
        entry.told = False
        return NoticeEvent.RESOLVED
    if entry.state != State.RAISED or entry.clear_since:
        return None
    if not entry.told:
        quiet = min(rule.cooldown_seconds, FLAP_SECONDS)
        if entry.told_at and now < entry.told_at + quiet:
            return None
        entry.told, entry.told_at = True, now
        return NoticeEvent.RAISED
    if rule.cooldown_seconds and now >= entry.told_at + rule.cooldown_seconds:
        entry.told_at = now
        return NoticeEvent.REPEATED
    return None


def _holds(rule: Rule, figure: float) -> bool:
    return figure < rule.threshold if rule.kind.below else figure > rule.threshold


def _is_cleared(rule: Rule, figure: float) -> bool:
    if rule.kind.below:
        return figure > rule.threshold * (1 + MARGIN)
    return figure <= rule.threshold * (1 - MARGIN)


def _move(entry: Entry, step: Step) -> None:
    entry.state = NEXT[entry.state].get(step, entry.state)


def not_of_the_future(entry: Entry, now: float) -> None:
    entry.since, entry.clear_since = min(entry.since, now), min(entry.clear_since, now)
    entry.told_at = min(entry.told_at, now)
    if entry.samples and entry.samples[-1].at > now:
        entry.samples = [Sample(min(it.at, now), it.figure, it.whole) for it in entry.samples]


def _at_most(sample: Sample, current: Sample) -> Sample:
    if sample.figure <= current.figure and sample.whole <= current.whole:
        return sample
    return Sample(sample.at, min(sample.figure, current.figure), min(sample.whole, current.whole))


def within_window(entry: Entry, rule: Rule, reading: Reading, now: float) -> float:
    """What came in the window, up to now: a share of the whole, or how much. Counts that were set back (by a crash, or
    since the destination begins anew) take what is remembered of them along."""
    current = Sample(now, reading.figure, reading.whole)
    kept = [_at_most(sample, current) for sample in entry.samples]
    while len(kept) > 1 and kept[1].at <= now - rule.window_seconds:
        kept.pop(0)
    if not kept or _is_news(kept[-1], current, rule.window_seconds / SAMPLES):
        kept.append(current)
    if kept != entry.samples:
        entry.samples = kept
    part, whole = current.figure - kept[0].figure, current.whole - kept[0].whole
    if rule.kind.window == "growth":
        return part
    return part / whole if whole > 0 else 0.0


def _is_news(newest: Sample, current: Sample, step_seconds: float) -> bool:
    changed = (newest.figure, newest.whole) != (current.figure, current.whole)
    return changed and current.at - newest.at >= step_seconds
