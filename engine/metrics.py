"""Counts and histograms, no I/O. Names, units and labels: DESIGN §6.5. Labels come from the configuration only.

Counting is adding to an int; prometheus_client meets the numbers at scrape time only, through one collector.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from engine.model import Outcome, Reply, VerdictKind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Fixed buckets in seconds; one comparison chain per observation."""

    __slots__ = ("buckets", "counts", "total")

    def __init__(self, buckets: tuple[float, ...] = SECONDS) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.buckets, value)] += times
        self.total += value * times

    def cumulative(self) -> list[tuple[str, float]]:
        running, rows = 0, []
        for bound, count in zip([*self.buckets, float("inf")], self.counts, strict=True):
            running += count
            rows.append(("+Inf" if bound == float("inf") else repr(bound), float(running)))
        return rows


class DestinationMetrics:
    """What is counted of one destination."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # "delivered", "excluded:no_email", …
        self.requests: Counter[str] = Counter()
        self.request_seconds = Histogram()
        self.delivery_seconds = Histogram()
        self.waits_for_letters = 0

    def seed(self, counts: Mapping[str, int]) -> None:
        """Go on from what is durable: these counters survive restarts."""
        self.counts = Counter(counts)

    def count(self, name: str, events: int) -> None:
        self.counts[name] += events

    def request(self, reply: Reply, seconds: float) -> None:
        self.requests[_request_outcome(reply)] += 1
        self.request_seconds.observe(seconds)

    def delivered_after(self, seconds: float, profiles: int = 1) -> None:
        self.delivery_seconds.observe(max(0.0, seconds), profiles)

    def letters_full(self) -> None:
        self.waits_for_letters += 1


class AccountMetrics:
    """What is counted of one account."""

    def __init__(self) -> None:
        self.rate_wait_seconds = Histogram()
        self.token_refreshes: Counter[str] = Counter()

    def rate_wait(self, seconds: float) -> None:
        self.rate_wait_seconds.observe(seconds)

    def token_refresh(self, result: str) -> None:
        self.token_refreshes[result] += 1


class Metrics:
    """All of one engine; nothing global. `coded`: counts by outcome and reason -> events by (error code, outcome)."""

    def __init__(self) -> None:
        self.events_accepted = 0
        self.events_rejected: Counter[str] = Counter()
        self.fields_dropped: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.denied: Counter[str] = Counter()
        self.notifications: Counter[tuple[str, str]] = Counter()  # by target and result
        self.stalls: Counter[tuple[str, str]] = Counter()  # by stage and destination
        self.worker_restarts = 0
        self.ack_seconds = Histogram()
        self.journal_fsync_seconds = Histogram()
        self.coded: Callable[[Mapping[str, int]], Mapping[tuple[str, str], int]] = lambda counts: {}
        self.elsewhere: Callable[[], Awaitable[None]] | None = None  # waits for what other processes have counted
        self._destinations: dict[str, DestinationMetrics] = {}
        self._accounts: dict[str, AccountMetrics] = {}
        self._gauges: dict[str, tuple[str, list[tuple[Labels, Callable[[], float]]]]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def destination(self, name: str) -> DestinationMetrics:
        return self._destinations.setdefault(name, DestinationMetrics())

    def account(self, name: str) -> AccountMetrics:
        return self._accounts.setdefault(name, AccountMetrics())

    def accepted(self, events: int) -> None:
        self.events_accepted += events

    def worker_restarted(self) -> None:
        self.worker_restarts += 1

    def rejected(self, reason: str, records: int = 1) -> None:
        self.events_rejected[reason] += records

    def notified(self, target: str, result: str) -> None:
        """One attempt to tell a target, or one notice that was given up."""
        self.notifications[target, result] += 1

    def gauge(self, name: str, help: str, read: Callable[[], float], labels: Mapping[str, str] | None = None) -> None:
        """Ask `read` at every scrape."""
        self._gauges.setdefault(name, (help, []))[1].append((tuple((labels or {}).items()), read))

    async def complete(self) -> None:
        """To be awaited before `render`, where not only this process counts."""
        if self.elsewhere is not None:
            await self.elsewhere()

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry must not scrape an engine that is only being constructed."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _counter("engine_events_accepted", "Events made durable.", [((), self.events_accepted)])
        yield _counter(
            "engine_events_rejected", "Records refused, by reason.", _rows("reason", self.events_rejected.items())
        )
        yield _counter(
            "engine_fields_dropped", "Optional fields dropped, by reason.", _rows("reason", self.fields_dropped.items())
        )
        yield _counter("engine_answers", "Answers of the ingress, by status.", _rows("status", self.answers.items()))
        yield _counter(
            "engine_requests_denied",
            "Requests that were denied, by reason.",
            _rows("reason", self.denied.items()),
        )
        yield _counter(
            "engine_worker_restarts", "Ingress workers that ended and were replaced.", [((), self.worker_restarts)]
        )
        stalls = [
            ((("stage", stage), ("destination", name)), float(count)) for (stage, name), count in self.stalls.items()
        ]
        yield _counter("engine_progress_stalls", "Times that a stage was stuck.", stalls)
        told = [
            ((("target", name), ("result", result)), float(count))
            for (name, result), count in self.notifications.items()
        ]
        yield _counter("engine_notifications", "Attempts to tell an alert, by result.", told)
        yield _histogram("engine_ack_seconds", "Last body byte to answer.", [((), self.ack_seconds)])
        yield _histogram("engine_journal_fsync_seconds", "One group commit.", [((), self.journal_fsync_seconds)])
        yield from self._of_destinations()
        yield from self._of_accounts()
        for name, (help, readers) in self._gauges.items():
            yield _gauge(name, help, [(labels, read()) for labels, read in readers])

    def _of_destinations(self) -> Iterator[Metric]:
        by_name = list(self._destinations.items())
        for outcome in Outcome:
            rows: list[tuple[Labels, float]] = []
            for name, metrics in by_name:
                rows += _outcome_rows(name, outcome, metrics.counts)
            yield _counter(f"engine_events_{outcome}", f"Events that ended {outcome}.", rows)
        coded = [
            ((("destination", name), ("code", code), ("outcome", outcome)), float(events))
            for name, metrics in by_name
            for (code, outcome), events in self.coded(metrics.counts).items()
        ]
        yield _counter("engine_events_by_code", "Events that were excluded or failed, by error code.", coded)
        requests = [
            ((("destination", name), ("outcome", outcome)), float(count))
            for name, metrics in by_name
            for outcome, count in metrics.requests.items()
        ]
        yield _counter("engine_requests", "Requests, by what came of them.", requests)
        yield _histogram(
            "engine_request_seconds",
            "First byte to reply.",
            [((("destination", name),), metrics.request_seconds) for name, metrics in by_name],
        )
        yield _histogram(
            "engine_delivery_seconds",
            "Accepted to confirmed.",
            [((("destination", name),), metrics.delivery_seconds) for name, metrics in by_name],
        )

    def _of_accounts(self) -> Iterator[Metric]:
        accounts = list(self._accounts.items())
        yield _histogram(
            "engine_rate_wait_seconds",
            "Wait for the bucket.",
            [((("account", name),), metrics.rate_wait_seconds) for name, metrics in accounts],
        )
        refreshes = [
            ((("account", name), ("result", result)), float(count))
            for name, metrics in accounts
            for result, count in metrics.token_refreshes.items()
        ]
        yield _counter("engine_token_refresh", "Token requests, by result.", refreshes)


_REASONED = (Outcome.EXCLUDED, Outcome.DEAD_LETTERED)


def _outcome_rows(name: str, outcome: Outcome, counts: Mapping[str, int]) -> list[tuple[Labels, float]]:
    mine = {key.partition(":")[2]: events for key, events in counts.items() if key.partition(":")[0] == outcome}
    if outcome in _REASONED:
        return [((("destination", name), ("reason", reason)), float(events)) for reason, events in mine.items()]
    return [((("destination", name),), float(sum(mine.values())))]


def _request_outcome(reply: Reply) -> str:
    kinds = [verdict.kind for verdict in reply.verdicts]  # no set: to hash an enum costs more than to compare it
    delivered = kinds.count(VerdictKind.OK)
    if delivered and delivered == len(kinds):
        return "ok"
    return "unknown" if VerdictKind.UNKNOWN in kinds else "partial" if delivered else "failed"


def _rows(label: str, items: Iterable[tuple[str, int]]) -> list[tuple[Labels, float]]:
    return [(((label, name),), float(count)) for name, count in items]


def _counter(name: str, help: str, rows: Iterable[tuple[Labels, float]]) -> Metric:
    family, rows = None, list(rows)
    names = [label for label, _ in rows[0][0]] if rows else []
    family = CounterMetricFamily(name, help, labels=names)
    for labels, value in rows:
        family.add_metric([text for _, text in labels], value)
    return family


def _gauge(name: str, help: str, rows: Iterable[tuple[Labels, float]]) -> Metric:
    rows = list(rows)
    family = GaugeMetricFamily(name, help, labels=[label for label, _ in rows[0][0]] if rows else [])
    for labels, value in rows:
        family.add_metric([text for _, text in labels], value)
    return family


def _histogram(name: str, help: str, rows: Iterable[tuple[Labels, Histogram]]) -> Metric:
    rows = list(rows)
    family = HistogramMetricFamily(name, help, labels=[label for label, _ in rows[0][0]] if rows else [])
    for labels, histogram in rows:
        family.add_metric([text for _, text in labels], histogram.cumulative(), histogram.total)
    return family
