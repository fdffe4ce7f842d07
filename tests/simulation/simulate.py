"""Many runs of the simulation, and one run again: `make simulate SEED=17` or `make simulate RUNS=100000`.

Prints the knobs that a run is made of before it begins. A run that breaks a promise is made smaller, and ends with the
command that plays it again. Exit code 1 when any promise was broken.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
from facts import Facts
from knobs import Knobs, smaller
from world import run

CHUNK = 25
SHRINKING_RUNS = 200

Broken = dict[int, list[str]]

SOMETIMES = (
    *("ended in mid-turn", "ended in mid-store", "ended in mid-commit", "ended in mid-settle", "stopped", "failed"),
    *("commit landed unanswered", "settle landed unanswered", "commit without room", "settle without room"),
    *("commit failed", "settle failed", "refused", "reset", "reply lost", "silence", "cut off", "landed late", "pause"),
    *("duplicate", "superseded", "suppressed", "rejected", "refused as a whole", "bisected", "given up", "garbled"),
    *("token failed", "revoked", "unauthorized", "forbidden", "breaker open", "held", "forgotten", "replayed"),
    *("edited", "forwarded", "a change was busy", "a change was taken and lost"),
    *("purged", "audited", "impatient", "sent again", "refused at the door", "disk error", "power lost: random"),
)
"""A set of runs in which one of these never happened proves less than it says."""


class Report(msgspec.Struct):
    """What came of a set of runs. `broken`: seed -> what it broke."""

    runs: int
    broken: Broken
    seen: Counter[str]

    @property
    def never_seen(self) -> list[str]:
        return [what for what in SOMETIMES if not self.seen[what]]


def simulate(seeds: Iterable[int], jobs: int, fixed: dict[str, Any] | None = None) -> Iterator[Report]:
    """One report a chunk of seeds, in their order."""
    chunks = ((chunk, fixed or {}) for chunk in _chunks(seeds))
    if jobs == 1:
        yield from map(_simulate_chunk, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_simulate_chunk, chunks)


def together(reports: Iterable[Report]) -> Report:
    whole = Report(0, {}, Counter())
    for report in reports:
        whole.runs += report.runs
        whole.broken |= report.broken
        whole.seen += report.seen
    return whole


def _chunks(seeds: Iterable[int]) -> Iterator[list[int]]:
    left = iter(seeds)
    while chunk := list(itertools.islice(left, CHUNK)):
        yield chunk


def _simulate_chunk(work: tuple[list[int], dict[str, Any]]) -> Report:
    seeds, fixed = work
    report = Report(0, {}, Counter())
    for seed in seeds:
        facts = run(Knobs.draw(seed, **fixed))
        report.runs += 1
        report.seen += facts.seen
        if facts.violations:
            report.broken[seed] = facts.violations
    return report


# -- one that failed --------------------------------------------------------------------------------------------------


def shrunk(knobs: Knobs, runs: int = SHRINKING_RUNS) -> tuple[Knobs, Facts]:
    """A simpler run that breaks the same promise: every change is kept after which it still does."""
    facts = run(knobs)
    promise = _promise(facts)
    candidates = smaller(knobs)
    while candidates and runs > 0:
        simpler = msgspec.structs.replace(knobs, **candidates.pop(0))
        found = run(simpler)
        runs -= 1
        if _promise(found) == promise:
            knobs, facts = simpler, found
            candidates = smaller(knobs)
    return knobs, facts


def _promise(facts: Facts) -> str:
    return facts.violations[0].partition(":")[0] if facts.violations else ""


def explained(seed: int, violations: list[str], fixed: dict[str, Any] | None = None) -> str:
    """What a broken run says: the promise, the command, and the smaller run that breaks it too.

    SQLite draws the numbers in its own files by itself: what depends on them may need the command several times."""
    knobs = Knobs.draw(seed, **(fixed or {}))
    small, facts = shrunk(knobs)
    lines = [f"seed {seed}: {violations[0]}", f"  again:   {command(knobs)}"]
    lines.append(f"  smaller: {command(small)}" if facts.violations else "  (not when it was played again)")
    return "\n".join([*lines, *(f"           {violation}" for violation in facts.violations[:5])])


def command(knobs: Knobs) -> str:
    changes = knobs.changes(Knobs.draw(knobs.seed))
    with_knobs = f" KNOBS='{' '.join(f'{name}={value}' for name, value in changes.items())}'" if changes else ""
    return f"make simulate SEED={knobs.seed}{with_knobs}"


def knobs_of(text: str) -> dict[str, Any]:
    """'lives=1 poison=0.0' as knobs. Raises SystemExit for one that there is not."""
    types = {field.name: field.type for field in msgspec.structs.fields(Knobs)}
    given = dict(pair.partition("=")[::2] for pair in text.split())
    if unknown := given.keys() - types.keys():
        raise SystemExit(f"no such knob: {min(unknown)}; there are {', '.join(types)}")
    return {name: msgspec.convert(value, types[name], strict=False) for name, value in given.items()}


# -- the command ------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="one run, in detail")
    parser.add_argument("--runs", type=int, default=1_000, help="so many runs")
    parser.add_argument("--first", type=int, default=0, help="the first seed of many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--knobs", default="", help="'lives=1 poison=0.0': instead of what is drawn")
    options = parser.parse_args()
    fixed = knobs_of(options.knobs)
    return _one(options.seed, fixed) if options.seed is not None else _many(options, fixed)


def _one(seed: int, fixed: dict[str, Any]) -> int:
    knobs = Knobs.draw(seed, **fixed)
    print(knobs, flush=True)  # noqa: T201
    facts = run(knobs)
    print(" ".join(f"{what!r}: {times}," for what, times in sorted(facts.seen.items()) if times))  # noqa: T201
    print(explained(seed, facts.violations, fixed) if facts.violations else "every promise was kept")  # noqa: T201
    return 1 if facts.violations else 0


def _many(options: argparse.Namespace, fixed: dict[str, Any]) -> int:
    print(f"seeds {options.first} to {options.first + options.runs - 1}, {options.jobs} at a time", flush=True)  # noqa: T201
    began, whole = time.monotonic(), Report(0, {}, Counter())
    for report in simulate(range(options.first, options.first + options.runs), options.jobs, fixed):
        whole = together([whole, report])
        for seed, violations in report.broken.items():
            print(explained(seed, violations, fixed), flush=True)  # noqa: T201
        if whole.runs % (CHUNK * 40) == 0:
            print(f"{whole.runs} runs, {len(whole.broken)} broken", file=sys.stderr, flush=True)  # noqa: T201
    seconds = time.monotonic() - began
    print(f"{whole.runs} runs in {seconds:.0f} s ({whole.runs / seconds:.0f} a second): {len(whole.broken)} broken")  # noqa: T201
    print("seen: " + ", ".join(f"{what} {times}" for what, times in whole.seen.most_common() if times))  # noqa: T201
    if whole.never_seen:
        print("never seen: " + ", ".join(whole.never_seen))  # noqa: T201
    return 1 if whole.broken else 0


if __name__ == "__main__":
    sys.exit(main())
