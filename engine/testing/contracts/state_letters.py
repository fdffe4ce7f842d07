"""Promises about dead letters and held profiles: filters, pages, purge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.model import HeldKind, LetterState
from engine.ports import LetterFilter
from engine.testing.contracts.harness import key_of, promise
from engine.testing.contracts.state_data import (
    NOW,
    consumer_of,
    entry_of,
    key_state,
    letter,
    settle,
    verdict,
    waiting,
)

if TYPE_CHECKING:
    from engine.ports import State
    from engine.testing.contracts.state import StateTrial


async def lasts(state: State, /, **conditions: Any) -> list[int]:
    """The offsets of the letters that match, which name them here; `count_letters` has to agree."""
    which = LetterFilter(**conditions)
    found = [held.profile.last for _, held in await state.letters(which, 100)]
    assert await state.count_letters(which) == len(found)
    return found


async def with_letters(trial: StateTrial) -> State:
    state = await trial.open("plain", "listing")
    await settle(state, "plain", hold=[letter("lea", 1, at=NOW), letter("bo", 2, HeldKind.EXPIRED, at=NOW + 10)])
    await settle(state, "listing", hold=[letter("lea", 3, reason="http_400", at=NOW + 20), waiting("lea", 4)])
    return state


class Letters:
    @promise
    async def test_every_condition_of_a_filter_has_to_hold(self, trial: StateTrial) -> None:
        state = await with_letters(trial)
        assert await lasts(state) == [1, 2, 3]
        assert await lasts(state, consumer="plain") == [1, 2]
        assert await lasts(state, kind=HeldKind.EXPIRED) == [2]
        assert await lasts(state, kind=HeldKind.DEAD) == [1, 3]
        assert await lasts(state, reason="http_400") == [3]
        assert await lasts(state, key=key_of("lea")) == [1, 3]
        assert await lasts(state, key=key_of("lea"), consumer="listing") == [3]
        assert await lasts(state, consumer="plain", reason="http_400") == []
        assert await lasts(state, consumer="nobody") == []

    @promise
    async def test_the_bounds_of_a_time_are_within_it(self, trial: StateTrial) -> None:
        state = await with_letters(trial)
        assert await lasts(state, since=NOW + 10) == [2, 3]
        assert await lasts(state, until=NOW + 10) == [1, 2]
        assert await lasts(state, since=NOW + 1, until=NOW + 19) == [2]

    @promise
    async def test_letters_are_found_by_their_ids(self, trial: StateTrial) -> None:
        state = await with_letters(trial)
        ids = [held.id for _, held in await state.letters(LetterFilter(), 10)]
        assert ids == sorted(set(ids))
        assert all(id > 0 for id in ids)
        assert await lasts(state, ids=(ids[0], ids[2])) == [1, 3]
        assert await lasts(state, ids=(ids[0],), consumer="listing") == []
        assert await lasts(state, ids=()) == []

    @promise
    async def test_kept_letters_are_found_unless_another_state_is_asked_for(self, trial: StateTrial) -> None:
        state = await with_letters(trial)
        first = (await state.letters(LetterFilter(), 1))[0][1]
        await settle(state, "plain", letters=[(first.id, LetterState.OVERTAKEN)])
        assert await lasts(state) == [2, 3]
        assert await lasts(state, state=LetterState.OVERTAKEN) == [1]
        assert await lasts(state, state=None) == [1, 2, 3]

    @promise
    async def test_a_letter_names_its_consumer_and_its_cause(self, trial: StateTrial) -> None:
        state = await with_letters(trial)
        state = await trial.reopen(state)
        found = await state.letters(LetterFilter(), 10)
        assert [name for name, _ in found] == ["plain", "plain", "listing"]
        held, given = found[0][1], letter("lea", 1)
        assert (held.profile, held.reason, held.excerpt, held.at, held.kind, held.state) == (
            given.profile,
            given.reason,
            given.excerpt,
            NOW,
            HeldKind.DEAD,
            LetterState.KEPT,
        )

    @promise
    async def test_the_verdicts_of_a_consumer_with_letters_are_kept(self, trial: StateTrial) -> None:
        """A letter that is handed in again has to find out what has overtaken it."""
        state = await trial.open("plain")
        await settle(state, hold=[letter("lea", 1)])
        for _ in range(2):
            assert state.keeps_verdicts("plain")
            await settle(state, verdicts=[verdict("lea", 5, confirmed=5)], watermark=8)
            assert (await entry_of(state, "lea")).confirmed_through == 5
            state = await trial.reopen(state)

    @promise
    async def test_letters_come_in_pages(self, trial: StateTrial) -> None:
        state = await trial.open()
        await settle(state, hold=[letter(f"p{number}", number) for number in range(7)])
        seen, after = [], 0
        while page := await state.letters(LetterFilter(), 3, after=after):
            ids = [held.id for _, held in page]
            assert len(page) <= 3
            assert [after, *ids] == sorted({after, *ids})
            seen += [held.profile.last for _, held in page]
            after = ids[-1]
        assert seen == list(range(7))

    @promise
    async def test_held_profiles_come_in_pages(self, trial: StateTrial) -> None:
        state = await trial.open("plain", "listing")
        await settle(state, hold=[waiting(f"p{number}", number) for number in range(7)] + [letter("lea", 99)])
        await settle(state, "listing", hold=[waiting("lea", 50)])
        seen, after = [], 0
        while page := await state.held("plain", 3, after=after):
            ids = [held.id for held in page]
            assert len(page) <= 3
            assert [after, *ids] == sorted({after, *ids})
            seen += [held.profile.last for held in page]
            after = ids[-1]
        assert seen == list(range(7))

    @promise
    async def test_purged_letters_keep_their_place_and_lose_their_content(self, trial: StateTrial) -> None:
        state = await with_letters(trial)
        assert await state.purge_letters(LetterFilter(key=key_of("lea"))) == 2
        assert await state.purge_letters(LetterFilter(key=key_of("lea"))) == 0
        assert await lasts(state) == [2]
        state = await trial.reopen(state)
        purged = [held for _, held in await state.letters(LetterFilter(state=LetterState.PURGED), 10)]
        assert [(one.profile.key, one.profile.last) for one in purged] == [(key_of("lea"), 1), (key_of("lea"), 3)]
        assert all((one.profile.content, one.profile.audiences, one.excerpt) == (b"{}", None, "") for one in purged)
        assert [one.reason for one in purged] == ["response_code_103", "http_400"]
        assert (await key_state(state, "lea", "listing")).held is not None, "what still waits is no letter"
        assert ((await consumer_of(state, "plain")).letters, (await consumer_of(state, "listing")).letters) == (1, 0)
