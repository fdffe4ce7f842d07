"""The plots of a report: cost beside peers, latency over load, growth over size."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from html import escape

import msgspec

from benchmarks.result import Phase, Quantiles, Run, Subject
from benchmarks.svg import Line, bar, lines
from benchmarks.tables import number

SIZE = "size"
"""The figure by which subjects of one scenario are put in a row."""


def all_of(run: Run) -> Iterator[str]:
    for part in (_costs(run), _limits(run), _latencies(run), _systems(run), _growths(run)):
        yield from part


def _section(title: str, text: str, cards: Sequence[str], legend: str = "") -> list[str]:
    if not cards:
        return []
    return [f"<h2>{title}</h2><p>{text}</p>{legend}", f'<div class="grid-of">{"".join(cards)}</div>']


# -- cost -------------------------------------------------------------------------------------------------------------


class Bar(msgspec.Struct, frozen=True):
    name: str
    value: float
    low: float
    high: float


def _costs(run: Run) -> list[str]:
    first = [run.of(scenario)[0] for scenario in run.scenarios()]
    overview = [bar for it in first if it.system in OWN and (bar := _cost(it, it.scenario))]
    cards = [_bars("the engine, by scenario", overview)] if len(overview) > 1 else []
    for scenario in run.scenarios():
        found = [bar for it in run.of(scenario) if (bar := _cost(it, it.system))]
        if len(found) > 1 or (found and not overview):
            cards.append(_bars(scenario, found))
    text = (
        "Of the system's whole process tree, as the kernel counts it; the bar is the median of the repeats, the line "
        "goes from the lowest to the highest. Less is better."
    )
    return _section("CPU per event, microseconds", text, cards)


OWN = ("engine", "a", "base")
"""Names of the first engine of a run."""


def _cost(subject: Subject, name: str) -> Bar | None:
    costs = [it.cpu_us_per_event for it in subject.measured if it.cpu_us_per_event is not None]
    return Bar(name, statistics.median(costs), min(costs), max(costs)) if costs else None


def _bars(title: str, bars: Sequence[Bar]) -> str:
    most, rows = max(it.high for it in bars), []
    for index, it in enumerate(bars):
        colour = 0 if index == 0 or title.startswith("the engine") else 5
        drawn = bar(it.value, most, it.low, it.high, colour)
        digits = 1 if it.value < 1_000 else 0
        name = f'<span class="name">{escape(it.name)}</span>'
        rows.append(f'{name}<span>{drawn}</span><span class="value">{number(it.value, digits)}</span>')
    return _card(title, f'<div class="bars">{"".join(rows)}</div>')


# -- limits -----------------------------------------------------------------------------------------------------------

SHOWN = (
    ("events_covered_per_request", "events that a request covers (more is better)"),
    ("age_p50_ms", "age of what arrives, p50, ms (less is better)"),
    ("most_in_1_second", "requests in the fullest second"),
)


def _limits(run: Run) -> list[str]:
    """What a limit leaves of a stream, by system."""
    subjects = [it for it in run.of("freshness") if it.figures]
    cards = []
    for figure, title in SHOWN if subjects else ():
        bars = [Bar(it.system, value, value, value) for it in subjects for value in [it.figures[figure]]]
        cards.append(_bars(title, bars))
    text = "10 requests a second allowed, 3,000 events a second of people who come again come in."
    return _section("Under a rate limit", text, cards)


# -- latency ----------------------------------------------------------------------------------------------------------

KINDS = (("ack", 0), ("delivered", 1))
SHARES = (("p50", False), ("p99", False), ("p999", True))


def _latencies(run: Run) -> list[str]:
    first = [run.of(scenario)[0] for scenario in run.scenarios()]
    cards = [_card(f"{it.scenario}: {it.system}", _latency_plot(_loads(it))) for it in first if len(_loads(it)) > 1]
    text = (
        "Open loop, from the moment a request was due, in milliseconds over the share of the throughput at saturation; "
        "of the two solid lines of a colour the lower one is p50."
    )
    return _section("Latency over load", text, cards, _legend([
        ("ack p50 and p99", 0, False), ("ack p99.9", 0, True),
        ("delivered p50 and p99", 1, False), ("delivered p99.9", 1, True),
    ]))  # fmt: skip


def _loads(subject: Subject) -> list[Phase]:
    return [it for it in subject.loads if it.status == "ok" and it.share is not None]


def _latency_plot(loads: Sequence[Phase]) -> str:
    series = []
    for kind, colour in KINDS:
        for name, dashed in SHARES:
            points = [(it.share or 0.0, value) for it in loads if (value := _quantile(getattr(it, kind), name))]
            series.append(Line(f"{kind} {name}", points, colour, dashed))
    return lines(series, [(it.share or 0.0, f"{it.share:.0%}") for it in loads], "ms")


def _quantile(quantiles: Quantiles | None, name: str) -> float:
    return float(getattr(quantiles, name)) if quantiles else 0.0


def _systems(run: Run) -> list[str]:
    """Where several systems had loads: what arrives when."""
    found = {name: [it for it in run.of(name) if len(_loads(it)) > 1] for name in run.scenarios()}
    several = {name: subjects for name, subjects in found.items() if len(subjects) > 1}
    names = list(dict.fromkeys(it.system for subjects in several.values() for it in subjects))
    cards = []
    for scenario, subjects in several.items():
        series = [_delivered(it, names.index(it.system)) for it in subjects]
        labels = [(it.share or 0.0, f"{it.share:.0%}") for it in _loads(subjects[0])]
        cards.append(_card(scenario, lines(series, labels, "ms")))
    text = (
        "Delivered p99, each at shares of its own throughput: a system that does less per event carries more at 60 %."
    )
    return _section("Systems beside each other", text, cards, _legend([(it, names.index(it), False) for it in names]))


def _delivered(subject: Subject, colour: int) -> Line:
    points = [(it.share or 0.0, it.delivered.p99) for it in _loads(subject) if it.delivered]
    return Line(subject.system, points, colour)


# -- growth -----------------------------------------------------------------------------------------------------------


def _growths(run: Run) -> list[str]:
    cards = []
    for scenario in run.scenarios():
        subjects = [it for it in run.of(scenario) if it.figures.get(SIZE)]
        names = [it for it in subjects[0].figures if it != SIZE][:4] if len(subjects) > 1 else []
        if names:
            cards.append(
                _card(
                    scenario,
                    _growth_plot(subjects, names)
                    + _legend([(it.replace("_", " "), at, False) for at, it in enumerate(names)]),
                )
            )
    return _section("Over size", "Each figure over the size, both axes logarithmic: a flat line does not grow.", cards)


def _growth_plot(subjects: Sequence[Subject], names: Sequence[str]) -> str:
    def points(name: str) -> list[tuple[float, float]]:
        return [(it.figures[SIZE], it.figures.get(name, 0.0)) for it in subjects]

    series = [Line(name.replace("_", " "), points(name), at) for at, name in enumerate(names)]
    return lines(series, [(it.figures[SIZE], f"{it.figures[SIZE]:,.0f}") for it in subjects], "", log_x=True)


def _card(title: str, inside: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>{inside}</div>'


def _legend(entries: Sequence[tuple[str, int, bool]]) -> str:
    def entry(name: str, colour: int, dashed: bool) -> str:
        kind = f"s{colour % 6}" + (" dashed" if dashed else "")
        return f'<li><i class="{kind}"></i>{escape(name)}</li>'

    return f'<ul class="legend">{"".join(entry(*it) for it in entries)}</ul>'
