"""What an ingress counts, from the worker that counted it to the metrics of the core."""

from __future__ import annotations

from engine.adapters.worker_link.messages import Counts
from engine.metrics import Metrics


def take_counts(metrics: Metrics) -> Counts | None:
    """What was counted since the last call; None when that is nothing."""
    taken = Counts(
        dict(metrics.events_rejected),
        dict(metrics.fields_dropped),
        dict(metrics.answers),
        dict(metrics.denied),
        list(metrics.ack_seconds.counts),
        metrics.ack_seconds.total,
    )
    for counter in (metrics.events_rejected, metrics.fields_dropped, metrics.answers, metrics.denied):
        counter.clear()
    metrics.ack_seconds.counts[:] = [0] * len(taken.ack_counts)
    metrics.ack_seconds.total = 0.0
    return taken if taken.answers or taken.denied or taken.rejected or any(taken.ack_counts) else None


def add_counts(metrics: Metrics, counts: Counts) -> None:
    metrics.events_rejected.update(counts.rejected)
    metrics.fields_dropped.update(counts.fields_dropped)
    metrics.answers.update(counts.answers)
    metrics.denied.update(counts.denied)
    histogram = metrics.ack_seconds
    for index, count in enumerate(counts.ack_counts[: len(histogram.counts)]):
        histogram.counts[index] += count
    histogram.total += counts.ack_seconds
