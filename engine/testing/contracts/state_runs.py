"""Promises of `history.History`: hourly runs add up to the counts, and every key's last outcome can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import NoSpace
from engine.history import HOUR_SECONDS, OTHER, OutcomeFilter, Run, RunFilter
from engine.model import LedgerEntry
from engine.ports import State
from engine.testing.contracts.harness import key_of, promise
from engine.testing.contracts.state_data import NOW, Limits, consumer_of, consumer_state, letter, settle, verdict

if TYPE_CHECKING:
    from engine.testing.contracts.state import StateTrial

HOUR = int(NOW // HOUR_SECONDS)
AT = float(HOUR * HOUR_SECONDS)
DAY_SECONDS = 86_400.0
EVERYTHING = RunFilter(audience=None)


async def count(state: State, consumer: str = "plain", *, hours: int = 0, **counts: int) -> None:
    """So many events of these outcomes became durable so many hours later."""
    await settle(state, consumer, counts=counts, fates=counts, at=AT + hours * HOUR_SECONDS)


async def sums(state: State, name: str = "plain") -> dict[str, int]:
    """Of all runs of a consumer that are kept."""
    found: dict[str, int] = {}
    for run in await state.runs(RunFilter(consumer=name), 10_000):
        for outcome, events in run.counts.items():
            found[outcome] = found.get(outcome, 0) + events
    return found


async def every_outcome(state: State, which: OutcomeFilter) -> list[LedgerEntry]:
    found: list[LedgerEntry] = []
    after: bytes | None = None
    while True:
        page, after = await state.outcomes(which, after)
        found += page
        if after is None:
            return found


class Runs:
    @promise
    async def test_counts_stand_in_the_run_of_their_hour(self, trial: StateTrial) -> None:
        state = await trial.open()
        await count(state, delivered=2)
        await settle(
            state, counts={"delivered": 1, "superseded": 1}, fates={"delivered": 2}, at=AT + HOUR_SECONDS - 0.001
        )
        await count(state, hours=1, suppressed=5)
        wanted = [
            Run("plain", HOUR + 1, "", {"suppressed": 5}, {"suppressed": 5}),
            Run("plain", HOUR, "", {"delivered": 4}, {"delivered": 3, "superseded": 1}),
        ]
        for current in (state, await trial.after_crash(state)):
            assert list(await current.runs(RunFilter(), 10)) == wanted
        state = await trial.reopen(state)
        assert list(await state.runs(RunFilter(), 10)) == wanted

    @promise
    async def test_runs_add_up_to_the_counts(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing", limits=Limits(run_days=1))
        for hours in (0, 1, 1, 30, 2, 60):
            await count(state, hours=hours, delivered=hours + 1)
            await count(state, "listing", hours=hours, **{"expired": 3})
        for name in ("plain", "listing"):
            assert await sums(state, name) == (await consumer_of(state, name)).counts
        assert [problem for found in (await state.inspect()).values() for problem in found.problems] == []

    @promise
    async def test_an_audience_has_runs_of_its_own(self, trial: StateTrial) -> None:
        state = await trial.open()
        audiences = {"ups/a": {"delivered": 2}, "ups/b": {"delivered": 1, "delivered:removed": 1}}
        for _ in range(2):
            await settle(state, counts={"delivered": 2}, fates={"delivered": 2}, audiences=audiences, at=AT)
        found = await state.runs(EVERYTHING, 10)
        assert [(run.audience, run.fates) for run in found] == [
            ("", {"delivered": 4}),
            ("ups/a", {"delivered": 4}),
            ("ups/b", {"delivered": 2, "delivered:removed": 2}),
        ]
        assert [run.audience for run in await state.runs(RunFilter(audience="ups/b"), 10)] == ["ups/b"]
        assert [run.audience for run in await state.runs(RunFilter(), 10)] == [""]

    @promise
    async def test_audiences_beyond_the_limit_are_counted_together(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(run_audiences=2))
        for round in range(2):
            for name in ("a", "b", "c", "d"):
                await settle(state, audiences={f"ups/{name}": {"delivered": 1}}, counts={"delivered": 1}, at=AT)
            found = {run.audience: run.fates.get("delivered") for run in await state.runs(EVERYTHING, 10)}
            each = round + 1
            assert found == {"": None, OTHER: 2 * each, "ups/a": each, "ups/b": each}
            state = await trial.reopen(state)
        await settle(state, audiences={"ups/d": {"delivered": 1}}, counts={"delivered": 1}, at=AT + HOUR_SECONDS)
        newest = await state.runs(RunFilter(audience="ups/d"), 10)
        assert [run.hour for run in newest] == [HOUR + 1], "every hour has room of its own"

    @promise
    async def test_a_run_that_is_too_old_goes_and_its_sums_stay(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(run_days=2))
        for hours in (0, 1, 47, 48, 49):
            await count(state, hours=hours, delivered=1, expired=2)
        await state.prune(AT + 49 * HOUR_SECONDS)
        assert [run.hour - HOUR for run in await state.runs(RunFilter(), 10)] == [49, 48, 47, 1]
        await state.prune(AT + 49 * HOUR_SECONDS + 2 * DAY_SECONDS)
        assert [run.hour - HOUR for run in await state.runs(EVERYTHING, 10)] == [49]
        assert (await consumer_of(state)).counts == {"delivered": 5, "expired": 10}
        assert [problem for found in (await state.inspect()).values() for problem in found.problems] == []

    @promise
    async def test_runs_come_newest_first_and_in_pages(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        for hours in range(4):
            for name in ("plain", "listing"):
                audiences = {"ups/a": {"delivered": 1}, "ups/b": {"delivered": 1}}
                counts = {"delivered": 1}
                await settle(
                    state, name, counts=counts, fates=counts, audiences=audiences, at=AT + hours * HOUR_SECONDS
                )
        everything = [(run.hour, run.consumer, run.audience) for run in await state.runs(EVERYTHING, 100)]
        assert everything == sorted(everything, key=lambda run: (-run[0], *run[1:]))
        assert len(everything) == 24
        paged: list[tuple[int, str, str]] = []
        while page := await state.runs(RunFilter(audience=None, below=paged[-1] if paged else None), 5):
            assert len(page) <= 5
            paged += [(run.hour, run.consumer, run.audience) for run in page]
        assert paged == everything

    @promise
    async def test_every_condition_on_runs_has_to_hold(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        for hours in range(4):
            await count(state, hours=hours, delivered=1)
        await count(state, "listing", hours=2, delivered=1)

        async def found(**which: object) -> list[tuple[str, int]]:
            return [(run.consumer, run.hour - HOUR) for run in await state.runs(RunFilter(**which), 10)]  # type: ignore[arg-type]

        assert await found(since=AT + HOUR_SECONDS, until=AT + 3 * HOUR_SECONDS) == [
            ("listing", 2),
            ("plain", 2),
            ("plain", 1),
        ]
        assert await found(since=AT + 1, consumer="listing") == [("listing", 2)]
        assert await found(consumer="plain", until=AT + 1) == [("plain", 0)], "a run belongs to when it begins"
        assert await found(consumer="nobody") == []

    @promise
    async def test_a_transaction_that_found_no_room_is_in_no_run(self, trial: StateTrial) -> None:
        state = await trial.open()
        await count(state, delivered=1)
        trial.fail_next_settle(state, NoSpace)
        try:
            await count(state, delivered=10)
        except NoSpace:
            await count(state, delivered=10)
        assert await sums(state) == {"delivered": 11}

    @promise
    async def test_a_consumer_that_is_added_again_or_removed_has_no_runs(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        for name in ("plain", "listing"):
            await settle(state, name, counts={"delivered": 1}, fates={"delivered": 1}, audiences={"ups/a": {"x": 1}})
        await state.add_consumer(consumer_state("plain"))
        await state.remove_consumer("listing")
        assert list(await state.runs(EVERYTHING, 10)) == []
        assert [problem for found in (await state.inspect()).values() for problem in found.problems] == []

    @promise
    async def test_every_last_outcome_is_in_one_page(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        names = [f"p{number}" for number in range(5_000)]
        await settle(state, verdicts=[verdict(name, 1) for name in names])
        await settle(state, verdicts=[verdict(name, 2, outcome="expired", reason="max_age") for name in names[:700]])
        await settle(state, "listing", verdicts=[verdict("other", 1)], hold=[letter("lea", 2)])
        found = await every_outcome(state, OutcomeFilter(consumer="plain"))
        assert {entry.key for entry in found} == {key_of(name) for name in names}
        assert len(found) == len(names)
        assert sum(entry.outcome == "expired" for entry in found) == 700

    @promise
    async def test_every_condition_on_outcomes_has_to_hold(self, trial: StateTrial) -> None:
        state = await trial.open()
        verdicts = [verdict("lea", 1, at=NOW), verdict("bo", 2, at=NOW + 10), verdict("cy", 3, at=NOW + 20)]
        await settle(state, verdicts=[*verdicts, verdict("di", 4, at=NOW + 10, outcome="excluded", reason="audience")])

        async def keys(**which: object) -> set[bytes]:
            found = await every_outcome(state, OutcomeFilter(consumer="plain", **which))  # type: ignore[arg-type]
            return {entry.key for entry in found}

        assert await keys(since=NOW + 10) == {key_of("bo"), key_of("cy"), key_of("di")}
        assert await keys(since=NOW + 10, until=NOW + 20, outcome="delivered") == {key_of("bo")}
        assert await keys(outcome="suppressed") == set()
