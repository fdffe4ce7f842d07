"""A result as tables of text: the same rows on a terminal, in the report, and in the README."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.result import Phase, Quantiles, Run, Subject, ratio
from benchmarks.targets import targets

NOTHING = "-"
MOST_COLUMNS = 6
MARKS = {True: "✔", False: "✘", None: NOTHING}


class Table(msgspec.Struct, frozen=True):
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(run: Run) -> list[Table]:
    """Those that have rows, in the order they are read."""
    figures = [table for scenario in run.scenarios() for table in figures_of(run, scenario)]
    found = [saturation(run), latency(run), ratios(run), *figures, _notes(run), _unmeasured(run), _targets(run)]
    return [table for table in found if table.rows]


# -- throughput and cost ----------------------------------------------------------------------------------------------


def saturation(run: Run) -> Table:
    headers = (
        *("scenario", "system", "events/s", "CPU us/event", "lowest - highest", "ack p50 ms", "ack p99 ms"),
        *("peak MiB", "system", "sink", "generator", "note"),
    )
    rows = [_saturation_row(it) for it in run.subjects if it.measured]
    return Table("Closed loop: as fast as it goes", headers, rows)


def _saturation_row(subject: Subject) -> Sequence[str]:
    ack, cost = _middle(subject.measured).ack, [it.cpu_us_per_event for it in subject.measured]
    known = [it for it in cost if it is not None]
    return (
        subject.scenario,
        subject.system,
        number(subject.events_per_second, 0),
        number(subject.cpu_us_per_event, 1),
        f"{min(known):.1f} - {max(known):.1f}" if known else NOTHING,
        *two(ack),
        number(subject.peak_memory_bytes / 2**20, 0),
        *(_share(subject, name) for name in ("system", "sink", "generator")),
        "; ".join(subject.notes) or NOTHING,
    )


def _middle(phases: Sequence[Phase]) -> Phase:
    """The phase with the median throughput."""
    return sorted(phases, key=lambda it: it.events_per_second)[len(phases) // 2]


def _share(subject: Subject, name: str) -> str:
    return f"{max(it.cpu_share.get(name, 0.0) for it in subject.measured):.0%}"


# -- latency ----------------------------------------------------------------------------------------------------------


def latency(run: Run) -> Table:
    headers = (
        *("scenario", "system", "load", "events/s", "ack p50 ms", "p99", "p99.9"),
        *("delivered p50 ms", "p99", "p99.9", "CPU us/event"),
    )
    rows = [_latency_row(it, phase) for it in run.subjects for phase in it.loads if phase.status == "ok"]
    return Table("Open loop: from the moment a request was due", headers, rows)


def _latency_row(subject: Subject, phase: Phase) -> Sequence[str]:
    return (
        subject.scenario,
        subject.system,
        f"{phase.share:.0%}" if phase.share is not None else NOTHING,
        number(phase.offered_per_second, 0),
        *_three(phase.ack),
        *_three(phase.delivered),
        number(phase.cpu_us_per_event, 1),
    )


# -- ratios -----------------------------------------------------------------------------------------------------------


def ratios(run: Run) -> Table:
    headers = ("scenario", "system", "CPU per event", "lowest - highest", "events/s", "lowest - highest", "pairs")
    rows = [_ratio_row(it, base) for it in run.subjects if (base := _baseline(run, it)) is not None]
    return Table("Ratios to the first system of the scenario, pair by pair", headers, [it for it in rows if it])


def _baseline(run: Run, subject: Subject) -> Subject | None:
    """What it is held against: the first system of its scenario, unless it is that itself."""
    first = run.of(subject.scenario)[0]
    return first if first is not subject and first.measured and subject.measured else None


def _ratio_row(subject: Subject, base: Subject) -> Sequence[str]:
    cost, speed = ratio(subject, base), ratio(subject, base, "events_per_second")
    shown = []
    for one in (cost, speed):
        middle = f"{number(one.middle, 2)} x" if one else NOTHING
        shown += [middle, f"{number(one.lowest, 2)} - {number(one.highest, 2)}" if one else NOTHING]
    return (subject.scenario, subject.system, *shown, str(cost.pairs if cost else 0))


# -- the rest ---------------------------------------------------------------------------------------------------------


def figures_of(run: Run, scenario: str) -> list[Table]:
    """One table for all systems with the same figures; figures beside each other while they are few."""
    alike: dict[tuple[str, ...], list[Subject]] = defaultdict(list)
    for subject in run.of(scenario):
        if subject.figures:
            alike[tuple(subject.figures)].append(subject)
    return [_figures(scenario, names, subjects) for names, subjects in alike.items()]


def _figures(scenario: str, names: Sequence[str], subjects: Sequence[Subject]) -> Table:
    rows = [[_figure(it.figures[name]) for name in names] for it in subjects]
    systems = [it.system for it in subjects]
    if len(names) > MOST_COLUMNS:
        cells = zip(names, zip(*rows, strict=True), strict=True)
        return Table(scenario, ("figure", *systems), [(_words(name), *row) for name, row in cells])
    named = zip(systems, rows, strict=True)
    return Table(scenario, ("system", *map(_words, names)), [(system, *row) for system, row in named])


def _figure(value: float) -> str:
    return number(value, _digits(value))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _digits(value: float) -> int:
    if value >= 1_000 or value == int(value):
        return 0
    return 1 if value >= 100 else 2 if value >= 1 else 3


def _notes(run: Run) -> Table:
    """Of those without phases, which have them in their rows."""
    rows = [(it.scenario, it.system, "; ".join(it.notes)) for it in run.subjects if it.notes and not it.saturation]
    return Table("Notes", ("scenario", "system", "note"), rows)


def _unmeasured(run: Run) -> Table:
    rows = [(it.scenario, it.system, "everything", it.reason) for it in run.subjects if it.status != "ok"]
    for it in run.subjects:
        failed = [phase for phase in (*it.saturation, *it.loads) if phase.status != "ok"]
        rows += [(it.scenario, it.system, _load(phase), phase.reason) for phase in failed]
    return Table("Not measured", ("scenario", "system", "what", "reason"), rows)


def _targets(run: Run) -> Table:
    rows = [
        (MARKS[it.met], it.kind, it.what, f"{number(it.limit, 2)} {it.unit}", f"{number(it.found, 2)} {it.unit}")
        for it in targets(run)
        if it.found is not None
    ]
    return Table("Targets (this machine, this run; for information)", ("", "kind", "what", "at most", "found"), rows)


def _load(phase: Phase) -> str:
    if phase.offered_per_second is None:
        return "saturation"
    return f"load {phase.share:.0%}" if phase.share is not None else f"{phase.offered_per_second:,.0f} events/s"


def number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def two(quantiles: Quantiles | None) -> Iterable[str]:
    return (number(quantiles.p50, 2), number(quantiles.p99, 2)) if quantiles else (NOTHING, NOTHING)


def _three(quantiles: Quantiles | None) -> Iterable[str]:
    return (*two(quantiles), number(quantiles.p999, 2) if quantiles else NOTHING)
