"""``python -m benchmarks``: list, run, compare, check, soak, sizing, report, figures."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Callable, Sequence

from benchmarks import check, figures, html, soak
from benchmarks.commands import options_of, parser
from benchmarks.console import show
from benchmarks.processes import Failed, run_async
from benchmarks.result import Run, read, write
from benchmarks.scenarios.registry import Scenario, scenarios, sized
from benchmarks.session import run
from benchmarks.variant import BadFragment, Variant
from engine.bench.report import console, plain_table

QUICK_NAMES = ("floors", "array-*0", "array-1", "single-100")


def chosen(names: Sequence[str], *, everything: bool = False) -> list[Scenario]:
    """Raises Failed for a name that fits nothing."""
    known = scenarios()
    if not names:
        return [it for it in known.values() if everything or it.short]
    found: dict[str, Scenario] = {}
    for name in names:
        fitting = fnmatch.filter(known, name)
        if not fitting:
            raise Failed(f"there is no scenario {name!r}; `python -m benchmarks list` shows all")
        found |= {it: known[it] for it in fitting}
    return list(found.values())


def _list(given: argparse.Namespace) -> int:
    rows = [(it.name, "yes" if it.short else "", f"{it.seconds} s", it.what) for it in scenarios().values()]
    console().print(plain_table("Scenarios", ("name", "make bench", "takes about", "what"), rows))
    return 0


def _run(given: argparse.Namespace) -> int:
    variant = Variant(fragments=tuple(given.variant))
    variant.config({})  # says what is wrong with a fragment before anything starts
    quick = given.quick and not given.names and not given.all
    wanted = sized(chosen(QUICK_NAMES if quick else given.names, everything=given.all), given.size or 0)
    found = run_async(run(wanted, [variant], options_of(given), system_cores=given.cores))
    return keep(found, given)


def _compare(given: argparse.Namespace) -> int:
    variants = [Variant(name=name, fragments=tuple(it)) for name, it in (("a", given.a), ("b", given.b))]
    for variant in variants:
        variant.config({})
    wanted = sized(chosen(given.names or check.NAMES), given.size or 0)
    found = run_async(check.compare(wanted, variants, options_of(given), given.cores))
    return keep(found, given)


def _check(given: argparse.Namespace) -> int:
    wanted = sized(chosen(given.names or check.NAMES), given.size or 0)
    found = check.against(given.base, wanted, options_of(given), given.cores)
    keep(found, given)
    return check.verdict(found)


def _soak(given: argparse.Namespace) -> int:
    variant = Variant(fragments=tuple(given.variant))
    found = run_async(soak.soak(variant, options_of(given), given.soak_seconds, given.cores))
    keep(found, given)
    return soak.verdict(found)


def _report(given: argparse.Namespace) -> int:
    given.html.write_text(html.page(read(given.file)), encoding="utf-8")
    return 0


def _figures(given: argparse.Namespace) -> int:
    figures.update(figures.results(given.files))
    return 0


def keep(found: Run, given: argparse.Namespace) -> int:
    show(found)
    if given.json:
        write(found, given.json)
    if given.html:
        given.html.write_text(html.page(found), encoding="utf-8")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "run": _run,
    "compare": _compare,
    "check": _check,
    "soak": _soak,
    "report": _report,
    "figures": _figures,
}


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["sizing"]:
        arguments = ["run", *arguments]
    whole = arguments if arguments and not arguments[0].startswith("--") else ["run", *arguments]
    given = parser().parse_args(arguments if arguments[:1] in (["-h"], ["--help"]) else whole)
    try:
        return COMMANDS[given.command](given)
    except (Failed, BadFragment, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
