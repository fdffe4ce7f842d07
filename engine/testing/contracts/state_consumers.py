"""Promises about consumers: made, renamed, removed, and what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ports import ConsumerState, LetterFilter, Transition
from engine.testing.contracts.harness import key_of, promise
from engine.testing.contracts.state_data import (
    consumer_of,
    consumer_state,
    entry_of,
    key_state,
    letter,
    settle,
    verdict,
    waiting,
)

if TYPE_CHECKING:
    from engine.testing.contracts.state import StateTrial


class Consumers:
    @promise
    async def test_a_new_consumer_is_there_as_it_was_given(self, trial: StateTrial) -> None:
        state = await trial.open()
        new = ConsumerState("listing", "sandbox", 5, 6, 7, clean=False, paused=True, not_addressed=2)
        await state.add_consumer(new)
        assert await consumer_of(state, "listing") == new
        assert await consumer_of(state, "plain") == consumer_state("plain")
        state = await trial.after_crash(state)
        assert await consumer_of(state, "listing") == new

    @promise
    async def test_a_consumer_that_is_added_again_starts_with_an_empty_ledger_and_keeps_its_letters(
        self, trial: StateTrial
    ) -> None:
        state = await trial.open("plain", "listing")
        for name in ("plain", "listing"):
            await settle(state, name, verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4), letter("cy", 5)])
            await settle(state, name, counts={"delivered": 4}, watermark=2, read_to=6, paused=True)
        await state.add_consumer(consumer_state("plain", 9))
        fresh = await consumer_of(state, "plain")
        assert (fresh.start, fresh.watermark, fresh.read_to, fresh.paused, fresh.counts) == (9, 9, 9, False, {})
        assert (fresh.held_events, fresh.held_profiles, fresh.letters) == (0, 0, 1)
        assert await state.keys("plain", [key_of("lea"), key_of("bo")]) == {}
        assert await state.accounted("plain") == {}
        assert (await entry_of(state, "lea", "listing")).settled_through == 3
        assert (await consumer_of(state, "listing")).counts == {"delivered": 4}
        await settle(state, "plain", verdicts=[verdict("lea", 10)])
        assert (await entry_of(state, "lea", "plain")).settled_through == 10

    @promise
    async def test_a_renamed_consumer_keeps_everything(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        await settle(state, verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4), letter("cy", 5)], counts={"x": 2})
        before = await consumer_of(state, "plain")
        await state.rename_consumer("plain", "attendees")
        before.name = "attendees"
        assert await consumer_of(state, "attendees") == before
        assert (await entry_of(state, "lea", "attendees")).settled_through == 3
        assert len(await state.held("attendees", 10)) == 1
        assert [name for name, _ in await state.letters(LetterFilter(), 10)] == ["attendees"]
        await settle(state, "attendees", verdicts=[verdict("lea", 6)])
        state = await trial.reopen(state)
        assert [one.name for one in await state.consumers()] == ["attendees", "listing"]
        assert await state.accounted("attendees") == {key_of("lea"): 6, key_of("bo"): 4, key_of("cy"): 5}

    @promise
    async def test_of_a_removed_consumer_only_its_letters_are_left(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        for name in ("plain", "listing"):
            await settle(state, name, verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4), letter("cy", 5)])
        await state.remove_consumer("plain")
        state = await trial.after_crash(state)
        assert [one.name for one in await state.consumers()] == ["listing"]
        assert sorted(name for name, _ in await state.letters(LetterFilter(), 10)) == ["listing", "plain"]
        await state.add_consumer(consumer_state("plain"))
        fresh = await consumer_of(state, "plain")
        assert (fresh.letters, fresh.held_profiles, fresh.counts) == (1, 0, {})
        assert await state.keys("plain", [key_of("lea"), key_of("bo")]) == {}
        assert await state.accounted("plain") == {}
        assert (await key_state(state, "lea", "listing")).entry is not None

    @promise
    async def test_letters_of_a_removed_consumer_are_purged_and_forgotten_like_others(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        await settle(state, "plain", hold=[letter("bo", 4), letter("cy", 5)])
        await state.remove_consumer("plain")
        await settle(state, "listing", forget=[(key_of("bo"), 6)])
        assert [held.profile.key for _, held in await state.letters(LetterFilter(), 10)] == [key_of("cy")]
        assert await state.purge_letters(LetterFilter(consumer="plain")) == 1
        assert await state.letters(LetterFilter(), 10) == []

    @promise
    async def test_a_consumer_takes_the_name_of_a_removed_one_and_its_letters(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        for name in ("plain", "listing"):
            await settle(state, name, hold=[letter("cy", 5)])
        await state.remove_consumer("plain")
        await state.rename_consumer("listing", "plain")
        assert [(one.name, one.letters) for one in await state.consumers()] == [("plain", 2)]
        assert {name for name, _ in await state.letters(LetterFilter(), 10)} == {"plain"}

    @promise
    async def test_a_removed_consumer_without_letters_leaves_nothing(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        await settle(state, "plain", verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4)])
        await state.remove_consumer("plain")
        await state.add_consumer(consumer_state("plain"))
        assert await consumer_of(state, "plain") == consumer_state("plain")

    @promise
    async def test_each_consumer_has_books_of_its_own(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        await state.settle(
            [
                Transition("plain", verdicts=[verdict("lea", 1)], counts={"delivered": 1}, watermark=1),
                Transition("listing", hold=[waiting("lea", 2)], counts={"delivered": 5}, watermark=2),
            ]
        )
        plain, listing = await consumer_of(state, "plain"), await consumer_of(state, "listing")
        assert (plain.counts, plain.watermark, plain.held_profiles) == ({"delivered": 1}, 1, 0)
        assert (listing.counts, listing.watermark, listing.held_profiles) == ({"delivered": 5}, 2, 1)
        assert (await key_state(state, "lea", "plain")).held is None
        assert (await key_state(state, "lea", "listing")).entry is None
