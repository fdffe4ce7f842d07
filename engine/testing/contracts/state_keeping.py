"""Promises about what is kept: for recovery, within the limits, on disk, in a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from engine.model import HeldKind, LetterState
from engine.ports import LetterFilter
from engine.testing.contracts.harness import eventually, key_of, promise
from engine.testing.contracts.state_data import (
    NOW,
    Limits,
    consumer_of,
    entry_of,
    key_state,
    letter,
    settle,
    verdict,
    waiting,
)

if TYPE_CHECKING:
    from engine.testing.contracts.state import StateTrial

DAY_SECONDS = 86_400.0


class Keeping:
    @promise
    async def test_accounted_names_every_key_settled_or_held_at_or_above_the_watermark(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 4), verdict("bo", 5), verdict("cy", 6)], watermark=5)
        await settle(state, verdicts=[verdict("lea", 7)], hold=[waiting("di", 8), letter("ed", 9)])
        await settle(state, hold=[letter("flo", 10, HeldKind.EXPIRED)])
        wanted = {"bo": 5, "cy": 6, "lea": 7, "di": 8, "ed": 9, "flo": 10}
        for current in (state, await trial.after_crash(state)):
            assert await current.accounted("plain") == {key_of(name): last for name, last in wanted.items()}
        assert await state.accounted("nobody") == {}

    @promise
    async def test_accounted_follows_the_watermark(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict(f"p{last}", last) for last in range(10)])
        for watermark in (3, 7, 10):
            await settle(state, watermark=watermark)
            assert sorted((await state.accounted("plain")).values()) == list(range(watermark, 10))

    @promise
    async def test_what_recovery_needs_is_kept_whatever_the_limits_say(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(ledger_days=1, ledger_keys=1, letter_days=1))
        await settle(state, verdicts=[verdict(f"p{last}", last) for last in range(5)], hold=[waiting("di", 8)])
        await settle(state, hold=[letter("ed", 9)], watermark=2)
        before = await state.accounted("plain")
        assert len(before) == 5
        for _ in range(3):
            await state.prune(NOW + 1_000 * DAY_SECONDS)
            assert await state.accounted("plain") == before
            state = await trial.reopen(state)
        assert (await key_state(state, "di")).held is not None, "what waits is not limited"

    @promise
    async def test_what_was_said_about_consent_does_not_grow_old_and_goes_last(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(ledger_days=1, ledger_keys=2))
        said = [verdict(name, last, consents=b"no", at=NOW + last) for last, name in enumerate(("lea", "bo"))]
        await settle(state, verdicts=[*said, verdict("cy", 2, at=NOW + 9)], watermark=3)
        state = await trial.reopen(state)
        await state.prune(NOW + DAY_SECONDS / 2)
        keys = [key_of(name) for name in ("lea", "bo", "cy")]
        assert set(await state.keys("plain", keys)) == {key_of("lea"), key_of("bo")}, "too many, and these are older"
        await state.prune(NOW + 1_000 * DAY_SECONDS)
        assert set(await state.keys("plain", keys)) == {key_of("lea"), key_of("bo")}

    @promise
    async def test_prune_deletes_ledger_entries_that_are_too_old_and_no_others(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(ledger_days=10))
        await settle(state, verdicts=[verdict("lea", 1, at=NOW), verdict("bo", 2, at=NOW + 5 * DAY_SECONDS)])
        await settle(state, watermark=3)
        both = {key_of("lea"), key_of("bo")}

        async def kept_at(now: float) -> set[bytes]:
            await state.prune(now)
            return set(await state.keys("plain", list(both)))

        async def only_the_old_one_is_gone() -> bool:
            return await kept_at(NOW + 11 * DAY_SECONDS) == {key_of("bo")}

        for _ in range(20):
            assert await kept_at(NOW + 9 * DAY_SECONDS) == both
        await eventually(only_the_old_one_is_gone)

    @promise
    async def test_prune_keeps_the_newest_keys_when_there_are_too_many(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(ledger_keys=3))
        await settle(state, verdicts=[verdict(f"p{age}", age, at=NOW - age) for age in range(8)], watermark=9)

        async def newest_only() -> bool:
            await state.prune(NOW)
            found = await state.keys("plain", [key_of(f"p{age}") for age in range(8)])
            return set(found) == {key_of("p0"), key_of("p1"), key_of("p2")}

        await eventually(newest_only)
        await state.prune(NOW)
        assert await newest_only(), "no fewer than the limit"

    @promise
    async def test_prune_keeps_what_a_replay_of_a_dead_letter_has_to_know(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(ledger_days=1, ledger_keys=1))
        await settle(state, hold=[letter("lea", 1)], verdicts=[verdict("lea", 1, at=NOW)])
        verdicts = [verdict("lea", 5, confirmed=5, at=NOW), verdict("bo", 6, at=NOW), verdict("cy", 7, at=NOW)]
        await settle(state, verdicts=verdicts, watermark=8)

        async def only_lea_is_known() -> bool:
            await state.prune(NOW + 2 * DAY_SECONDS)
            return set(await state.keys("plain", [key_of("lea"), key_of("bo"), key_of("cy")])) == {key_of("lea")}

        await eventually(only_lea_is_known)
        assert (await entry_of(state, "lea")).confirmed_through == 5

    @promise
    async def test_prune_deletes_letters_that_are_too_old(self, trial: StateTrial) -> None:
        state = await trial.open(limits=Limits(letter_days=10))
        old = [letter(f"p{number}", number, at=NOW) for number in range(1_200)]
        await settle(state, hold=[*old, letter("lea", 2_000, at=NOW + 5 * DAY_SECONDS), waiting("bo", 2_001)])
        await state.prune(NOW + 9 * DAY_SECONDS)
        assert await state.count_letters(LetterFilter()) == 1_201
        await state.prune(NOW + 11 * DAY_SECONDS)
        assert [one.profile.last for _, one in await state.letters(LetterFilter(state=None), 10)] == [2_000]
        books = await consumer_of(state)
        assert (books.letters, books.held_profiles) == (1, 1)

    @promise
    async def test_scrub_and_close_leave_everything_that_was_not_deleted(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 1), verdict("bo", 2)], hold=[waiting("cy", 3)])
        await settle(state, forget=[(key_of("lea"), 1)])
        await state.scrub()
        for _ in range(2):
            assert (await key_state(state, "lea")).entry is None
            assert (await entry_of(state, "bo")).settled_through == 2
            assert (await key_state(state, "cy")).held is not None
            state = await trial.reopen(state)

    @promise
    async def test_closing_twice_does_no_harm(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, counts={"delivered": 1})
        state = await trial.reopen(state)
        assert (await consumer_of(state)).counts == {"delivered": 1}
        await state.close()
        await state.close()

    @promise
    async def test_what_was_settled_is_on_disk_when_settle_returns(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4), letter("cy", 5)], counts={"x": 2})
        await settle(state, verdicts=[verdict("lea", 6, digest=b"d")], letters=[(2, LetterState.REPLAYED)])
        survivor = await trial.after_crash(state)
        assert (await entry_of(survivor, "lea")).digest == b"d"
        assert (await key_state(survivor, "bo")).held is not None
        assert (await consumer_of(survivor)) == (await consumer_of(state))

    @promise
    async def test_a_backup_of_a_running_state_file_is_a_state_file(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4), letter("cy", 5)], counts={"n": 1})
        path = trial.directory / "copy"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(state.backup, path)
            for number in range(30):
                await settle(state, verdicts=[verdict("di", number)], counts={"n": 1}, watermark=number)
        copy = await trial.restore(path)
        books = await consumer_of(copy)
        assert 1 <= books.counts["n"] <= 31
        assert books.watermark == max(0, books.counts["n"] - 2), "the copy is of one moment"
        assert (await entry_of(copy, "lea")).settled_through == 3
        assert (await key_state(copy, "bo")).held is not None
        assert await copy.count_letters(LetterFilter()) == 1
        await settle(copy, counts={"n": 1})
