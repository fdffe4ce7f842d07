"""The figures in README and docs, made from results; nobody writes there by hand.

A page holds blocks ``<!-- figures: NAME -->`` … ``<!-- end of figures -->``; each is made from the first result that
has its scenario, so that everything in a block is of one run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.processes import ROOT
from benchmarks.result import Run, Subject, ratio, read
from benchmarks.tables import figures_of, number, ratios, saturation, two
from benchmarks.targets import FLOORS, floor

PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
RESULTS = ROOT / "benchmarks" / "results"
SIZES = (1, 10, 100)

_block = re.compile(r"<!-- figures: ([a-z-]+) -->\n.*?<!-- end of figures -->", re.DOTALL)


class Found(msgspec.Struct, frozen=True):
    """A result and the name of its file."""

    name: str
    run: Run


def results(files: Sequence[Path]) -> list[Found]:
    """Of these files, or of all that are kept, newest last. Raises OSError, ValueError."""
    chosen = files or sorted(RESULTS.glob("*.json"))
    return [Found(it.name, read(it)) for it in chosen]


def update(found: Sequence[Found]) -> None:
    """Raises ValueError for a block that no result has anything for."""
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), found), encoding="utf-8")


def filled(text: str, found: Sequence[Found]) -> str:
    def block(match: re.Match[str]) -> str:
        return f"<!-- figures: {match[1]} -->\n{content(match[1], found)}\n<!-- end of figures -->"

    return _block.sub(block, text)


def content(name: str, found: Sequence[Found]) -> str:
    if name not in BLOCKS:
        raise ValueError(f"there are no figures {name!r}; there are {', '.join(BLOCKS)}")
    scenario, make = BLOCKS[name]
    for it in found:
        if it.run.kind == KINDS.get(name, "run") and it.run.of(scenario):
            return f"{make(it.run)}\n\n{source(it)}"
    raise ValueError(f"no result has the scenario {scenario!r}, which the figures {name!r} are made from")


def source(found: Found) -> str:
    run = found.run
    what = f"version {run.version} ({run.commit or 'no checkout'}), {run.machine.cpu}, {run.machine.cores} cores"
    noisy = (
        " On a machine that others used meanwhile." if any("shared machine" in it.notes for it in run.subjects) else ""
    )
    return (
        f"<sub>`benchmarks/results/{found.name}`: {what}, {run.machine.python}, {run.machine.file_system}, "
        f"{run.at[:10]}.{noisy}</sub>"
    )


# -- blocks -----------------------------------------------------------------------------------------------------------


def main(run: Run) -> str:
    """Beside peers, by events a request."""
    rows = [
        ["engine, events/s of one core", *(_speed(run.subject(f"array-{n}")) for n in SIZES)],
        ["engine, CPU µs per event", *(_cost(run.subject(f"array-{n}")) for n in SIZES)],
        ["… over the sum of its parts alone", *(_of_floor(run, n) for n in SIZES)],
        *([f"{peer}, CPU over the engine's", *(_of_engine(run, n, peer) for n in SIZES)] for peer in peers(run)),
        ["engine, ack p50 / p99 at 60 % load, ms", *(_at_60(run.subject(f"array-{n}"), "ack") for n in SIZES)],
        ["engine, delivered p50 / p99 at 60 %, ms", *(_at_60(run.subject(f"array-{n}"), "delivered") for n in SIZES)],
    ]
    return table(["", "1 event a request", "10 events", "100 events"], rows)


def limit(run: Run) -> str:
    """Where the limit is the destination's."""
    headers = (
        *("10 requests/s allowed, 3,000 events/s come", "events a request covers", "age on arrival p50 / p99, s"),
        *("limit used", "fullest second"),
    )
    return table(headers, [[it.system, *_fresh(it.figures)] for it in run.of("freshness") if it.figures])


