"""``python -m benchmarks``: the canonical workload."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from benchmarks.canonical import QUICK, Options, run
from benchmarks.processes import Failed, run_async
from engine.bench.report import console, show


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The canonical workload: speed, cost and latency, beside floors and peers.",
    )
    add = arguments.add_argument
    add("--quick", action="store_true", help="every part once, in under 40 seconds; no figure worth keeping")
    add("--json", metavar="FILE", type=Path, help="write the report there as well")
    add("--dir", metavar="PATH", help="where the data goes; choose a real disk (default: the temporary folder)")
    return arguments


def main() -> int:
    options = parser().parse_args()
    chosen = msgspec.structs.replace(QUICK if options.quick else Options(), directory=options.dir)
    try:
        report = run_async(run(chosen))
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    show(report, console())
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
