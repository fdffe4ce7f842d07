"""What may be said of a phase: delivery times from what the sink holds, and reasons where figures would mislead."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.generator import Done
from benchmarks.result import Phase
from benchmarks.shapes import Shape
from benchmarks.sink import Stats
from benchmarks.sinks import Records
from benchmarks.systems import System
from engine.bench.histogram import Histogram

REACHED = 0.98
"""So much of an offered load has to be accepted for its latencies to say anything about it."""

APART = 1_000_000_000
"""So far apart are the numbers of two loads that run at once."""


def reached(phase: Phase, done: Done) -> Phase:
    """The phase, or the reason why it is none: latencies of a load that never was mean nothing."""
    due = done.sent + done.unsent
    if phase.status == "ok" and done.requests < REACHED * due:
        lost = f"{done.refused:,} refused, {done.failed:,} failed, {done.unsent:,} never sent"
        phase.status = "not measured"
        phase.reason = f"the offered load was not reached: of {due:,} requests {done.requests:,} were taken ({lost})"
        phase.ack = phase.delivered = phase.cpu_us_per_event = None
    return phase


def arrived(phase: Phase, shape: Shape, system: System, stats: Stats) -> Phase:
    """The phase, or the reason why it is none: what did not arrive was not delivered, whatever the system says."""
    every = system.delivers and not system.lines and not shape.repeated
    if phase.status == "ok" and every and stats.people < phase.events:
        phase.status = "not measured"
        phase.reason = f"of {phase.events:,} accepted events {stats.people:,} arrived"
        phase.ack = phase.delivered = phase.cpu_us_per_event = None
    return phase


def delivery_times(shape: Shape, records: Records, started_at: float, requests_per_second: float) -> Histogram:
    """For every event: from the moment its request was due until it, or a newer one of its person, was at the sink."""
    seconds, waiting = Histogram(), _by_person(shape, records)
    for at, person, version in records:
        events = waiting.get(person - shape.base)
        while events and events[-1] <= version - shape.base:
            due = started_at + shape.request_of(events.pop()) / requests_per_second
            seconds.add(max(0.0, at - due))
    return seconds


def _by_person(shape: Shape, records: Records) -> dict[int, list[int]]:
    """Events that should arrive, newest first: all up to the newest that did."""
    found: dict[int, list[int]] = defaultdict(list)
    mine = (it - shape.base for it in records.versions if 0 <= it - shape.base < APART)
    for event in range(max(mine, default=-1), -1, -1):
        found[shape.person_of(event)].append(event)
    return found
