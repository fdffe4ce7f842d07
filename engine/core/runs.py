"""Hourly windows with AEP's names (domain reference §2.10). Pure.

activation rate = activated / (activated + failed + excluded); a failure counts only after the last retry (U-20).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

HOUR_SECONDS = 3600
KEPT_HOURS = 48

_ACTIVATED = ("delivered", "suppressed", "superseded")
_FAILED = ("dead_lettered", "expired")


class Runs:
    """Counts per hour and destination, for the newest two days of this process."""

    def __init__(self) -> None:
        self._hours: OrderedDict[tuple[int, str], Counter[str]] = OrderedDict()

    def add(self, destination: str, counts: Mapping[str, int], at: float) -> None:
        """`counts`: events by outcome ("delivered", "excluded:no_email", …) that became durable at `at`."""
        hour = int(at) // HOUR_SECONDS
        window = self._hours.setdefault((hour, destination), Counter())
        for name, events in counts.items():
            window[name.partition(":")[0]] += events
        while next(iter(self._hours))[0] <= hour - KEPT_HOURS:
            self._hours.popitem(last=False)

    def report(self) -> list[dict[str, object]]:
        return [_window(hour, destination, counts) for (hour, destination), counts in reversed(self._hours.items())]


def _window(hour: int, destination: str, counts: Counter[str]) -> dict[str, object]:
    activated = sum(counts[name] for name in _ACTIVATED)
    failed = sum(counts[name] for name in _FAILED)
    excluded = counts["excluded"]
    judged = activated + failed + excluded
    return {
        "destination": destination,
        "started_at": float(hour * HOUR_SECONDS),
        "profiles_received": judged,
        "identities_activated": activated,
        "identities_excluded": excluded,
        "identities_failed": failed,
        "activation_rate": activated / judged if judged else None,
    }
