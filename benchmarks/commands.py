"""The command line of ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from benchmarks.bench import QUICK, Options


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Speed, cost and latency, beside floors and peers: docs/benchmarks.md."
    )
    commands = arguments.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all scenarios")
    _run(commands.add_parser("run", help="measure scenarios"))
    _compare(commands.add_parser("compare", help="two variants of the engine in turns: A B A B"))
    _check(commands.add_parser("check", help="this checkout against another commit, in turns; exit 1 when slower"))
    _soak(commands.add_parser("soak", help="load with faults for long; exit 1 when something grows"))
    _report(commands.add_parser("report", help="an HTML page from a result"))
    _figures(commands.add_parser("figures", help="the figures of README.md and docs/performance.md from results"))
    return arguments


def options_of(given: argparse.Namespace) -> Options:
    base = QUICK if given.quick else Options()
    chosen = {name: getattr(given, name) for name in ("seconds", "repeats", "size") if getattr(given, name) is not None}
    return msgspec.structs.replace(base, **chosen, peers=not given.no_peers, directory=given.dir)


def _common(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("names", nargs="*", metavar="NAME", help="of scenarios, or patterns such as 'array-*'")
    add(
        "--quick",
        action="store_true",
        help="phases of 0.8 s, once, no names: a minute's worth; no figure worth keeping",
    )
    add("--seconds", type=float, metavar="N", help=f"of each phase ({Options().seconds:g})")
    add("--repeats", type=int, metavar="N", help=f"phases at saturation ({Options().repeats})")
    add("--size", type=int, metavar="N", help="of scenarios that have one: events, profiles, destinations")
    add(
        "--cores",
        type=int,
        default=1,
        metavar="N",
        help="cores of its own for the system under test (1; 0: no pinning)",
    )
    add("--no-peers", action="store_true", help="the engine alone")
    add("--dir", metavar="PATH", help="where the data goes; choose a real disk (default: the temporary folder)")
    add("--json", metavar="FILE", type=Path, help="write the result there as well")
    add("--html", metavar="FILE", type=Path, help="write a report there as well")


def _run(command: argparse.ArgumentParser) -> None:
    _common(command)
    command.add_argument("--all", action="store_true", help="every scenario; without it and names: the short ones")
    command.add_argument(
        "--variant", action="append", default=[], metavar="FRAGMENT", help="TABLE.KEY=VALUE for the engine; repeatable"
    )


def _compare(command: argparse.ArgumentParser) -> None:
    _common(command)
    add = command.add_argument
    add("--a", action="append", default=[], metavar="FRAGMENT", help="TABLE.KEY=VALUE of the first; repeatable")
    add("--b", action="append", default=[], metavar="FRAGMENT", help="of the second")


def _check(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", metavar="BASE", help="the commit to compare with")
    _common(command)


def _soak(command: argparse.ArgumentParser) -> None:
    _common(command)
    command.add_argument("--for", dest="soak_seconds", type=float, default=1_800.0, metavar="SECONDS", help="(1800)")
    command.add_argument(
        "--variant", action="append", default=[], metavar="FRAGMENT", help="TABLE.KEY=VALUE; repeatable"
    )


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path)
    command.add_argument("--html", type=Path, required=True, metavar="FILE")


def _figures(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", type=Path, nargs="*", help="results; the first that has a scenario counts (all kept)")
