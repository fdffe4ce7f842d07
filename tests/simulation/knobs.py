"""Everything that a simulated run may vary, drawn from its seed: limits, latencies, faults, what people do."""

from __future__ import annotations

import random
from typing import Any

import msgspec


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """Chances are per request, record, life or commit; durations in seconds. See `world` for who uses them."""

    seed: int
    # -- how much happens
    lives: int
    life_seconds: float  # at most
    requests: int  # a producer and life
    events: int  # a request, at most
    producers: int
    people: int  # a producer
    pause_seconds: float  # between two requests of a producer, on average
    # -- limits of the engine
    rate: float
    burst: int
    concurrency: int
    buffer_profiles: int
    batch_profiles: int
    linger_ms: int
    journal_bytes: int
    max_letters: int
    max_attempts: int
    timeout_seconds: float
    hold_seconds: float
    base_ms: int
    suppress: bool
    ledger: bool
    transport: str  # "aiohttp", "raw"
    # -- the disk
    commit_seconds: float
    settle_seconds: float
    reclaim_seconds: float
    lost_answers: float  # a commit that was cut off is on disk all the same
    no_space: float
    failing_disk: float  # the commit or settling transaction fails, and with it the disk
    # -- the attendee store
    connect_seconds: float
    way_seconds: float
    refused: float
    closed: float  # the connection breaks while its permit is waited for
    reset_before: float
    reset_after: float
    silence: float  # no answer until the time-out
    late: float  # a request that was cut off arrives later
    busy: float
    throttled: float
    retry_after: str  # "seconds", "date", "none"
    half_reply: float
    garbled: float
    forbidden: float
    poison: float  # a record is refused, whenever it is sent
    tells_results: bool  # of a list, which record was refused
    strictness: float  # its own limit, as a part of the engine's; 0: none
    # -- tokens
    token_seconds: float
    token_way_seconds: float
    revoked: float
    token_fails: float
    # -- people
    backfill: float
    repeats: float  # events that say again what was said before
    impatience: float
    forgets: float
    replays: float
    purges: float
    pauses: float
    audits: float
    edits: float  # a person who repeats is edited at RainFocus itself, which reports it
    unheard: float  # whoever is told of that does not take it, or its answer is lost
    # -- the end of a life
    stops: float  # it is stopped instead of killed
    moment: str  # "turn", "time", "store", "commit", "settle"
    storage: str  # "memory": commits are whole or not there; "files": real ones, byte by byte
    files: str  # which: "sqlite", "segments"

    @classmethod
    def draw(cls, seed: int, **fixed: Any) -> Knobs:
        source = random.Random(f"knobs {seed}")
        transport = random.Random(f"transport {seed}").choice(["raw", "raw", "aiohttp"])
        return cls(seed=seed, **{"transport": transport, **_drawn(source), **fixed})

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.changes(None).items())

    def changes(self, other: Knobs | None) -> dict[str, Any]:
        """What differs from the other's; all of it without another."""
        mine = msgspec.structs.asdict(self)
        theirs = msgspec.structs.asdict(other) if other is not None else {}
        return {name: value for name, value in mine.items() if name not in theirs or theirs[name] != value}


