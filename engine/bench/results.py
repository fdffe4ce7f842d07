"""What a bench of a running engine found, as data: what is printed, and what `--json` writes."""

from __future__ import annotations

import msgspec

from engine.bench.histogram import Histogram

MILLI = 1e3


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p99: float
    longest: float
    count: int

    @classmethod
    def of(cls, seconds: Histogram) -> Quantiles:
        return cls.of_seconds(seconds.quantile(0.5), seconds.quantile(0.99), seconds.longest_seconds, seconds.count)

    @classmethod
    def of_seconds(cls, p50: float, p99: float, longest: float, count: int) -> Quantiles:
        return cls(round(p50 * MILLI, 3), round(p99 * MILLI, 3), round(longest * MILLI, 3), count)


class Latency(msgspec.Struct, frozen=True):
    """One open-loop phase. Both latencies run from the moment the request was due.

    `delivered` is None where nothing was delivered or nobody could be asked.
    """

    load: str  # the rate, or "closed loop"
    events_per_second: float
    ack: Quantiles
    delivered: Quantiles | None = None
    late: int = 0  # requests that were refused, failed or never sent


class Cell(msgspec.Struct, kw_only=True):
    """One combination of encoding, ledger and events per request, measured end to end."""

    encoding: str
    ledger: bool | None  # None: the engine was not asked
    events_per_request: int
    events: int
    seconds: float
    events_per_second: float
    cpu_us_per_event: float | None  # of the engine's process tree, until every event has its outcome
    ack: Quantiles  # in the closed loop
    refused: int = 0
    failed: int = 0
    peak_memory_bytes: int = 0
    latencies: list[Latency] = []
