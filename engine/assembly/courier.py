"""Brings notices to one target, oldest first, until each is there or given up. Nothing else waits for it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

import anyio

from engine.core.alerts import AlertBook
from engine.core.backoff import Backoff
from engine.model import Notice
from engine.ports import Clock, Notifier, Told

logger = logging.getLogger("engine.alerts")

RETRY_BASE_SECONDS, RETRY_CAP_SECONDS = 2.0, 300.0


class Courier:
    """`counted`: called with the result of every attempt."""

    def __init__(
        self,
        name: str,
        kind: str,
        notifier: Notifier,
        book: AlertBook,
        *,
        clock: Clock,
        random: random.Random,
        counted: Callable[[str, str], None],
    ) -> None:
        self.name, self.kind, self.notifier = name, kind, notifier
        self._book, self._clock, self._random, self._counted = book, clock, random, counted
        self._backoff = Backoff(RETRY_BASE_SECONDS, RETRY_CAP_SECONDS)
        self._failures = 0
        self._news = asyncio.Event()
        self._last: tuple[float, str] | None = None

    def __repr__(self) -> str:
        return f"<Courier {self.name} [{self._book.waiting_count(self.name)} waiting]>"

    def wake(self) -> None:
        """There may be something new."""
        self._news.set()

    async def run(self, keep: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled. `keep` stores that a notice was told: what a crash forgets of that is told twice."""
        while True:
            self._news.clear()
            notice = self._book.waiting(self.name)
            if notice is None:
                await self._news.wait()
                continue
            wait = self._conclude(notice, await self.attempt(notice))
            if wait:
                await anyio.sleep(wait)
            else:
                await keep()

    async def attempt(self, notice: Notice) -> Told:
        told = await self.notifier.tell(notice)
        self._counted(self.name, told.result)
        self._last = self._clock.time(), told.result
        return told

    def _conclude(self, notice: Notice, told: Told) -> float:
        """How long to wait before the next attempt; 0 when this notice is done with."""
        if told.result == "ok" or told.gone:
            if self._failures or told.gone:
                logger.warning("notify %s: %s", self.name, "gone, it wants no more" if told.gone else "told again")
            self._failures = 0
            self._book.done(notice, self.name)
            return 0.0
        self._failures += 1
        if self._failures == 1:
            logger.warning("notify %s: alert %s could not be told (%s)", self.name, notice.alert, told.result)
        wait = self._backoff.seconds(self._failures, self._random)
        return max(wait, told.retry_after_seconds or 0.0)

    def report(self) -> dict[str, object]:
        at, result = self._last or (None, "")
        return {
            "name": self.name,
            "kind": self.kind,
            "where": self.notifier.where,
            "waiting": self._book.waiting_count(self.name),
            "last_result": result,
            "last_at": at,
        }
