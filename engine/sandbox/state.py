"""One sandbox: everything it knows, and what may be done to it from outside."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from engine.sandbox.attendees import AttendeeStore
from engine.sandbox.delivery import StaleConnections
from engine.sandbox.faults import Fault, FaultBook
from engine.sandbox.push import Pusher
from engine.sandbox.rates import Arrivals, TokenBucket
from engine.sandbox.request_log import RequestLog
from engine.sandbox.settings import Clock, Settings
from engine.sandbox.tokens import Tokens


class Sandbox:
    """`store` holds the attendees, `requests` is the API log (newest first), `url` is set once it listens.

    :raises ValueError: when the faults file is none.
    :raises OSError: when it cannot be read.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        seed = secrets.randbits(64) if settings.seed is None else settings.seed
        self.settings = settings
        self.clock = clock
        self.url = ""
        self.started_at = clock.time()
        self.store = AttendeeStore(random.Random(f"{seed}/ids"))
        self.tokens = Tokens(random.Random(f"{seed}/tokens"), settings.token_seconds)
        self.bucket = TokenBucket(settings.requests_per_second, settings.burst)
        self.arrivals = Arrivals(settings.arrivals_size)
        self.requests = RequestLog(settings.log_size)
        self.stale = StaleConnections()
        self.push = Pusher(settings, clock)
        self.faults = FaultBook(seed)
        self.faults.set(settings.all_faults(), clock.monotonic())

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Put these in the place of all faults in force; none clears them."""
        self.faults.set(faults, self.clock.monotonic())

    def revoke_tokens(self) -> int:
        """Every client has to fetch a new token; returns how many tokens there were."""
        return self.tokens.revoke_all()

    def reset(self) -> None:
        """Forget attendees, API log and measured rate. Faults and tokens stay."""
        self.store.clear()
        self.requests.clear()
        self.arrivals.clear()

    def stats(self) -> dict[str, Any]:
        requests, store = self.requests, self.store
        return {
            "uptime_seconds": self.clock.time() - self.started_at,
            "requests": requests.total,
            "store_requests": self.arrivals.total,
            "by_status": {str(status): count for status, count in sorted(requests.by_status.items())},
            "by_code": dict(sorted(requests.by_code.items())),
            "by_fault": dict(sorted(requests.by_fault.items())),
            "attendees": len(store),
            "created": store.created,
            "updated": store.updated,
            "regressions": store.regressions,
            "pushed": dict(sorted(self.push.pushed.items())),
            "tokens_issued": self.tokens.issued,
            "tokens_revoked": self.tokens.revoked,
        }


SANDBOX: web.AppKey[Sandbox] = web.AppKey("sandbox", Sandbox)
