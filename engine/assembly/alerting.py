"""Alerts in a running engine: every few seconds one look at its figures, and whom to tell what follows from them."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from engine.adapters.alert_webhook import WebhookNotifier
from engine.adapters.chat import AppriseNotifier
from engine.adapters.sessions import open_session
from engine.assembly.courier import Courier
from engine.config import AlertConfig, Config, NotifyConfig
from engine.core.alert_figures import KINDS, DestinationFigures, Figures
from engine.core.alert_rules import Rule
from engine.core.alert_texts import page_of
from engine.core.alerts import AlertBook
from engine.dispatcher import Consumer
from engine.errors import NoSpace
from engine.metrics import Histogram
from engine.model import Notice, NoticeEvent
from engine.ports import Clock, Notifier

if TYPE_CHECKING:
    from engine.assembly.build import Parts

logger = logging.getLogger("engine.alerts")

EVERY_SECONDS = 5.0
KEEP_SECONDS = 5.0
"""How long a look waits for its rows to be stored: a disk that hangs is a reason to tell, and none to be silent."""

LEAST_FREE_BYTES = 268_435_456
"""What `disk-filling` is about where `journal.min_free_bytes` is 0."""


class Slowest:
    """The slowest delivery since the last look, from a histogram of seconds: the lower end of its bucket."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram, self._seen = histogram, list(histogram.counts)

    def seconds(self) -> float:
        counts, seen = self._histogram.counts, self._seen
        grown = [index for index, count in enumerate(counts) if count > seen[index]]
        self._seen = list(counts)
        return self._histogram.buckets[grown[-1] - 1] if grown and grown[-1] else 0.0


class Alerting:
    """The book of alerts, its couriers, and the task that looks."""

    def __init__(
        self,
        parts: Parts,
        book: AlertBook,
        couriers: Sequence[Courier],
        *,
        letters_max: int,
        random: random.Random,
    ) -> None:
        self._parts, self.book, self.couriers = parts, book, {it.name: it for it in couriers}
        self._letters_max, self._random = letters_max, random
        self._slowest = {one.name: Slowest(one.metrics.delivery_seconds) for one in parts.consumers}
        self._register_gauges()

    def __repr__(self) -> str:
        return f"<Alerting {self.book!r}>"

    async def run(self, tasks: TaskGroup) -> None:
        """Look until cancelled; the couriers are tasks of `tasks`."""
        for courier in self.couriers.values():
            tasks.start_soon(courier.run, self.keep)
        filling = self._parts.pipeline.filling
        while True:
            filling.clear()
            await self.look()
            with anyio.move_on_after(EVERY_SECONDS):
                await filling.wait()

    async def look(self) -> None:
        """What is to be told is stored before it is told, so that a restart neither repeats nor forgets it."""
        for notice in self.book.evaluate(self.figures()):
            _log(notice)
        for target, why in self.book.given_up:
            self._parts.metrics.notified(target, why)
            logger.error("notify %s: a notice was given up (%s)", target, why)
        self.book.given_up.clear()
        await self.keep()
        for courier in self.couriers.values():
            courier.wake()

    async def keep(self) -> None:
        """Store what has changed. Without room it is left for the next time."""
        rows = self.book.changed()
        if not rows:
            return
        kept = False
        try:
            with anyio.move_on_after(KEEP_SECONDS):
                await self._parts.state.keep_alerts(rows)
                kept = True
        except NoSpace:
            pass  # told all the same, and stored when there is room
        finally:
            if not kept:
                self.book.keep_again(rows)

    # -- figures --------------------------------------------------------------------------------------------------

    def figures(self) -> Figures:
        parts, pipeline = self._parts, self._parts.pipeline
        size = parts.journal.size()
        furthest = min(parts.consumers, key=lambda consumer: consumer.watermark, default=None)
        return Figures(
            at=parts.clock.time(),
            journal_bytes=size.bytes,
            journal_max_bytes=size.max_bytes,
            journal_seconds_left=pipeline.journal_seconds_left(),
            laggard=furthest.name if furthest is not None else "",
            disk_free_bytes=size.disk_free_bytes,
            letters=sum(one.books.letters for one in parts.consumers),
            letters_max=self._letters_max,
            stalled=pipeline.watchdog.stalled(""),
            destinations={one.name: self._of(one) for one in parts.consumers},
        )

    def _of(self, consumer: Consumer) -> DestinationFigures:
        parts, tokens = self._parts, consumer.account.tokens
        oldest = consumer.oldest_pending_at()
        age = 0.0 if oldest is None else max(0.0, parts.clock.time() - oldest)
        return DestinationFigures(
            counts=dict(consumer.books.counts),
            delay_seconds=max(age, self._slowest[consumer.name].seconds()),
            behind_events=parts.pipeline.commit.next_offset - consumer.watermark,
            paused=consumer.paused,
            breaker="" if consumer.paused else consumer.trouble(),
            token=tokens.trouble if tokens is not None else "",
            stalled=parts.pipeline.watchdog.stalled(consumer.name),
        )

    # -- questions and orders -------------------------------------------------------------------------------------

    def _register_gauges(self) -> None:
        for rule in self.book.rules.values():
            kind = KINDS[rule.when]
            names = [one.name for one in self._parts.consumers] if kind.destination is not None else []
            for name in [*([""] if kind.engine is not None else []), *filter(rule.concerns, names)]:
                self._parts.metrics.gauge(
                    "engine_alert_active",
                    "1 while raised.",
                    lambda rule=rule, name=name: float(self.book.is_active(rule.name, name)),  # type: ignore[misc]
                    {"alert": rule.name, "destination": name},
                )

    def active(self) -> list[dict[str, object]]:
        return [one for one in self.book.report() if one["state"] == "raised"]

    def report(self) -> dict[str, object]:
        return {"alerts": self.book.report(), "targets": [one.report() for one in self.couriers.values()]}

    async def test(self, target: str) -> dict[str, object]:
        """One attempt, now. Raises KeyError for a name that is none."""
        courier, clock = self.couriers[target], self._parts.clock
        started = clock.monotonic()
        told = await courier.attempt(_test_notice(clock, self._random))
        seconds = round(clock.monotonic() - started, 3)
        return {"target": target, "ok": told.result == "ok", "result": told.result, "seconds": seconds}


