"""What a run of the canonical workload found, as data: what is printed, and what `--json` writes."""

from __future__ import annotations

import msgspec

from engine.bench.histogram import Histogram
from engine.bench.machine import Machine

MICRO, MILLI = 1e6, 1e3


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

    load: str  # "30 %", "60 %" of the throughput of the same cell, or the rate itself
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

    def at(self, load: str) -> Latency | None:
        return next((it for it in self.latencies if it.load == load), None)


class Peer(msgspec.Struct, frozen=True):
    """Something else that does the job, on the same machine in the same run."""

    name: str
    events_per_request: int
    events_per_second: float
    cpu_us_per_event: float | None
    ack: Quantiles


class Floors(msgspec.Struct, kw_only=True):
    """What nothing can be faster than here."""

    fdatasync: Quantiles | None = None  # 4 KiB appended
    bare_post_us: float | None = None  # CPU of a tuned aiohttp client per single-profile POST
    raw_post_us: float | None = None  # the same over a bare socket
    round_trip: Quantiles | None = None  # of one such POST at a time


class Report(msgspec.Struct, kw_only=True):
    machine: Machine
    at: str  # ISO 8601
    version: str
    settings: dict[str, float | int | str | bool] = {}
    seconds: float = 0.0
    floors: Floors = msgspec.field(default_factory=Floors)
    cells: list[Cell] = []
    peers: list[Peer] = []

    def cell(self, encoding: str, ledger: bool, events_per_request: int) -> Cell | None:
        wanted = (encoding, ledger, events_per_request)
        found = (it for it in self.cells if (it.encoding, it.ledger, it.events_per_request) == wanted)
        return next(found, None)
