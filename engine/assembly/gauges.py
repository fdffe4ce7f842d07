"""What is asked for at every scrape rather than counted along the way (names: DESIGN §6.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from engine.core.codes import by_code
from engine.dispatcher import Account, Consumer
from engine.metrics import Metrics
from engine.ports import Clock

if TYPE_CHECKING:
    from engine.assembly.build import Parts

BREAKER_STATES = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


LAG_SECONDS = 0.5


class LoopLag:
    """How late the event loop is: what everybody in this process waits on top."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self.seconds = 0.0
        metrics.gauge("engine_event_loop_lag_seconds", "How late the event loop was last.", lambda: self.seconds)

    async def run(self) -> None:
        while True:
            started = self._clock.monotonic()
            await anyio.sleep(LAG_SECONDS)
            self.seconds = max(0.0, self._clock.monotonic() - started - LAG_SECONDS)


def register_gauges(metrics: Metrics, parts: Parts) -> None:
    """Nothing is read here; every gauge is asked at the scrape."""
    metrics.coded = by_code
    journal = parts.journal
    metrics.gauge("engine_journal_bytes", "Live pages plus WAL.", lambda: float(journal.size().bytes))
    metrics.gauge("engine_journal_max_bytes", "The journal's limit.", lambda: float(journal.size().max_bytes))
    metrics.gauge("engine_build_info", "Always 1; the version is a label.", lambda: 1.0, {"version": parts.version})
    for consumer in parts.consumers:
        _of_consumer(metrics, consumer, lambda: parts.pipeline.commit.next_offset, parts.clock.time)
    for one in parts.pipeline.watchdog.watched:
        labels = {"stage": one.stage, "destination": one.destination}
        metrics.gauge("engine_progress_stalled", "1 while stuck.", lambda one=one: float(one.progress.stalled), labels)  # type: ignore[misc]
    for account in parts.accounts:
        _of_account(metrics, account)


def _of_consumer(metrics: Metrics, consumer: Consumer, following: Callable[[], int], now: Callable[[], float]) -> None:
    def gauge(name: str, help: str, read: Callable[[], float]) -> None:
        metrics.gauge(name, help, read, {"destination": consumer.name})

    gauge("engine_events_pending", "Events without an outcome yet.", lambda: float(consumer.pending(following())))
    gauge("engine_conservation_residual", "Events unaccounted for.", lambda: float(consumer.residual(following())))
    gauge("engine_profiles_waiting", "Profiles in memory, to be sent.", lambda: float(consumer.coalescer.waiting))
    gauge("engine_profiles_leased", "Profiles in a batch.", lambda: float(consumer.coalescer.leased))
    gauge("engine_profiles_held", "Profiles on disk, to be sent.", lambda: float(consumer.books.held_profiles))
    gauge("engine_dead_letters", "Dead letters kept.", lambda: float(consumer.books.letters))
    gauge("engine_oldest_pending_seconds", "Age of the oldest event in memory.", lambda: _age(consumer, now()))
    gauge("engine_destination_paused", "1 while paused.", lambda: float(consumer.paused))
    gauge("engine_breaker_state", "0 closed, 1 half open, 2 open.", lambda: BREAKER_STATES[consumer.breaker.state])


def _age(consumer: Consumer, now: float) -> float:
    oldest = consumer.oldest_pending_at()
    return 0.0 if oldest is None else max(0.0, now - oldest)


def _of_account(metrics: Metrics, account: Account) -> None:
    def gauge(name: str, help: str, read: Callable[[], float]) -> None:
        metrics.gauge(name, help, read, {"account": account.name})

    gauge("engine_concurrency_limit", "Requests that may be in flight now.", lambda: float(account.window.limit))
    gauge("engine_requests_in_flight", "Requests in flight.", lambda: float(account.in_flight))
    gauge(
        "engine_account_breaker_state", "0 closed, 1 half open, 2 open.", lambda: BREAKER_STATES[account.breaker.state]
    )
    gauge("engine_pause_seconds", "What is left of a Retry-After pause.", account.pause_seconds)
