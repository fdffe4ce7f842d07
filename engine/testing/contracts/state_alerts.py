"""Promises about what alerts remember."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.testing.contracts.harness import promise
from engine.testing.contracts.state_data import consumer_of, settle

if TYPE_CHECKING:
    from engine.testing.contracts.state import StateTrial


class Alerts:
    @promise
    async def test_what_alerts_remember_comes_back_as_it_was(self, trial: StateTrial) -> None:
        state = await trial.open()
        assert await state.alerts() == {}
        kept = {("late", "plain"): b"\x00\xff", ("late", ""): b"", ("full", ""): b"x" * 10_000}
        await state.keep_alerts(kept)
        assert await state.alerts() == kept
        assert await (await trial.after_crash(state)).alerts() == kept
        state = await trial.reopen(state)
        assert await state.alerts() == kept

    @promise
    async def test_rows_are_replaced_and_deleted_one_by_one(self, trial: StateTrial) -> None:
        state = await trial.open()
        await state.keep_alerts({("late", "a"): b"1", ("late", "b"): b"1", ("full", ""): b"1"})
        await state.keep_alerts({("late", "a"): b"2", ("full", ""): None, ("never", "there"): None})
        assert await state.alerts() == {("late", "a"): b"2", ("late", "b"): b"1"}
        await state.keep_alerts({})
        assert len(await state.alerts()) == 2

    @promise
    async def test_alerts_and_settling_leave_each_other_alone(self, trial: StateTrial) -> None:
        state = await trial.open()
        await state.keep_alerts({("late", "plain"): b"1"})
        await settle(state, counts={"delivered": 1})
        await state.remove_consumer("plain")
        assert await state.alerts() == {("late", "plain"): b"1"}, "who watches decides when it is over"
        assert await state.inspect() is not None
        assert [one.name for one in await state.consumers()] == []

    @promise
    async def test_a_backup_has_what_alerts_remember(self, trial: StateTrial) -> None:
        state = await trial.open()
        await state.keep_alerts({("late", "plain"): b"1"})
        path = trial.directory / "copy"
        await state.backup(path)
        copy = await trial.restore(path)
        assert await copy.alerts() == {("late", "plain"): b"1"}
        assert (await consumer_of(copy)).name == "plain"
