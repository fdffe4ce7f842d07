"""Which failed attempts count against a profile, and which an outage explains (DESIGN §4, Whose fault).

An attempt counts while others succeed. When the breaker opens, those since the last success are given back: the
destination is down, or so it seems. Its probes go with profiles that never failed, as long as there are any, and they
tell: if the first of them succeeds, the destination was well all the time and what had failed did so on its own
account, so its attempts count after all. If one of them fails too, or what had failed succeeds, there was an outage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from engine.core.coalescer import Coalescer
from engine.model import Profile


class Blame:
    """Of one destination. `tries` of the profiles handed in are those before the attempt that is spoken of."""

    def __init__(self, coalescer: Coalescer) -> None:
        self._coalescer = coalescer
        self._recent: list[bytes] = []  # whose attempts failed since the last success
        self._given_back: Counter[bytes] = Counter()  # … and since the breaker opened
        self._outage = False

    def failed(self, key: bytes) -> None:
        """An attempt that counts, for now."""
        self._recent.append(key)

    def succeeded(self) -> None:
        """Some attempt did: what has failed until now counts for good."""
        self._recent.clear()

    def opened(self) -> None:
        """The breaker is not closed: an outage explains what has failed since the last success."""
        self._add(Counter(self._recent), -1)
        if not self._outage:
            self._given_back.update(self._recent)
        self._recent.clear()

    def probe_failed(self, profiles: Iterable[Profile]) -> None:
        if not all(profile.tries for profile in profiles):
            self._outage = True
            self._given_back.clear()

    def closed(self, profiles: Iterable[Profile]) -> bool:
        """These succeeded, and that closed the breaker. Was there an outage?"""
        outage = self._outage or any(profile.tries for profile in profiles)
        if not outage:
            self._add(self._given_back, +1)
        self._given_back.clear()
        self._outage = False
        return outage

    def _add(self, attempts: Counter[bytes], sign: int) -> None:
        for key, times in attempts.items():
            for profile in self._coalescer.find(key):
                if profile is not None and profile.tries:
                    profile.attempts = max(0, profile.attempts + sign * times)
