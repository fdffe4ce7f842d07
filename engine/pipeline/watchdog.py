"""The watchdog: says so when there is work, nothing holds it up, and nothing gets done all the same.

It changes nothing. What it sees turns readiness off, is counted, and is logged together with where every task waits,
so that whoever looks finds more than silence. It looks a few times in its patience; a look costs a few sums.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence

import anyio

from engine.core.progress import Progress
from engine.dispatcher import Consumer
from engine.metrics import Metrics
from engine.pipeline.stacks import stacks
from engine.ports import Clock

logger = logging.getLogger("engine.pipeline")

LOOKS = 6
"""How often it looks within its patience."""

REPEAT_SECONDS = 600.0
"""A stall that lasts is told again so seldom."""

Look = Callable[[], tuple[bool, Hashable]]
"""(is there work that nothing holds up, what changes whenever some of it gets done)"""


class Watched:
    """One thing that has to get on. `stage` is "commit", "settle", "read" or "send", these two of a destination."""

    def __init__(self, stage: str, destination: str, look: Look, progress: Progress) -> None:
        self.stage, self.destination, self.look, self.progress = stage, destination, look, progress
        self.told_at: float | None = None

    def __str__(self) -> str:
        return f"{self.stage} of destination {self.destination}" if self.destination else self.stage


class Watchdog:
    """`patience_seconds` 0 turns it off. A destination has its own patience where its limits explain a longer one."""

    def __init__(self, patience_seconds: float, *, clock: Clock, metrics: Metrics) -> None:
        self._patience_seconds, self._clock, self._metrics = patience_seconds, clock, metrics
        self._every_seconds = patience_seconds / LOOKS
        self.watched: list[Watched] = []

    def __repr__(self) -> str:
        return f"<Watchdog {[str(one) for one in self.watched if one.progress.stalled] or 'quiet'}>"

    def watch(self, stage: str, look: Look, *, destination: str = "", patience_seconds: float = 0.0) -> None:
        """To be called before it runs."""
        if not self._patience_seconds:
            return
        progress = Progress(max(self._patience_seconds, patience_seconds), 2 * self._every_seconds)
        self.watched.append(Watched(stage, destination, look, progress))

    def stalled(self, destination: str | None = None) -> bool:
        """Is anything stuck (of this destination)?"""
        return any(one.progress.stalled for one in self.watched if destination in (None, one.destination))

    async def run(self) -> None:
        while self.watched:
            self.look()
            await anyio.sleep(self._every_seconds)

    def look(self) -> None:
        now = self._clock.monotonic()
        news: list[Watched] = []
        for one in self.watched:
            was, (due, done) = one.progress.stalled, one.look()
            if one.progress.look(now, due=due, done=done):
                self._note(one, was, now, news)
            elif was:
                one.told_at = None
                logger.warning("progress again: %s", one)
        if news:
            self._tell(news)

    def _note(self, one: Watched, was: bool, now: float, news: list[Watched]) -> None:
        if not was:
            self._metrics.stalls[(one.stage, one.destination)] += 1
        if one.told_at is None or now >= one.told_at + REPEAT_SECONDS:
            one.told_at = now
            news.append(one)

    def _tell(self, news: Sequence[Watched]) -> None:
        """One record for all that is new, since where the tasks wait is the same for all."""
        what = ", ".join(f"{one} for {one.progress.seconds:.0f} s" for one in news)
        logger.error("no progress: %s. Tasks wait at:\n%s", what, "\n".join(stacks()))


def reading(consumer: Consumer, following: Callable[[], int]) -> Look:
    """What is in the journal or on disk for it gets into memory, while there is room."""

    def look() -> tuple[bool, Hashable]:
        books, coalescer = consumer.books, consumer.coalescer
        behind = consumer.position < min(following(), consumer.read_to)
        held = books.held_profiles > 0 and not len(coalescer)
        due = consumer.recovering or ((behind or held) and consumer.room() > 0)
        return due, (consumer.position, consumer.recovering, books.held_profiles)

    return look


def sending(consumer: Consumer) -> Look:
    """What may leave leaves: replies come, or profiles get their outcome without one."""

    def look() -> tuple[bool, Hashable]:
        done = (sum(consumer.books.counts.values()), sum(consumer.metrics.requests.values()))
        return consumer.should_progress(), done

    return look
