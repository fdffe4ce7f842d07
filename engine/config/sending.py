"""The tables that everything has that sends: how fast, and how often again."""

from __future__ import annotations

from engine.config.kinds import Count, Seconds, SecondsOrZero, Table


class RateConfig(Table, frozen=True, kw_only=True):
    requests_per_second: Seconds = 10.0
    burst: Count = 2
    max_concurrency: Count = 4
    adaptive: bool = True


class RetryConfig(Table, frozen=True, kw_only=True):
    max_attempts: Count = 12
    max_age_seconds: SecondsOrZero = 0.0
    base_ms: Count = 500
    cap_ms: Count = 60_000
    timeout_seconds: Seconds = 10.0
    unknown_hold_seconds: SecondsOrZero = 2.0
