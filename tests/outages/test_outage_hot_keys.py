"""One attendee that changes all the time, and many of whom some change much more often than others."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import defaultdict
from itertools import accumulate, pairwise

import anyio
import pytest
from outage import Scene, address, answered, arrived, on_virtual_time, virtual_scene
from outage import event as event_of

from engine.core.receipts import Receipts, listed
from engine.profiles.identity import key_of_address
from engine.sandbox import Fault

LATENCY_SECONDS = 0.05
LINGER_SECONDS = 0.02
WINDOW_SECONDS = LATENCY_SECONDS + LINGER_SECONDS
ACCOUNT = {"rate": {"requests_per_second": 2_000.0, "burst": 20, "max_concurrency": 64}}


async def stream(scene: Scene, people: list[int], per_submit: int) -> dict[int, int]:
    """One event for each of `people` in turn, `per_submit` each 10 ms; the last version of each."""
    last: dict[int, int] = {}
    for start in range(0, len(people), per_submit):
        chunk = [(person, start + index) for index, person in enumerate(people[start : start + per_submit], 1)]
        await scene.submit(*[event_of(person, version) for person, version in chunk])
        last.update(chunk)
        await anyio.sleep(0.01)
    await scene.settled()
    return last


def windows_broken(scene: Scene) -> tuple[int, int]:
    """Pairs of calls of one key of which the later came before the earlier was answered, and those that came in less
    than a window after it."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in scene.requests():
        spans[one.key].append((arrived(one), answered(one)))
    pairs = [pair for calls in spans.values() for pair in pairwise(sorted(calls))]
    overlapping = sum(later[0] < earlier[1] for earlier, later in pairs)
    return overlapping, sum(later[0] - earlier[0] < LATENCY_SECONDS for earlier, later in pairs)


def check(scene: Scene, last: dict[int, int], events: int) -> None:
    assert windows_broken(scene) == (0, 0)
    assert {person: scene.stored()[address(person)]["city"] for person in last} == {
        person: f"city-{version}" for person, version in last.items()
    }
    assert scene.sandbox.store.regressions == 0
    counts = scene.counts()
    assert set(counts) <= {"delivered", "superseded"}
    assert sum(counts.values()) == events


@on_virtual_time
async def test_a_single_key_is_called_once_a_window_and_ends_right(record_property) -> None:
    events = 5_000
    async with virtual_scene({"latency_ms": LATENCY_SECONDS * 1_000}, account=[ACCOUNT]) as scene:
        last = await stream(scene, [7] * events, 10)
        calls, seconds = len(scene.arrivals()), scene.arrivals()[-1] - scene.arrivals()[0]
        record_property("events", events)
        record_property("calls", calls)
        record_property("windows", round(seconds / LATENCY_SECONDS, 1))
        assert calls <= seconds / LATENCY_SECONDS + 2
        check(scene, last, events)


def zipf(people: int, exponent: float, events: int, seed: int = 1) -> list[int]:
    weights = list(accumulate(1 / (rank**exponent) for rank in range(1, people + 1)))
    return random.Random(seed).choices(range(people), cum_weights=weights, k=events)


@pytest.mark.parametrize("events", [1_500, pytest.param(15_000, marks=pytest.mark.process)])
@on_virtual_time
async def test_skewed_keys_are_called_once_a_window_each_and_end_right(record_property, events) -> None:
    async with virtual_scene({"latency_ms": LATENCY_SECONDS * 1_000}, account=[ACCOUNT]) as scene:
        last = await stream(scene, zipf(1_000, 1.2, events), 20)
        record_property("events", events)
        record_property("keys", len(last))
        record_property("calls", len(scene.arrivals()))
        check(scene, last, events)


def limit_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 100,000 requests in earnest has to happen in a few hundred here."""
    monkeypatch.setattr("engine.pipeline.pipeline.Receipts", lambda: Receipts(limit=50))
    monkeypatch.setattr("engine.core.receipts.TIDY_EVERY", 100)


@pytest.fixture
def few_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_receipts(monkeypatch)


@pytest.mark.usefixtures("few_receipts")
@on_virtual_time
async def test_memory_does_not_grow_with_the_events_of_a_hot_key(record_property) -> None:
    account = {"rate": {"requests_per_second": 20.0}}
    async with virtual_scene({"log_size": 10, "arrivals_size": 10}, account=[account]) as scene:
        await stream(scene, [7] * 1_000, 50)
        tracemalloc.start()
        try:
            grown = [await after(scene, 1_000) for _ in range(5)][1:]
        finally:
            tracemalloc.stop()
        record_property("events", 3_000)
        record_property("bytes_an_event", round((grown[-1] - grown[0]) / 3_000, 1))
        assert grown[-1] - grown[0] <= 3_000 * 8


@pytest.mark.usefixtures("few_receipts")
@on_virtual_time
async def test_a_hot_key_that_waits_out_an_outage_carries_no_more_than_one_that_does_not(record_property) -> None:
    """Its events are in the journal; in memory there is one profile, and the receipts that can still be asked for."""
    async with virtual_scene() as scene:
        scene.faults(Fault(kind="status", status=503))
        for version in range(3_000):
            await scene.submit(event_of(7, version))
        assert scene.engine._parts is not None
        (consumer,) = scene.engine._parts.consumers
        carried = [one for one in consumer.coalescer.find(key_of_address(address(7))) if one is not None]
        receipts = max(len(listed(one.receipts, one.last)) for one in carried)
        record_property("events", 3_000)
        record_property("receipts_carried", receipts)
        assert receipts <= 150
        scene.faults()
        await scene.settled()
        assert scene.stored()[address(7)]["city"] == "city-2999"


async def after(scene: Scene, events: int) -> int:
    """Bytes allocated once so many more were delivered."""
    await stream(scene, [7] * events, 50)
    await anyio.sleep(10.0)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