async def open_alerting(config: Config, parts: Parts, stack: AsyncExitStack, random: random.Random) -> Alerting:
    """What an earlier process had told goes on. Sessions are closed by `stack`."""
    book = AlertBook(
        rules_of(config),
        random=random,
        stored=await parts.state.alerts(),
        targets=[target.name for target in config.notify],
    )
    sender = {"host": socket.gethostname(), "version": parts.version}
    couriers = [
        Courier(
            target.name,
            target.kind,
            _notifier(target, parts.clock, sender, stack),
            book,
            clock=parts.clock,
            random=random,
            counted=parts.metrics.notified,
        )
        for target in config.notify
    ]
    return Alerting(parts, book, couriers, letters_max=config.dead_letters.max_count, random=random)


def _notifier(config: NotifyConfig, clock: Clock, sender: dict[str, str], stack: AsyncExitStack) -> Notifier:
    if config.kind == "apprise":
        return AppriseNotifier(config.url_value, sender=sender, timeout_seconds=config.timeout_seconds)
    session = open_session(config.url_value(), connections=2)  # the courier's, and one for a test beside it
    stack.push_async_callback(session.close)
    return WebhookNotifier(
        config.url_value,
        config.secret_value,
        session=session,
        clock=clock,
        sender=sender,
        timeout_seconds=config.timeout_seconds,
    )


BUILT_IN: Mapping[str, tuple[str, float, float]] = {
    **{when: (when, 0.0, 60.0) for when in ("activation-skipped-rate", "run-failed", "delivery-delay")},
    **{when: (when, 0.0, 60.0) for when in ("breaker-open", "token-failing")},
    **{when: (when, 0.0, 0.0) for when in ("dead-letters-growing", "dead-letters-full", "disk-filling", "watchdog")},
    "journal-filling": ("journal-filling", 0.5, 0.0),
    "journal-nearly-full": ("journal-filling", 0.8, 0.0),
}
"""Name -> when, threshold (0: its default), for_seconds. Each gives way to any `[[alert]]` of its `when`."""


def rules_of(config: Config) -> list[Rule]:
    """The alerts of the configuration, and the built-in ones that it does not replace."""
    targets = tuple(target.name for target in config.notify if target.built_in)
    replaced = {alert.when for alert in config.alerts}
    built_in = [
        Rule(
            name=name,
            when=when,
            threshold=threshold or _threshold(when, config),
            for_seconds=for_seconds,
            targets=targets,
            built_in=True,
        )
        for name, (when, threshold, for_seconds) in BUILT_IN.items()
        if when not in replaced
    ]
    return [*(_rule(alert, config) for alert in config.alerts), *built_in]


def _rule(alert: AlertConfig, config: Config) -> Rule:
    return Rule(
        name=alert.name,
        when=alert.when,
        threshold=alert.threshold or _threshold(alert.when, config),
        window_seconds=alert.window_seconds,
        for_seconds=alert.for_seconds,
        clear_seconds=alert.clear_seconds,
        cooldown_seconds=alert.cooldown_seconds,
        destinations=None if "*" in alert.destinations else frozenset(alert.destinations),
        targets=alert.to,
    )


def _threshold(when: str, config: Config) -> float:
    if when == "disk-filling":
        return 2.0 * (config.journal.min_free_bytes or LEAST_FREE_BYTES / 2)
    return KINDS[when].threshold


def _test_notice(clock: Clock, random: random.Random) -> Notice:
    now = clock.time()
    return Notice(
        id=f"msg_{random.getrandbits(128):032x}",
        event=NoticeEvent.TEST,
        at=now,
        alert="test",
        when="test",
        destination="",
        since=now,
        figure=0.0,
        threshold=0.0,
        unit="",
        summary="this is a test, nothing is wrong",
        advice="nothing",
        page=page_of("test"),
        targets=[],
    )


def _log(notice: Notice) -> None:
    level = logging.INFO if notice.event == NoticeEvent.RESOLVED else logging.WARNING
    advice = "" if notice.event == NoticeEvent.RESOLVED else f"; what to do: {notice.advice}"
    logger.log(level, "%s (alert %s %s)%s", notice.summary, notice.alert, notice.event, advice)
