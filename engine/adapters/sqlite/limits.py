"""How much the state file keeps of what is over."""

from __future__ import annotations

import msgspec


class LedgerLimits(msgspec.Struct, frozen=True):
    enabled: bool = True
    retention_days: int = 90
    max_keys: int = 5_000_000


class LetterLimits(msgspec.Struct, frozen=True):
    retention_days: int = 90
    max_count: int = 1_000_000


class RunLimits(msgspec.Struct, frozen=True):
    retention_days: int = 30
    max_audiences: int = 250  # per destination and hour; AEP's soft limit
