"""An engine to be measured: which checkout, and what its configuration says other than the usual.

A fragment is ``journal.kind=segments`` (a TOML value; a bare word is a string) or an option of ``serve``, such as
``--workers=2``. An array of tables takes it in every element: ``account.transport=raw``.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.processes import ROOT

Config = dict[str, Any]


class BadFragment(Exception):
    """A fragment that says nothing; its text names it and how to write one."""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "engine"
    fragments: tuple[str, ...] = ()
    root: Path = ROOT
    python: str = sys.executable

    @property
    def options(self) -> list[str]:
        """For `serve`."""
        return [part for it in self.fragments if it.startswith("--") for part in it.split("=", 1)]

    def config(self, base: Config) -> Config:
        """`base` with the fragments in it. Raises BadFragment."""
        changed = deepcopy(base)
        for fragment in self.fragments:
            if not fragment.startswith("--"):
                path, value = parsed(fragment)
                _put(changed, path, value)
        return changed


def parsed(fragment: str) -> tuple[list[str], Any]:
    name, equals, text = fragment.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise BadFragment(f"{fragment!r} is no fragment; write TABLE.KEY=VALUE, such as journal.kind=memory")
    try:
        return path, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return path, text.strip()


def _put(table: Config, path: Sequence[str], value: Any) -> None:
    if len(path) == 1:
        table[path[0]] = value
        return
    below = table.setdefault(path[0], {})
    for one in below if isinstance(below, list) else [below]:
        _put(one, path[1:], value)


def engine_config(
    sink: str,
    *,
    encoding: str = "array",
    ledger: bool = False,
    rate: float = 50_000.0,
    burst: int = 500,
    concurrency: int = 32,
    batch: int = 100,
    linger_ms: int = 20,
) -> Config:
    """One destination at the sink, and a limit of `rate` requests a second, which by default is none to speak of."""
    limit = {"requests_per_second": rate, "burst": burst, "max_concurrency": concurrency}
    where = {"name": "bench", "environment": "sandbox", "base_url": sink, "rate": limit}
    batches = {"max_profiles": batch, "linger_ms": linger_ms}
    return {
        "ingress": {"port": 0},
        "journal": {"max_bytes": 20_000_000_000},
        "ledger": {"enabled": ledger},
        "account": [where],
        "destination": [{"name": "bench", "event_code": "bench", "encoding": encoding, "batch": batches}],
        "log": {"level": "warning", "format": "console"},
    }


def toml(config: Mapping[str, Any]) -> str:
    """Of tables, arrays of tables and plain values, which is all that these configurations hold."""
    return "\n".join(_lines(config, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {name: it for name, it in table.items() if not _is_table(it)}
    lines = [f"{name} = {_value(it)}" for name, it in plain.items()]
    for name, below in table.items():
        if not _is_table(below):
            continue
        whole = (*path, name)
        brackets = "[[{}]]" if isinstance(below, list) else "[{}]"
        for one in below if isinstance(below, list) else [below]:
            lines += ["", brackets.format(".".join(whole)), *_lines(one, whole)]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # the same as TOML for strings, numbers, booleans and lists
