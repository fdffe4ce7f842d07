"""Fill an engine with events as fast as it takes them, for benchmarks that look at a backlog."""

from __future__ import annotations

import secrets

from benchmarks.processes import Failed
from engine.bench.events import Workload
from engine.bench.load import Load
from engine.bench.wire import Site

EVENTS_PER_REQUEST = 500
CONNECTIONS = 4
SECONDS = 600.0


def workload(events_per_request: int = EVENTS_PER_REQUEST) -> Workload:
    """People that no engine has met before."""
    return Workload(f"f{secrets.token_hex(6)}", events_per_request)


async def feed(url: str, events: int) -> int:
    """Hand in `events`, rounded up to whole requests; returns how many. Raises Failed unless all are accepted."""
    people = workload(min(events, EVENTS_PER_REQUEST))
    n = people.events_per_request
    requests = -(-events // n)
    site = Site.of(url, "/v1/profiles")
    load = Load(site, people.body, n, connections=CONNECTIONS, seconds=SECONDS, requests=requests)
    result = await load.run()
    if result.accepted_events != requests * n:
        raise Failed(f"of {requests:,} requests {result.refused:,} were refused and {result.failed:,} failed")
    return result.accepted_events
