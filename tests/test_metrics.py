"""What is exported: every name of DESIGN §6.5, bounded labels, nothing of a person."""

from __future__ import annotations

import random
import re

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.dispatcher.books import Books
from engine.metrics import SECONDS, Histogram, Metrics
from engine.model import Lane, Outcome, Profile, Reply, Verdict, VerdictKind
from engine.ports import ConsumerState
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, ok, reject, retry, unknown

NAMES = {
    "engine_events_accepted_total": set(),
    "engine_events_rejected_total": {"reason"},
    "engine_events_delivered_total": {"destination"},
    "engine_events_suppressed_total": {"destination"},
    "engine_events_superseded_total": {"destination"},
    "engine_events_excluded_total": {"destination", "reason"},
    "engine_events_dead_lettered_total": {"destination", "reason"},
    "engine_events_expired_total": {"destination"},
    "engine_events_pending": {"destination"},
    "engine_profiles_waiting": {"destination"},
    "engine_profiles_leased": {"destination"},
    "engine_profiles_held": {"destination"},
    "engine_conservation_residual": {"destination"},
    "engine_oldest_pending_seconds": {"destination"},
    "engine_ack_seconds": set(),
    "engine_delivery_seconds": {"destination"},
    "engine_requests_total": {"destination", "outcome"},
    "engine_request_seconds": {"destination"},
    "engine_token_refresh_total": {"account", "result"},
    "engine_rate_wait_seconds": {"account"},
    "engine_concurrency_limit": {"account"},
    "engine_breaker_state": {"destination"},
    "engine_journal_bytes": set(),
    "engine_journal_fsync_seconds": set(),
    "engine_event_loop_lag_seconds": set(),
    "engine_build_info": {"version"},
}
PEOPLE = [f"p{n}@example.com" for n in range(40)]

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def samples_of(text: str) -> Samples:
    """name -> labels -> value; a histogram under its own name as well."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
            found.setdefault(sample.name, {})[labels] = sample.value
            if sample.name.endswith("_bucket"):
                found.setdefault(family.name, {})[labels] = sample.value
    return found


def busy_engine() -> str:
    """The metrics of an engine that has seen everything once, as text."""

    async def scene() -> str:
        steps = [Step(retry()), Step(unknown()), Step(reject("response_code_27"), seconds=0.5)]
        fakes = {"good": FakeDestination([Step(ok(), seconds=0.5)]), "bad": FakeDestination(steps)}
        config = Config.from_dict({"journal": {"kind": "memory"}, "destination": [{"name": name} for name in fakes]})
        engine = Engine(
            config, destinations=fakes, journal=MemoryJournal(), clock=VirtualClock(), random=random.Random(1)
        )
        async with engine:
            engine.metrics.account("demo").token_refresh("ok")
            engine.metrics.rejected("email_missing")
            records = [{"email": email, "city": "Lille"} for email in PEOPLE]
            for _ in range(2):
                await engine.submit([*records, {"email_lc_sha256": "0" * 64, "city": "Lille"}, {"city": "Lille"}])
                await anyio.sleep(60.0)
            return engine.control.metrics().decode()

    return run_virtual(scene)


@pytest.fixture(scope="module")
def text() -> str:
    return busy_engine()


@pytest.fixture(scope="module")
def samples(text: str) -> Samples:
    return samples_of(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_design_is_exported_with_its_labels(samples: Samples, name: str) -> None:
    assert name in samples
    assert {label for labels in samples[name] for label, _ in labels} == NAMES[name]


def test_every_series_of_ours_is_prefixed_and_documented(text: str) -> None:
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("engine_")
        assert family.documentation


def test_no_name_is_exported_twice(text: str) -> None:
    types = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(types) == len(set(types))


def test_nothing_of_a_person_is_exported(text: str) -> None:
    assert "@" not in text
    assert "example.com" not in text
    assert not re.search(r"[0-9a-f]{32}", text), "no key either"


def test_labels_are_those_of_the_configuration_and_short_codes(samples: Samples) -> None:
    values = {value for rows in samples.values() for labels in rows for name, value in labels if name != "version"}
    values.discard("")  # as if the label were missing: a stage that belongs to no destination
    codes = {value for value in values if re.fullmatch(r"RFDEST-[0-9]{4}-[0-9]{3}", value)}
    assert codes
    assert all(re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", value) for value in values - codes), values


def test_the_exported_sums_come_out_even(samples: Samples) -> None:
    (accepted,) = samples["engine_events_accepted_total"].values()
    assert accepted == 82
    for name in ("good", "bad"):
        parts = [f"engine_events_{outcome}_total" for outcome in Outcome] + ["engine_events_pending"]
        mine = [
            value
            for part in parts
            for labels, value in samples.get(part, {}).items()
            if ("destination", name) in labels
        ]
        assert sum(mine) == accepted
        assert samples["engine_conservation_residual"][("destination", name),] == 0


def test_an_engine_that_has_not_started_can_be_scraped() -> None:
    assert b"engine_events_accepted_total 0.0" in Metrics().render()


def test_counts_of_a_destination_survive_a_restart() -> None:
    metrics = Metrics()
    metrics.destination("demo").seed({"delivered": 5, "excluded:no_email": 2})
    metrics.destination("demo").count("delivered", 1)
    samples = samples_of(metrics.render().decode())
    assert samples["engine_events_delivered_total"] == {(("destination", "demo"),): 6}
    assert samples["engine_events_excluded_total"] == {(("destination", "demo"), ("reason", "no_email")): 2}


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [
        ([VerdictKind.OK, VerdictKind.OK], "ok"),
        ([VerdictKind.OK, VerdictKind.REJECT], "partial"),
        ([VerdictKind.RETRY], "failed"),
        ([VerdictKind.SPLIT, VerdictKind.SPLIT], "failed"),
        ([VerdictKind.OK, VerdictKind.UNKNOWN], "unknown"),
    ],
)
def test_a_request_has_one_of_four_outcomes(kinds: list[VerdictKind], outcome: str) -> None:
    metrics = Metrics()
    metrics.destination("demo").request(Reply([Verdict(kind) for kind in kinds]), 0.1)
    assert metrics.destination("demo").requests == {outcome: 1}


@given(st.lists(st.floats(0.0, 10_000.0), max_size=50))
def test_a_histogram_counts_every_observation_once(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    rows = histogram.cumulative()
    assert [bound for bound, _ in rows] == [*map(repr, SECONDS), "+Inf"]
    assert rows[-1][1] == len(values)
    for bound, count in rows:
        assert count == sum(value <= float(bound.strip("+")) for value in values)


def test_reasons_that_a_destination_makes_up_do_not_become_labels_without_end() -> None:
    """`response_code_X` holds what it answered; whoever answers at random must not fill memory, disk and Prometheus."""
    metrics = Metrics()
    state = ConsumerState("demo", "here", 0, 0, 0, clean=True)
    books = Books(state, metrics.destination("demo"))
    for n in range(1_000):
        profile = Profile(bytes(32), b"{}", 1, Lane.LIVE, n, n, n, 1, 0.0)
        books.settle(profile, Outcome.EXCLUDED if n % 2 else Outcome.DEAD_LETTERED, f"response_code_{n}", at=0.0)
    books.settle(Profile(bytes(32), b"{}", 1, Lane.LIVE, 0, 0, 0, 1, 0.0), Outcome.DELIVERED, at=0.0)
    samples = samples_of(metrics.render().decode())
    for name in ("excluded", "dead_lettered"):
        rows = samples[f"engine_events_{name}_total"]
        assert len(rows) <= 101
        assert sum(rows.values()) == 500
    assert len(books.open.counts) < 110
    assert books.sums()["delivered"] == 1


def test_label_values_are_escaped() -> None:
    metrics = Metrics()
    metrics.rejected('a"b\\c\nd')
    assert samples_of(metrics.render().decode())["engine_events_rejected_total"] == {(("reason", 'a"b\\c\nd'),): 1}
