"""Promises of `Transition` and `State.settle`: what one settling transaction does, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.errors import NoSpace, StorageFailed
from engine.model import NOTHING, HeldKind, LetterState
from engine.ports import ConsumerState, LetterFilter, Transition
from engine.testing.contracts.harness import key_of, promise
from engine.testing.contracts.state_data import (
    change,
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


class Settling:
    @promise
    async def test_counts_add_up(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, counts={"delivered": 2, "excluded:no_email": 1})
        await settle(state, counts={"delivered": 3})
        assert (await consumer_of(state)).counts == {"delivered": 5, "excluded:no_email": 1}
        state = await trial.reopen(state)
        assert (await consumer_of(state)).counts == {"delivered": 5, "excluded:no_email": 1}

    @promise
    async def test_the_later_verdict_replaces_the_earlier_one(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 3, 3, digest=b"old", attendee_id="a1")])
        await settle(state, verdicts=[verdict("lea", 7, 7, outcome="expired", reason="age", digest=b"", at=9.0)])
        entry = await entry_of(state, "lea")
        assert (entry.outcome, entry.reason, entry.digest, entry.at) == ("expired", "age", b"", 9.0)
        assert entry.attendee_id == "a1", "an empty attendee id keeps the old one"

    @promise
    async def test_offsets_of_a_verdict_only_grow(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 9, 8)])
        await settle(state, verdicts=[verdict("lea", 5, NOTHING, outcome="suppressed")])
        entry = await entry_of(state, "lea")
        assert (entry.outcome, entry.settled_through, entry.confirmed_through) == ("suppressed", 9, 8)
        state = await trial.reopen(state)
        assert await entry_of(state, "lea") == entry

    @promise
    async def test_verdicts_of_one_key_in_one_transition_follow_each_other(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 2, 2, attendee_id="a1"), verdict("lea", 4, outcome="expired")])
        entry = await entry_of(state, "lea")
        assert (entry.outcome, entry.settled_through, entry.confirmed_through) == ("expired", 4, 2)
        assert entry.attendee_id == "a1"

    @promise
    async def test_a_change_takes_the_digest_away_and_keeps_what_happened(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 3, 3, digest=b"sure", at=9.0), verdict("bo", 4, digest=b"sure")])
        await settle(state, verdicts=[change("lea", "a1"), change("new", "a2", at=5.0)])
        await settle(state, verdicts=[change("bo"), verdict("bo", 8, 8, digest=b"again")], watermark=9)
        for _ in range(2):
            assert await entry_of(state, "lea") == verdict("lea", 3, 3, at=9.0, attendee_id="a1")
            assert await entry_of(state, "new") == change("new", "a2", at=5.0)
            assert (await entry_of(state, "bo")).digest == b"again", "what was confirmed since is certain"
            state = await trial.reopen(state)
        await settle(state, verdicts=[verdict("new", 12, outcome="expired", at=6.0)])
        assert await entry_of(state, "new") == verdict("new", 12, outcome="expired", at=6.0, attendee_id="a2")

    @promise
    async def test_a_change_is_no_outcome_of_anything(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[change("lea", "a1")], read_to=10)
        assert await state.accounted("plain") == {}
        assert (await consumer_of(state)).settled_through == NOTHING

    @promise
    async def test_keys_answers_before_and_after_what_happens_in_the_background(self, trial: StateTrial) -> None:
        state = await trial.open()
        names = [f"p{number}" for number in range(40)]
        for round in range(30):
            await settle(state, verdicts=[verdict(name, round, digest=b"%d" % round) for name in names[round % 7 :]])
            found = await state.keys("plain", [key_of(name) for name in names])
            for number, name in enumerate(names):
                newest = max((r for r in range(round + 1) if number >= r % 7), default=None)
                entry = found[key_of(name)].entry
                assert entry is not None
                assert (entry.settled_through, entry.digest) == (newest, b"%d" % (newest or 0))

    @promise
    async def test_a_key_of_which_nothing_is_stored_is_missing(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 1)], hold=[waiting("bo", 2), letter("cy", 3)])
        found = await state.keys("plain", [key_of(name) for name in ("lea", "bo", "cy", "di")])
        assert set(found) == {key_of("lea"), key_of("bo")}
        assert (found[key_of("lea")].held, found[key_of("bo")].entry) == (None, None)

    @promise
    async def test_a_waiting_profile_replaces_the_keys_earlier_one(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, hold=[waiting("lea", 2, events=2), waiting("bo", 3)])
        await settle(state, hold=[waiting("lea", 5, events=4)])
        held = (await key_state(state, "lea")).held
        assert held is not None
        assert (held.profile.last, held.profile.events, held.kind) == (5, 4, HeldKind.WAITING)
        found = await consumer_of(state)
        assert (found.held_profiles, found.held_events) == (2, 5)

    @promise
    async def test_a_held_profile_comes_back_as_it_was(self, trial: StateTrial) -> None:
        state = await trial.open()
        given = waiting("lea", 2, events=2)
        given.profile.stamps, given.profile.attempts = {"city": 5.0}, 3
        await settle(state, hold=[given])
        state = await trial.reopen(state)
        held = (await key_state(state, "lea")).held
        assert held is not None
        assert (held.profile, held.at, held.reason) == (given.profile, given.at, given.reason)

    @promise
    async def test_letters_are_added_beside_each_other(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, hold=[letter("lea", 1), waiting("lea", 9)])
        await settle(state, hold=[letter("lea", 2), letter("lea", 3, HeldKind.EXPIRED)])
        found = await state.letters(LetterFilter(), 10)
        assert [held.profile.last for _, held in found] == [1, 2, 3]
        books = await consumer_of(state)
        assert (books.letters, books.held_profiles) == (3, 1)

    @promise
    async def test_drop_deletes_a_waiting_profile_only_up_to_its_offset(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, hold=[waiting("lea", 5), waiting("bo", 5), waiting("cy", 5), letter("lea", 1)])
        await settle(state, drop=[(key_of("lea"), 5), (key_of("bo"), 4), (key_of("cy"), 99)])
        assert (await key_state(state, "lea")).held is None
        assert (await key_state(state, "bo")).held is not None
        assert (await key_state(state, "cy")).held is None
        assert await state.count_letters(LetterFilter()) == 1, "a letter is not a waiting profile"
        assert (await consumer_of(state)).held_profiles == 1

    @promise
    async def test_forget_deletes_all_of_the_key_and_nothing_of_another(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        for consumer in ("plain", "listing"):
            for name in ("lea", "bo"):
                await settle(state, consumer, verdicts=[verdict(name, 2)], hold=[waiting(name, 4), letter(name, 3)])
        await settle(state, "plain", forget=[(key_of("lea"), 4)])
        for _ in range(3):
            assert key_of("lea") not in await state.keys("plain", [key_of("lea"), key_of("bo")])
            await settle(state, "plain", counts={"delivered": 1})
        assert await state.count_letters(LetterFilter(consumer="plain", key=key_of("lea"))) == 0
        state = await trial.reopen(state)
        assert key_of("lea") not in await state.keys("plain", [key_of("lea")])
        assert (await key_state(state, "bo", "plain")).held is not None
        assert (await entry_of(state, "lea", "listing")).settled_through == 2
        assert await state.count_letters(LetterFilter()) == 3

    @promise
    async def test_a_forgotten_key_stays_accounted_for(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 6)])
        await settle(state, forget=[(key_of("lea"), 8)])
        assert (await state.accounted("plain"))[key_of("lea")] == 8
        await settle(state, forget=[(key_of("bo"), 9)])
        state = await trial.after_crash(state)
        assert await state.accounted("plain") == {key_of("lea"): 8, key_of("bo"): 9}

    @promise
    async def test_what_happens_after_a_forget_is_known_again(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, verdicts=[verdict("lea", 6, 6, attendee_id="a1")])
        await settle(state, forget=[(key_of("lea"), 8)])
        await settle(state, verdicts=[verdict("lea", 9)], hold=[waiting("lea", 10)])
        entry = await entry_of(state, "lea")
        assert (entry.settled_through, entry.confirmed_through, entry.attendee_id) == (9, NOTHING, "")
        assert (await key_state(state, "lea")).held is not None

    @promise
    async def test_new_values_replace_and_none_leaves_them(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, watermark=5, read_to=9, not_addressed=2, clean=False, paused=True)
        await settle(state, counts={"delivered": 1})
        wanted = ConsumerState("plain", "identity of plain", 0, 5, 9, False, True, 2, {"delivered": 1})
        assert await consumer_of(state) == wanted
        await settle(state, watermark=6, clean=True, paused=False)
        state = await trial.after_crash(state)
        found = await consumer_of(state)
        assert (found.watermark, found.read_to, found.not_addressed) == (6, 9, 2)
        assert (found.clean, found.paused) == (True, False)

    @promise
    async def test_a_letter_gets_its_new_state(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, hold=[letter("lea", 1), letter("bo", 2)])
        (_, first), (_, second) = await state.letters(LetterFilter(), 10)
        await settle(state, letters=[(first.id, LetterState.REPLAYED)])
        assert [one.id for _, one in await state.letters(LetterFilter(), 10)] == [second.id]
        replayed = await state.letters(LetterFilter(state=LetterState.REPLAYED), 10)
        assert [one.profile for _, one in replayed] == [first.profile]
        assert (await consumer_of(state)).letters == 1, "what was replayed is not kept any more"

    @promise
    async def test_pauses_are_merged_into_what_is_stored(self, trial: StateTrial) -> None:
        state = await trial.open()
        assert await state.pauses() == {}
        await state.settle([], {"a": 10.5, "b": 20.0})
        await state.settle([], {"b": 30.0})
        await state.settle([Transition("plain", counts={"delivered": 1})])
        state = await trial.after_crash(state)
        assert await state.pauses() == {"a": 10.5, "b": 30.0}

    @promise
    async def test_a_full_disk_applies_nothing_and_a_later_try_passes(self, trial: StateTrial) -> None:
        state = await trial.open()
        transition = Transition(
            "plain", verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4)], counts={"delivered": 1}, watermark=2
        )
        trial.fail_next_settle(state, NoSpace)
        with pytest.raises(NoSpace):
            await state.settle([transition], {"a": 5.0})
        books = await consumer_of(state)
        assert (books.counts, books.held_profiles, books.watermark) == ({}, 0, 0)
        assert await state.keys("plain", [key_of("lea"), key_of("bo")]) == {}
        assert await state.pauses() == {}
        await state.settle([transition], {"a": 5.0})
        books = await consumer_of(state)
        assert (books.counts, books.held_profiles, books.watermark) == ({"delivered": 1}, 1, 2)
        assert (await entry_of(state, "lea")).settled_through == 3

    @promise
    async def test_after_a_storage_failure_nothing_is_settled_any_more(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, counts={"delivered": 1})
        trial.fail_next_settle(state, StorageFailed)
        for _ in range(3):
            with pytest.raises(StorageFailed):
                await settle(state, counts={"delivered": 1})
        survivor = await trial.after_crash(state)
        assert (await consumer_of(survivor)).counts in ({"delivered": 1}, {"delivered": 2})

    @promise
    async def test_a_transaction_of_several_consumers_is_applied_as_a_whole(self, trial: StateTrial) -> None:
        state = await trial.open()
        with pytest.raises(KeyError):
            await state.settle([Transition("plain", counts={"delivered": 1}), Transition("nobody", watermark=1)])
        assert (await consumer_of(state)).counts == {}
        await settle(state, counts={"delivered": 1})
        assert (await consumer_of(state)).counts == {"delivered": 1}
