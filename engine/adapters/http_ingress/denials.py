"""Calls that were denied: each one counted, and as many logged as somebody can read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from engine.adapters.http_ingress.problems import Problem
from engine.core.allowance import Allowance
from engine.metrics import Metrics

LINES_AT_ONCE, LINE_EVERY_SECONDS = 20, 3.0
"""Of the log, for each reason: a flood of one kind hides no other kind."""

REASONS = (
    *("no_key", "unknown_key", "expired_token", "scope", "source", "destination"),
    *("not_local", "from_a_page", "client_secret", "client_scope"),
)

logger = logging.getLogger("engine.access")


class Denied(Problem):
    """Not for this caller. `reason`: one of REASONS. `caller`: its name, where it is known."""

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        type: str = "forbidden",
        caller: str = "",
        scope: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(type, detail, headers=headers)
        self.reason, self.caller, self.scope = reason, caller, scope


class Denials:
    """`clock`: seconds, monotonic."""

    def __init__(self, metrics: Metrics | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._lines: dict[str, Allowance] = {}
        self._unlogged: dict[str, int] = {}

    def note(self, reason: str, operation: str, peer: str, *, caller: str = "", scope: str = "") -> None:
        """Who was denied what, from where; never with what: a wrong key may be one typing error from a right one."""
        if self._metrics is not None:
            self._metrics.denied[reason] += 1
        if not self._may_log(reason):
            self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
            return
        found = {"reason": reason, "operation": operation, "peer": peer, "caller": caller, "scope": scope}
        more = {"denied_unlogged": self._unlogged.pop(reason, 0)}
        logger.warning("a request was denied", extra={name: it for name, it in {**found, **more}.items() if it})

    def _may_log(self, reason: str) -> bool:
        now = self._clock()
        if reason not in self._lines:
            self._lines[reason] = Allowance(LINES_AT_ONCE, LINE_EVERY_SECONDS, now)
        return self._lines[reason].take(now) == 0.0