def _drawn(source: random.Random) -> dict[str, Any]:
    choose, sometimes = source.choice, _Sometimes(source)
    rate = choose([20.0, 100.0, 100.0, 500.0])
    return {
        "lives": choose([1, 1, 2, 2, 3]),
        "life_seconds": choose([0.05, 0.5, 2.0, 5.0]),
        "requests": choose([2, 4, 8, 14]),
        "events": choose([1, 5, 12, 30]),
        "producers": choose([1, 1, 2]),
        "people": choose([1, 3, 15, 60]),
        "pause_seconds": choose([0.001, 0.01, 0.05, 0.2]),
        "rate": rate,
        "burst": int(max(2, rate / 100)) * choose([1, 2]),
        "concurrency": choose([1, 3, 16]),
        "buffer_profiles": choose([12, 80, 2_000, 2_000]),
        "batch_profiles": choose([3, 20, 100]),
        "linger_ms": choose([0, 20, 200]),
        "journal_bytes": choose([4_000, 1 << 30, 1 << 30, 1 << 30]),
        "max_letters": choose([2, 1_000, 1_000]),
        "max_attempts": choose([2, 1_000, 1_000]),
        "timeout_seconds": choose([0.3, 2.0]),
        "hold_seconds": choose([0.5, 2.0]),
        "base_ms": choose([20, 200]),
        "suppress": choose([True, True, False]),
        "ledger": choose([True, True, True, False]),
        "commit_seconds": choose([0.0, 0.002, 0.002, 0.3]),
        "settle_seconds": choose([0.0, 0.002, 0.002, 0.3]),
        "reclaim_seconds": choose([0.0, 0.5]),
        "lost_answers": choose([0.0, 0.5, 1.0]),
        "no_space": sometimes(0.2, 0.1),
        "failing_disk": sometimes(0.2, 0.1),
        "connect_seconds": choose([0.0, 0.01, 0.05]),
        "way_seconds": choose([0.001, 0.02, 0.1]),
        "refused": sometimes(0.3, 0.2),
        "closed": sometimes(0.3, 0.2),
        "reset_before": sometimes(0.4, 0.2),
        "reset_after": sometimes(0.4, 0.2),
        "silence": sometimes(0.3, 0.1),
        "late": choose([0.0, 0.5, 0.9]),
        "busy": sometimes(0.3, 0.2),
        "throttled": sometimes(0.3, 0.1),
        "retry_after": choose(["seconds", "date", "none"]),
        "half_reply": sometimes(0.2, 0.1),
        "garbled": sometimes(0.1, 0.1),
        "forbidden": sometimes(0.1, 0.1),
        "poison": sometimes(0.3, 0.2),
        "tells_results": choose([True, False]),
        "strictness": choose([0.0, 0.0, 0.0, 0.5]),
        "token_seconds": choose([2.0, 3_600.0, 3_600.0]),
        "token_way_seconds": choose([0.0, 0.1]),
        "revoked": sometimes(0.2, 0.1),
        "token_fails": sometimes(0.3, 0.5),
        "backfill": choose([0.0, 0.0, 0.4]),
        "repeats": choose([0.0, 0.3]),
        "impatience": sometimes(0.3, 0.3),
        "forgets": sometimes(0.3, 0.2),
        "replays": sometimes(0.5, 0.3),
        "purges": sometimes(0.1, 0.1),
        "pauses": sometimes(0.2, 0.2),
        "audits": sometimes(0.3, 0.2),
        "stops": choose([0.0, 0.0, 0.5, 1.0]),
        "moment": choose(["turn", "turn", "time", "store", "commit", "settle"]),
        "storage": choose(["memory"] * 5 + ["files"]),
        "edits": sometimes(0.3, 0.5),
        "unheard": sometimes(0.7, 0.5),
        "files": choose(["sqlite", "segments"]),
    }


class _Sometimes:
    """0 in most runs, so that faults also meet alone."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def __call__(self, share_of_runs: float, chance: float) -> float:
        return chance * self._source.choice([0.3, 1.0]) if self._source.random() < share_of_runs else 0.0


CALM: dict[str, Any] = {
    "no_space": 0.0,
    "failing_disk": 0.0,
    "lost_answers": 0.0,
    "refused": 0.0,
    "closed": 0.0,
    "reset_before": 0.0,
    "reset_after": 0.0,
    "silence": 0.0,
    "late": 0.0,
    "busy": 0.0,
    "throttled": 0.0,
    "half_reply": 0.0,
    "garbled": 0.0,
    "forbidden": 0.0,
    "poison": 0.0,
    "strictness": 0.0,
    "revoked": 0.0,
    "token_fails": 0.0,
    "impatience": 0.0,
    "forgets": 0.0,
    "replays": 0.0,
    "purges": 0.0,
    "pauses": 0.0,
    "audits": 0.0,
    "edits": 0.0,
    "unheard": 0.0,
    "repeats": 0.0,
    "backfill": 0.0,
    "reclaim_seconds": 0.0,
    "max_attempts": 1_000,
    "max_letters": 1_000,
    "journal_bytes": 1 << 30,
    "buffer_profiles": 2_000,
    "token_seconds": 3_600.0,
    "storage": "memory",
    "files": "sqlite",
}
"""What each knob is where nothing is the matter: what shrinking a failing run tries, one after the other."""


def smaller(knobs: Knobs) -> list[dict[str, Any]]:
    """Changes that make a run simpler: less of everything, then one trouble less."""
    sizes = ("lives", "requests", "events", "producers", "people")
    less = [
        {name: size} for name in sizes for size in (1, getattr(knobs, name) // 2) if 0 < size < getattr(knobs, name)
    ]
    return less + [{name: calm} for name, calm in CALM.items() if getattr(knobs, name) != calm]
