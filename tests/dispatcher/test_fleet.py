"""Twenty destinations on one account: who gets which permits, and what one of them can do to the others."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable

import anyio
import pytest
from stage import Stage, Tokens, address, event, on_virtual_time

from engine.model import Batch, Verdict, VerdictKind
from engine.testing.destination import FakeDestination, Step, ok, retry, unknown

FLEET = [f"city{number:02d}" for number in range(20)]
RATE = 200.0
HOUR = 3_600.0


class City(FakeDestination):
    """Notes what arrives: (loop time, address, version). `trouble` may say what a request meets instead."""

    def __init__(self, trouble: Callable[[float], Step | None] = lambda now: None) -> None:
        super().__init__(answer=self._meet)
        self.arrived: list[tuple[float, str, int]] = []
        self._trouble = trouble

    def _meet(self, batch: Batch) -> Step:
        now = anyio.current_time()
        step = self._trouble(now)
        if step is not None:
            return step
        for profile in batch.profiles:
            fields = json.loads(profile.content)
            self.arrived.append((now, fields["email"], int(fields.get("v", 0))))
        return Step(ok(), seconds=0.01)

    def between(self, start: float, end: float) -> list[tuple[float, str, int]]:
        return [one for one in self.arrived if start <= one[0] < end]


def fleet(stage: Stage, weight: Callable[[int], int] = lambda number: 1, **options: object) -> dict[str, City]:
    cities = {name: City() for name in FLEET}
    for number, (name, city) in enumerate(cities.items()):
        stage.destination(name, city, weight=weight(number), **options)  # type: ignore[arg-type]
    return cities


# -- permits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [10.0, RATE])
def test_permits_follow_the_weights_while_all_have_work(rate: float, record_property: pytest.RecordProperty) -> None:
    """Weights 1 to 20: in any stretch of 210 permits, each destination has as many as its weight says."""

    @on_virtual_time
    async def scene() -> None:
        stage = Stage()
        stage.account(rate=rate, concurrency=40)
        cities = fleet(stage, lambda number: number + 1)
        async with stage.running():
            await stage.submit(*(event(person) for person in range(500)))
            await anyio.sleep(2_100 / rate)
            counts = Counter({name: len(city.arrived) for name, city in cities.items()})
        total = sum(counts.values())
        assert total >= 0.97 * 2_100
        errors = [abs(counts[name] / total * 210 / (number + 1) - 1) for number, name in enumerate(FLEET)]
        record_property("largest error of a share", round(max(errors), 3))
        assert max(errors) < 0.05

    scene()


@on_virtual_time
async def test_destinations_without_work_lend_their_share_and_have_it_back_at_once() -> None:
    stage = Stage()
    stage.account(rate=RATE, concurrency=40)
    cities = {name: City() for name in FLEET}
    for number, (name, city) in enumerate(cities.items()):
        stage.destination(name, city, sources=frozenset(["all", "busy"] if number < 2 else ["all"]))
    async with stage.running():
        await stage.submit(*(event(f"busy{person}") for person in range(2_000)), source="busy")
        await anyio.sleep(5.0)
        lent = len(cities["city00"].arrived) + len(cities["city01"].arrived)
        assert lent >= 0.97 * 5.0 * RATE, "two have all of it"
        await stage.submit(*(event(f"all{person}") for person in range(200)), source="all")
        began = anyio.current_time()
        await anyio.sleep(5.0)
        now_theirs = [len(city.between(began, began + 5.0)) for city in cities.values()]
    even = 5.0 * RATE / len(FLEET)
    assert min(now_theirs) >= 0.9 * even
    assert max(now_theirs) <= 1.1 * even + 2


@on_virtual_time
async def test_one_token_refresh_serves_all_twenty_and_one_more_after_it_is_refused() -> None:
    stage, tokens = Stage(), Tokens(seconds=2.0)
    stage.account(tokens=tokens, concurrency=40)
    cities = fleet(stage, max_attempts=1)
    async with stage.running():
        await stage.submit(*(event(person) for person in range(5)))
        await stage.settled()
        assert tokens.refreshes == 1
        revoked = Step(Verdict(VerdictKind.AUTH, "http_401"), seconds=0.1)
        began = anyio.current_time()
        for city in cities.values():
            city._trouble = lambda now: revoked if now < began + 0.05 else None
        await stage.submit(*(event(person, v=1) for person in range(1)))
        await stage.settled()
    assert tokens.refreshes == 2
    assert {frozenset(stage.counts(name).items()) for name in FLEET} == {frozenset({("delivered", 6)})}


# -- one is in trouble ------------------------------------------------------------------------------------------------

TROUBLES = {"refuses": Step(retry()), "hangs": Step(unknown(), seconds=10.0)}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_one_that_is_down_for_an_hour_delays_no_other_and_catches_up_in_order(
    trouble: str, record_property: pytest.RecordProperty
) -> None:
    """Half of the rate is used: a steady stream for everybody, twenty minutes before, an hour during, then the rest."""
    down_from, people, pause = 1_200.0, 20, 24.0

    @on_virtual_time
    async def scene() -> None:
        stage = Stage()
        stage.account(rate=2 * len(FLEET) / pause, concurrency=20)
        cities = fleet(stage)
        ill, *well = cities.values()
        ill._trouble = lambda now: TROUBLES[trouble] if down_from <= now < down_from + HOUR else None
        accepted: dict[tuple[str, int], float] = {}
        async with stage.running():
            for number in range(round((down_from + HOUR) / pause)):
                person, version = number % people, number
                accepted[address(person), version] = anyio.current_time()
                await stage.submit(event(person, v=version))
                await anyio.sleep(pause)
            over = anyio.current_time()
            assert stage.counts(FLEET[0])["delivered"] <= down_from / pause + 1
            await stage.settled()
            caught_up = anyio.current_time() - over

        def waits(start: float, end: float) -> list[float]:
            return sorted(at - accepted[who, v] for city in well for at, who, v in city.between(start, end))

        before, during = waits(0.0, down_from), waits(down_from, down_from + HOUR)
        figures = [round(waited[int(len(waited) * 0.99)], 3) for waited in (before, during)]
        rates = [len(before) / down_from, len(during) / HOUR]
        record_property("p99 before, during (s)", figures)
        record_property("requests/s of the others before, during", [round(it, 2) for it in rates])
        record_property("caught up after (s)", round(caught_up, 1))
        assert rates[1] == pytest.approx(rates[0], rel=0.02)
        assert figures[1] <= figures[0] + 2 / (2 * len(FLEET) / pause), "at most two more requests are ahead"
        assert caught_up < 60.0
        newest = {address(number % people): number for number in range(round((down_from + HOUR) / pause))}
        versions = defaultdict[str, list[int]](list)
        for _, who, version in ill.arrived:
            versions[who].append(version)
        assert all(seen == sorted(set(seen)) for seen in versions.values()), "nobody went back"
        assert {who: seen[-1] for who, seen in versions.items()} == newest
        assert {name for name in FLEET if stage.consumers[name].books.letters} == set()

    scene()


@on_virtual_time
async def test_a_refused_event_code_opens_the_breaker_of_its_destination_only() -> None:
    refused, mended = Step(Verdict(VerdictKind.CONFIG, "response_code_124")), 300.0
    stage = Stage()
    stage.account(rate=RATE, concurrency=20)
    cities = fleet(stage, max_attempts=1)
    cities["city07"]._trouble = lambda now: refused if now < mended else None
    async with stage.running():
        await stage.submit(*(event(person) for person in range(30)))
        await stage.settled(*(name for name in FLEET if name != "city07"), within=10.0)
        breakers = {name: stage.consumers[name].breaker.state for name in FLEET}
        assert {name for name, state in breakers.items() if state != "closed"} == {"city07"}
        assert stage.accounts["a"].breaker.state == "closed"
        assert len(cities["city07"].requests) <= 20 + 8, "what was under way, and a few probes"
        await stage.settled()
    assert {frozenset(stage.counts(name).items()) for name in FLEET} == {frozenset({("delivered", 30)})}


@on_virtual_time
async def test_a_wrong_secret_stops_all_twenty_and_dead_letters_nothing() -> None:
    refused, mended = Step(Verdict(VerdictKind.AUTH, "http_401")), 600.0
    stage = Stage()
    stage.account(rate=RATE, concurrency=20, tokens=Tokens())
    cities = fleet(stage, max_attempts=1)
    for city in cities.values():
        city._trouble = lambda now: refused if now < mended else None
    async with stage.running():
        await stage.submit(*(event(person) for person in range(10)))
        await anyio.sleep(500.0)
        assert stage.accounts["a"].breaker.reason == "unauthorized"
        assert {stage.consumers[name].breaker.state for name in FLEET} == {"closed"}
        assert sum(len(city.requests) for city in cities.values()) < 100
        await stage.settled()
    assert {frozenset(stage.counts(name).items()) for name in FLEET} == {frozenset({("delivered", 10)})}
