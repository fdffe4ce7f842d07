"""The table of figures in the README, made from one result; nobody writes there by hand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.result import Run, Subject, ratio
from benchmarks.tables import number
from benchmarks.targets import floor

README = ROOT / "README.md"
START, END = "<!-- figures: made by `python -m benchmarks readme` -->", "<!-- end of figures -->"
SIZES = (1, 10, 100)
LIMITED = (
    "10 requests/s allowed, 3,000 events/s come",
    "events a request covers",
    "age on arrival p50 / p99, s",
    "limit used",
    "fullest second",
)
HEADERS = ("", "1 event a request", "10 events", "100 events")


def update(run: Run, file: Path) -> None:
    """Raises ValueError when the README has no place for it."""
    README.write_text(with_table(README.read_text("utf-8"), run, file.name), encoding="utf-8")


def with_table(text: str, run: Run, name: str) -> str:
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the README has no place for the figures; put these two lines there:\n{START}\n{END}")
    return f"{before}{START}\n{table(run, name)}\n{END}{after}"


def table(run: Run, name: str) -> str:
    rows = [
        _row("engine, events/s", [_speed(run.subject(f"array-{n}")) for n in SIZES]),
        _row("engine, CPU µs per event", [_cost(run.subject(f"array-{n}")) for n in SIZES]),
        _row("… by the sum of its parts alone", [_of_floor(run, n) for n in SIZES]),
        *(_row(f"{peer}, CPU / engine", [_of_engine(run, n, peer) for n in SIZES]) for peer in peers(run)),
        _row("engine, ack p50 / p99 at 60 % load, ms", [_ack(run.subject(f"array-{n}")) for n in SIZES]),
        _row("engine, delivered p50 / p99 at 60 %, ms", [_delivered(run.subject(f"array-{n}")) for n in SIZES]),
    ]
    head = [_row(*_split(HEADERS)), _row("---", ["---"] * len(SIZES))]
    return "\n".join([*head, *rows, "", *_limited(run), _where(run, name)])


def peers(run: Run) -> list[str]:
    """Those that were measured at least once."""
    names = dict.fromkeys(it.system for n in SIZES for it in run.of(f"array-{n}")[1:] if it.measured)
    return list(names)


def _limited(run: Run) -> list[str]:
    """Where the limit is the destination's: what 10 list requests a second do for 3,000 events a second."""
    subjects = [it for it in run.of("freshness") if it.figures]
    if not subjects:
        return []
    rows = [_row(it.system, _fresh(it.figures)) for it in subjects]
    return [_row(*_split(LIMITED)), _row("---", ["---"] * (len(LIMITED) - 1)), *rows, ""]


def _fresh(figures: dict[str, float]) -> list[str]:
    return [
        f"{number(figures['events_covered_per_request'], 0)}",
        f"{number(figures['age_p50_ms'] / 1000, 1)} / {number(figures['age_p99_ms'] / 1000, 1)}",
        f"{number(figures['used_percent'], 0)} %",
        f"{number(figures['most_in_1_second'], 0)} of {number(figures['allowed_in_1_second'], 0)}",
    ]


def _split(cells: tuple[str, ...]) -> tuple[str, list[str]]:
    return cells[0], list(cells[1:])


def _row(name: str, cells: list[str]) -> str:
    return f"| {' | '.join((name, *cells))} |"


def _where(run: Run, name: str) -> str:
    machine = run.machine
    return (
        f"`benchmarks/results/{name}`: version {run.version}, {machine.cpu}, {machine.cores} cores, {machine.python}, "
        f"{machine.file_system}, {run.at[:10]}; one core for the engine, durable before a 202, `array`, ledger off. "
        "Read the ratios: they were taken pair by pair in one run."
    )


def _speed(subject: Subject | None) -> str:
    return number(subject.events_per_second, 0) if subject else number(None, 0)


def _cost(subject: Subject | None) -> str:
    return number(subject.cpu_us_per_event, 1) if subject else number(None, 1)


def _of_floor(run: Run, n: int) -> str:
    subject, below = run.subject(f"array-{n}"), floor(run, f"sum_of_parts_{n}_cpu_us_per_event")
    cost = subject.cpu_us_per_event if subject else None
    return f"{cost / below:.1f} x" if cost and below else "-"


def _of_engine(run: Run, n: int, peer: str) -> str:
    subject, engine = run.subject(f"array-{n}", peer), run.subject(f"array-{n}")
    found = ratio(subject, engine) if subject and engine else None
    return f"{found.middle:.2f} x" if found else "-"


def _ack(subject: Subject | None) -> str:
    return _at_60(subject, "ack")


def _delivered(subject: Subject | None) -> str:
    return _at_60(subject, "delivered")


def _at_60(subject: Subject | None, name: str) -> str:
    for phase in subject.loads if subject else []:
        found = getattr(phase, name)
        if phase.share == 0.6 and found is not None:
            return f"{found.p50:.1f} / {found.p99:.1f}"
    return "-"
