"""Relations that several tables have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from engine.config.kinds import Table
from engine.config.problems import Reader, did_you_mean
from engine.config.sending import RateConfig, RetryConfig
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


def check_rate(rate: RateConfig, key: str, reader: Reader) -> None:
    least = max(2, math.ceil(rate.requests_per_second / 100))
    if rate.burst < least:
        what = f"{rate.burst} is too small to keep the rate; it takes 2 or a hundredth of requests_per_second"
        reader.report(f"{key}.rate.burst", f"{what}, here {least}", [f"{key}.rate.requests_per_second"])


def check_retry(retry: RetryConfig, key: str, drain_timeout_seconds: float, reader: Reader) -> None:
    if retry.base_ms > retry.cap_ms:
        what = f"{retry.base_ms} is more than cap_ms ({retry.cap_ms}); the first wait cannot be longer than the longest"
        reader.report(f"{key}.retry.base_ms", what, [f"{key}.retry.cap_ms"])
    if retry.timeout_seconds >= drain_timeout_seconds:
        what = f"{retry.timeout_seconds:g} is not below engine.drain_timeout_seconds ({drain_timeout_seconds:g})"
        hint = "a stop would cut requests off, so raise that or lower this"
        reader.report(f"{key}.retry.timeout_seconds", f"{what}; {hint}", ["engine.drain_timeout_seconds"])
