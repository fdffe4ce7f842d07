"""All alerts of one engine: what there is to tell, what still waits to be told, and what is kept of it. Pure.

All of it is in the rows of `changed`: an engine that starts with them goes on as if it had never stopped.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from engine.core.alert_figures import Figures, Reading
from engine.core.alert_rules import Entry, Rule, State, judge, not_of_the_future, to_tell, within_window
from engine.core.alert_texts import advice_of, page_of, resolved, summary
from engine.model import Notice, NoticeEvent

MOST_WAITING = 100
"""Notices that wait for one target; beyond that the oldest are given up."""

OLDEST_SECONDS = 86_400.0
"""A notice that could not be told for a day is given up."""

Row = tuple[str, str]
"""(name of the alert, destination)"""


class AlertBook:
    """`stored`: what an earlier process kept. `targets`: the names there are: what waits for another is forgotten."""

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        random: random.Random,
        stored: Mapping[Row, bytes] | None = None,
        targets: Collection[str] = (),
    ) -> None:
        self.rules = {rule.name: rule for rule in rules}
        self._random, self._targets = random, frozenset(targets)
        self._entries: dict[Row, Entry] = {}
        self._figures: dict[Row, tuple[float, str]] = {}  # what was seen last, and its details
        self._changed: set[Row] = set()
        self.given_up: list[tuple[str, str]] = []  # (target, why), to be counted by whoever asks
        for row, content in (stored or {}).items():
            self._restore(row, content)

    def __repr__(self) -> str:
        active = [f"{name} {destination}".strip() for name, destination in self.active()]
        return f"<AlertBook {active or 'quiet'}>"

    def _restore(self, row: Row, content: bytes) -> None:
        """What belongs to an alert that is no longer there, or is about something else now, is dropped."""
        rule = self.rules.get(row[0])
        try:
            entry = msgspec.msgpack.decode(content, type=Entry)
        except msgspec.MsgspecError:
            entry = None  # what alerts remember is not worth refusing to start
        if rule is None or entry is None or entry.when != rule.when:
            self._changed.add(row)
            return
        for notice in entry.notices:
            notice.targets = [name for name in notice.targets if name in self._targets]
        entry.notices = [notice for notice in entry.notices if notice.targets]
        self._entries[row] = entry

    # -- what holds -----------------------------------------------------------------------------------------------

    def evaluate(self, figures: Figures) -> list[Notice]:
        """Look at the figures of one moment; what there is to tell now, in the order it came to be."""
        told: list[Notice] = []
        for rule in self.rules.values():
            readings = rule.kind.readings(figures)
            for destination, reading in readings.items():
                if rule.concerns(destination):
                    told += self._look(rule, destination, reading, figures.at)
            told += self._without_figures(rule, readings.keys(), figures.at)
        self._give_up_old(figures.at)
        return told

    def _look(self, rule: Rule, destination: str, reading: Reading, now: float) -> Iterator[Notice]:
        row = (rule.name, destination)
        entry = self._entries.setdefault(row, Entry(rule.when))
        before = _remembered(entry)
        not_of_the_future(entry, now)
        figure = within_window(entry, rule, reading, now) if rule.kind.window else reading.figure
        self._figures[row] = figure, reading.detail
        judge(entry, rule, figure, now)
        event = to_tell(entry, rule, now)
        if event:
            yield self._notice(rule, destination, entry, event, now)
        if before != _remembered(entry):
            self._changed.add(row)

    def _without_figures(self, rule: Rule, known: Collection[str], now: float) -> Iterator[Notice]:
        """A destination that has left the configuration leaves no alert behind."""
        for row in [row for row in self._entries if row[0] == rule.name]:
            if row[1] in known and rule.concerns(row[1]):
                continue
            entry = self._entries[row]
            if entry.state != State.OK:
                if entry.told:
                    yield self._notice(rule, row[1], entry, NoticeEvent.RESOLVED, now)
                entry.state, entry.told = State.OK, False
                self._changed.add(row)
            if not entry.notices:
                del self._entries[row]
                self._changed.add(row)

    # -- what is told ---------------------------------------------------------------------------------------------

    def _notice(self, rule: Rule, destination: str, entry: Entry, event: NoticeEvent, now: float) -> Notice:
        figure, detail = self._figures.get((rule.name, destination), (0.0, ""))
        text = (
            resolved(rule.when, destination, entry.since, now)
            if event == NoticeEvent.RESOLVED
            else summary(rule.when, destination, figure, rule.threshold, detail, rule.window_seconds)
        )
        notice = Notice(
            id=f"msg_{self._random.getrandbits(128):032x}" if rule.targets else "",
            event=event,
            at=now,
            alert=rule.name,
            when=rule.when,
            destination=destination,
            since=entry.since,
            figure=figure,
            threshold=rule.threshold,
            unit=rule.kind.unit,
            summary=text,
            advice=advice_of(rule.when),
            page=page_of(rule.when),
            targets=list(rule.targets),
        )
        if notice.targets:
            entry.notices.append(notice)
            self._changed.add((rule.name, destination))
            for target in notice.targets:
                self._make_room(target)
        return notice

    def waiting(self, target: str) -> Notice | None:
        """The oldest notice that this target has not been told."""
        return min(self._all_waiting(target), key=lambda it: it.at, default=None)

    def waiting_count(self, target: str) -> int:
        return len(self._all_waiting(target))

    def _all_waiting(self, target: str) -> list[Notice]:
        return [one for entry in self._entries.values() for one in entry.notices if target in one.targets]

    def done(self, notice: Notice, target: str) -> None:
        """It was told, or nobody will try again."""
        for row, entry in self._entries.items():
            for one in entry.notices:
                if one.id == notice.id and target in one.targets:
                    one.targets.remove(target)
                    entry.notices = [it for it in entry.notices if it.targets]
                    self._changed.add(row)
                    return

    def _make_room(self, target: str) -> None:
        waiting = sorted(self._all_waiting(target), key=lambda it: it.at)
        for notice in waiting[: max(0, len(waiting) - MOST_WAITING)]:
            self._give_up(notice, target, "dropped")

    def _give_up_old(self, now: float) -> None:
        for target in self._targets:
            for notice in self._all_waiting(target):
                if now - notice.at > OLDEST_SECONDS:
                    self._give_up(notice, target, "expired")

    def _give_up(self, notice: Notice, target: str, why: str) -> None:
        self.done(notice, target)
        self.given_up.append((target, why))

    # -- what is kept and shown -----------------------------------------------------------------------------------

    def changed(self) -> dict[Row, bytes | None]:
        """The rows to store since the last call; None: to delete."""
        rows, self._changed = self._changed, set()
        return {row: self._stored(row) for row in sorted(rows)}

    def keep_again(self, rows: Collection[Row]) -> None:
        """They could not be stored: they come with the next ones."""
        self._changed |= set(rows)

    def _stored(self, row: Row) -> bytes | None:
        entry = self._entries.get(row)
        return None if entry is None else msgspec.msgpack.encode(entry)

    def is_active(self, name: str, destination: str) -> bool:
        entry = self._entries.get((name, destination))
        return entry is not None and entry.state == State.RAISED

    def active(self) -> list[Row]:
        return [row for row, entry in self._entries.items() if entry.state == State.RAISED]

    def report(self) -> list[dict[str, object]]:
        """What is raised first, then by name."""
        rows = sorted(self._entries, key=lambda row: (self._entries[row].state != State.RAISED, row))
        return [self._described(row) for row in rows if row[0] in self.rules]

    def _described(self, row: Row) -> dict[str, object]:
        rule, entry = self.rules[row[0]], self._entries[row]
        figure, detail = self._figures.get(row, (0.0, ""))
        holds = entry.state in (State.PENDING, State.RAISED)
        text = summary(rule.when, row[1], figure, rule.threshold, detail, rule.window_seconds) if holds else ""
        return {
            "alert": rule.name,
            "when": rule.when,
            "destination": row[1],
            "state": entry.state,
            "since": entry.since if entry.state != State.OK else None,
            "figure": figure,
            "threshold": rule.threshold,
            "unit": rule.kind.unit,
            "summary": text,
            "advice": advice_of(rule.when) if holds else "",
            "page": page_of(rule.when),
            "told_at": entry.told_at or None,
            "to": list(rule.targets),
            "built_in": rule.built_in,
        }


def _remembered(entry: Entry) -> tuple[object, ...]:
    return entry.state, entry.since, entry.clear_since, entry.told, entry.told_at, entry.samples
