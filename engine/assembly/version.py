"""Which version this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def engine_version() -> str:
    try:
        return version("rainfocus-engine")
    except PackageNotFoundError:
        return "0.0.0"
