"""`[runs]`: how much is kept of the hourly runs."""

from __future__ import annotations

from engine.config.kinds import Count, Table
from engine.config.problems import Reader

MOST_AUDIENCES = 1_000
"""More would make one page of an hour's audiences too long."""


class RunsConfig(Table, frozen=True, kw_only=True):
    retention_days: Count = 30
    max_audiences: Count = 250


def check_runs(runs: RunsConfig, reader: Reader) -> None:
    if runs.max_audiences > MOST_AUDIENCES:
        reader.report("runs.max_audiences", f"must be at most {MOST_AUDIENCES}; the others are counted as one")