def cost(run: Run) -> str:
    """Every scenario of the engine."""
    shown = saturation(run)
    kept = [shown.headers.index(it) for it in ("scenario", "events/s", "CPU us/event", "lowest - highest", "peak MiB")]
    rows = [[row[it] for it in kept] for row in shown.rows if row[1] == "engine"]
    return table(["scenario", "events/s", "CPU µs/event", "lowest - highest", "peak MiB"], rows)


def latency(run: Run) -> str:
    rows = []
    for subject in run.subjects:
        for phase in subject.loads if subject.system == "engine" else ():
            load = f"{phase.share:.0%}" if phase.share is not None else f"{phase.offered_per_second:,.0f}/s"
            if phase.status == "ok":
                rows.append([subject.scenario, load, *(" / ".join(two(it)) for it in (phase.ack, phase.delivered))])
    return table(["scenario", "load", "ack p50 / p99, ms", "delivered p50 / p99, ms"], rows)


def figures(scenario: str) -> Callable[[Run], str]:
    """All figures of a scenario as they are."""

    def make(run: Run) -> str:
        return "\n\n".join(table(it.headers, it.rows) for it in figures_of(run, scenario))

    return make


def soak(run: Run) -> str:
    (subject,) = run.of("soak")
    return "\n".join([f"- {it}" for it in subject.notes]) + "\n\n" + figures("soak")(run)


def durability(run: Run) -> str:
    """What a journal in memory would save."""
    shown = ratios(run)
    return table(["scenario", *shown.headers[2:]], [[row[0], *row[2:]] for row in shown.rows])


KINDS = {"soak": "soak", "durability": "compare"}
"""Of results that are no plain run."""

BLOCKS: dict[str, tuple[str, Callable[[Run], str]]] = {
    "main": ("array-10", main),
    "limit": ("freshness", limit),
    "cost": ("single-10", cost),
    "latency": ("single-10", latency),
    "soak": ("soak", soak),
    "durability": ("array-10", durability),
    **{
        name: (name, figures(name))
        for name in (
            FLOORS,
            "utilisation",
            "sizing",
            "sink",
            "growth",
            "fleet",
            "memory",
            "recovery",
            "outage",
            "backfill",
        )
    },
}


# -- cells ------------------------------------------------------------------------------------------------------------


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *rows))


def peers(run: Run) -> list[str]:
    """Those that were measured at least once."""
    return list(dict.fromkeys(it.system for n in SIZES for it in run.of(f"array-{n}")[1:] if it.measured))


def _fresh(found: dict[str, float]) -> list[str]:
    return [
        number(found["events_covered_per_request"], 0),
        f"{number(found['age_p50_ms'] / 1000, 1)} / {number(found['age_p99_ms'] / 1000, 1)}",
        f"{number(found['used_percent'], 0)} %",
        f"{number(found['most_in_1_second'], 0)} of {number(found['allowed_in_1_second'], 0)}",
    ]


def _speed(subject: Subject | None) -> str:
    return number(subject.events_per_second, 0) if subject else number(None, 0)


def _cost(subject: Subject | None) -> str:
    return number(subject.cpu_us_per_event, 1) if subject else number(None, 1)


def _of_floor(run: Run, n: int) -> str:
    subject, below = run.subject(f"array-{n}"), floor(run, f"sum_of_parts_{n}_cpu_us_per_event")
    spent = subject.cpu_us_per_event if subject else None
    return f"{spent / below:.1f} ×" if spent and below else "-"


def _of_engine(run: Run, n: int, peer: str) -> str:
    subject, engine = run.subject(f"array-{n}", peer), run.subject(f"array-{n}")
    found = ratio(subject, engine) if subject and engine else None
    return f"{found.middle:.2f} ×" if found else "-"


def _at_60(subject: Subject | None, name: str) -> str:
    for phase in subject.loads if subject else []:
        found = getattr(phase, name)
        if phase.share == 0.6 and found is not None:
            return " / ".join(two(found))
    return "-"
