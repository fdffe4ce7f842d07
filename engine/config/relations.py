"""Relations that several tables have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.config.kinds import Table
from engine.config.problems import Reader, did_you_mean
from engine.errors import ConfigError


def check_secret(table: Table, path: str, places: tuple[str, ...], read: Callable[[], object], reader: Reader) -> None:
    try:
        read()
    except ConfigError as error:
        place = next((it for it in places if getattr(table, it)), places[1])
        reader.report(f"{path}.{place}", f"{error}; set it, or name another place with {places[1]} or {places[2]}")


def check_reference(name: str, key: str, kind: str, tables: tuple[Any, ...], reader: Reader) -> None:
    names = [it.name for it in tables]
    if name and name not in names:
        advice = did_you_mean(name, names) or f"there are {', '.join(dict.fromkeys(names))}"
        about = [f"{kind}[{index}].name" for index in range(len(tables))]
        reader.report(key, f"there is no [[{kind}]] named {name!r}; {advice}", about)
