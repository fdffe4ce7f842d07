"""Everything fails for a long time: the store, its tokens, the token endpoint. Nothing is lost, nobody is hammered."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from unittest import mock

import anyio
import pytest
from outage import TOKEN, Scene, address, answered, arrived, event, on_virtual_time, virtual_scene

from engine.assembly.build import PROBE_CAP_SECONDS
from engine.core.backoff import Backoff
from engine.core.breaker import FAILURES_IN_A_ROW
from engine.sandbox import Fault
from engine.testing.clock import run_virtual

STORM_SECONDS = 600.0
RATE = 20.0
PEOPLE = 700
RECOVERY_SECONDS = 30.0
WATCHED_SECONDS = 5.0
MANY = 256

more_seeds = pytest.param(range(2, 12), marks=pytest.mark.process, id="ten-more-seeds")


# -- the store is down ------------------------------------------------------------------------------------------------


def most_within(times: list[float], seconds: float) -> int:
    """In any window of this length that begins at one of them (ascending)."""
    return max((bisect_left(times, at + seconds) - index for index, at in enumerate(times)), default=0)


def recovered_after(times: list[float], end: float) -> float:
    """Seconds from the end of the storm to the first arrival from which on the rate is nine tenths of the limit."""
    later = [at for at in times if at >= end]
    enough = 0.9 * RATE * WATCHED_SECONDS
    return next(at - end for i, at in enumerate(later) if bisect_left(later, at + WATCHED_SECONDS) - i >= enough)


async def storm(seed: int, status: int) -> tuple[list[float], float]:
    """Ten minutes of nothing but `status` while events keep coming: when the breaker opened and when each probe came
    after it (loop time), and how many seconds after the storm the rate was back."""
    account = {"rate": {"requests_per_second": RATE, "max_concurrency": 16}}
    async with virtual_scene({"latency_ms": 50}, seed=seed, account=[account]) as scene:
        await scene.submit(*[event(person, 0) for person in range(20)])
        await scene.settled()
        began = anyio.current_time()
        scene.faults(Fault(kind="status", status=status, for_seconds=STORM_SECONDS))
        await scene.stream(PEOPLE, 2.0, STORM_SECONDS + RECOVERY_SECONDS)
        await scene.settled()
        assert {outcome for outcome in scene.counts() if outcome not in ("delivered", "superseded")} == set()
        assert scene.sandbox.store.regressions == 0
        assert len(scene.stored()) == PEOPLE
        failed = [one for one in scene.requests() if one.status == status]
        opened = sorted(map(answered, failed))[FAILURES_IN_A_ROW - 1]
        probed = [at for one in failed if (at := arrived(one)) > opened]
        return [opened, *probed], recovered_after(scene.arrivals(), began + STORM_SECONDS)


@pytest.mark.parametrize("seeds", [pytest.param([1], id="one-seed"), more_seeds])
def test_a_storm_of_ten_minutes_is_probed_sparingly_and_over_within_half_a_minute(record_property, seeds) -> None:
    probes, recoveries = list[int](), list[float]()

    for seed in seeds:
        found, recovered = run_virtual(storm, seed, 500 if seed % 3 == 0 else 503)
        probes.append(len(found) - 1)
        recoveries.append(recovered)
        assert most_within(found[1:], 1.0) <= 1
        for number, (one, following) in enumerate(pairwise(found)):
            assert following - one >= min(2.0**number, PROBE_CAP_SECONDS) / 2 - 0.001
    record_property("storms", len(probes))
    record_property("probes_in_ten_minutes", max(probes))
    record_property("recovered_after_seconds", round(max(recoveries), 1))
    assert max(recoveries) <= RECOVERY_SECONDS


# -- tokens are refused -----------------------------------------------------------------------------------------------


def crowd(requests_per_second: float = 5_000.0) -> dict[str, object]:
    """An account with room for `MANY` requests at once."""
    return {
        "rate": {"requests_per_second": requests_per_second, "burst": 64, "max_concurrency": MANY, "adaptive": False}
    }


async def revoke_under_load(scene: Scene, times: int, first_version: int = 0) -> None:
    """Each time while `MANY` requests are being judged: all of them will be refused."""
    for number in range(times):
        await scene.submit(*[event(person, first_version + number) for person in range(MANY)])
        await anyio.sleep(0.15)
        scene.sandbox.revoke_tokens()
        await scene.settled()


@on_virtual_time
async def test_each_revocation_costs_one_refresh_however_many_requests_are_refused(record_property) -> None:
    times = 5
    async with virtual_scene({"latency_ms": 200}, account=[crowd()]) as scene:
        await scene.submit(event("first"))
        await scene.settled()
        late = Fault(kind="latency", seconds=0.9, probability=0.5)  # half are refused when the new token is here
        scene.faults(Fault(kind="latency", seconds=0.5, path="token"), late)
        await revoke_under_load(scene, times)
        refused = [one for one in scene.requests() if one.status == 401]
        refreshes = len(scene.requests(TOKEN)) - 1
        record_property("revocations", times)
        record_property("requests_refused", len(refused))
        record_property("refreshes", refreshes)
        assert len(refused) == times * MANY
        assert refreshes == times
        assert scene.counts() == {"delivered": times * MANY + 1}
        assert scene.breaker() == ""


@on_virtual_time
async def test_tokens_that_are_revoked_all_the_time_dead_letter_nothing(record_property) -> None:
    """A storm: every request may find its token gone, and each revocation is answered by one refresh at the most."""
    async with virtual_scene({"latency_ms": 100}, account=[crowd()]) as scene:
        scene.faults(Fault(kind="token_storm", seconds=1.0, for_seconds=30.0))
        for version in range(30):
            await scene.submit(*[event(person, version) for person in range(50)])
            await anyio.sleep(1.0)
        await scene.settled()
        revocations = scene.sandbox.requests.by_fault["token_storm"]
        refreshes = len(scene.requests(TOKEN)) - 1
        record_property("revocations", revocations)
        record_property("refreshes", refreshes)
        assert revocations >= 10
        assert refreshes <= revocations
        assert set(scene.counts()) <= {"delivered", "superseded"}
        assert scene.stored()[address(7)]["city"] == "city-29"


# -- no tokens to be had ----------------------------------------------------------------------------------------------


@contextmanager
def steps_of_the_backoff() -> Iterator[list[tuple[float, float]]]:
    """When (loop time) a step began, and how many seconds it lasts."""
    found: list[tuple[float, float]] = []
    original = Backoff.seconds

    def seconds(backoff: Backoff, attempt: int, random: random.Random) -> float:
        found.append((asyncio.get_running_loop().time(), original(backoff, attempt, random)))
        return found[-1][1]

    with mock.patch.object(Backoff, "seconds", seconds):
        yield found


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=503, path="token", for_seconds=STORM_SECONDS),
        Fault(kind="status", status=401, path="token", for_seconds=STORM_SECONDS),
        Fault(kind="not_json", path="token", for_seconds=STORM_SECONDS),
        Fault(kind="reset_before", path="token", for_seconds=STORM_SECONDS),
        Fault(kind="timeout", path="token", for_seconds=STORM_SECONDS),
    ],
    ids=lambda fault: f"{fault.kind}{fault.status or ''}",
)
@on_virtual_time
async def test_without_tokens_for_ten_minutes_one_try_is_made_a_step_and_nothing_is_lost(
    record_property, fault
) -> None:
    retry = {"max_attempts": 2, "max_age_seconds": 300}  # neither counts while nothing can be sent
    async with virtual_scene(destination=[{"retry": retry}]) as scene:
        await scene.submit(event(0, 0))
        await scene.settled()
        with steps_of_the_backoff() as steps:
            scene.faults(fault)
            scene.sandbox.revoke_tokens()
            began = anyio.current_time()
            await scene.stream(60, 0.5, STORM_SECONDS + 60.0)
            await scene.settled()
        tries = [one for one in scene.requests(TOKEN) if arrived(one) > began]
        failed = [one for one in tries if one.fault]
        record_property("tries", len(tries))
        record_property("steps", len(steps))
        assert len(tries) == len(failed) + 1 == len(steps) + 1
        for (start, seconds), (_, following) in zip(steps, pairwise(map(arrived, tries)), strict=True):
            assert following >= start + seconds - 0.001
        assert answered(tries[-1]) - began <= STORM_SECONDS + 60.0
        assert set(scene.counts()) <= {"delivered", "superseded"}
        assert len(scene.stored()) == 60
