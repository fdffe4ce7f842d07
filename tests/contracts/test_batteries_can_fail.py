"""A battery that nobody can fail is worth nothing: each is run against implementations with one defect sown in."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_journals import TestMemoryJournal as MemoryJournals
from test_journals import TestSqliteJournal as SqliteJournals
from test_states import KeptInMemory, limits_of
from test_states import TestStateInMemory as MemoryStates

from engine.adapters.memory_journal import MemoryJournal
from engine.adapters.sqlite import SqliteJournal
from engine.adapters.sqlite.run_sql import Audiences
from engine.core.codec import unpack_events
from engine.errors import StorageFailed
from engine.history import OutcomeFilter
from engine.model import Append, Batch, Held, HeldKind, LedgerEntry, Profile, Reply
from engine.ports import JournalTail, KeyState, LetterFilter, Permit, Transition
from engine.testing.contracts import DestinationContract, JournalContract, Limits, StateContract
from engine.testing.destination import FakeDestination

pytestmark = pytest.mark.seeded


def broken_promises(battery: object, directory: Path) -> set[str]:
    """The names of the battery's tests that fail."""
    broken = set()
    for name in dir(battery):
        if name.startswith("test_"):
            home = directory / name
            home.mkdir()
            try:
                getattr(battery, name)(home)
            except pytest.skip.Exception:
                continue
            except (Exception, pytest.fail.Exception):
                broken.add(name.removeprefix("test_"))
    return broken


# -- journals -------------------------------------------------------------------------------------------------------


class AnswersEarly(MemoryJournal):
    """Says that it is stored, and stores it a moment later."""

    async def append(self, appends: Sequence[Append], /) -> int:
        first = getattr(self, "promised", 0)
        self.promised = first + sum(len(append.events) for append in appends)
        asyncio.get_running_loop().call_later(
            0.01, lambda: asyncio.ensure_future(super(AnswersEarly, self).append(appends))
        )
        return first


class LosesOrder(MemoryJournal):
    async def append(self, appends: Sequence[Append], /) -> int:
        return await super().append(list(reversed(appends)))


class MixesUpThePacked(MemoryJournal):
    async def append(self, appends: Sequence[Append], /) -> int:
        for append in appends:
            append.events = unpack_events(append.packed)[::-1] if append.packed else append.events
        return await super().append(appends)


class CountsAppends(MemoryJournal):
    """Gives every append one offset, however many events it has."""

    async def append(self, appends: Sequence[Append], /) -> int:
        first = await super().append(appends)
        return len([one for one in self._appends if one.first < first])


class DoesNotCut(MemoryJournal):
    async def read(self, start: int, events: int, /) -> list[Append]:
        found = await super().read(start, events)
        if found and found[0].first == start:
            found[0] = next(one for one in self._appends if one.first + len(one.events) > start)
        return found


class CutsAtTheWrongPlace(MemoryJournal):
    async def read(self, start: int, events: int, /) -> list[Append]:
        found = await super().read(start, events)
        for append in found[:1]:
            append.first = max(0, append.first - 1) if append.first % 2 else append.first
        return found


class ReadsPastTheEnd(MemoryJournal):
    async def read(self, start: int, events: int, /) -> list[Append]:
        return await super().read(start, events) or self._appends[-1:]


class ReadsEverything(MemoryJournal):
    async def read(self, start: int, events: int, /) -> list[Append]:
        return await super().read(start, 1 << 30)


class ForgetsTheNewest(MemoryJournal):
    """Deletes the newest row as well, and with it the next offset."""

    def release(self, below: int, /) -> None:
        super().release(below)
        if not self._appends:
            self._next = self._first = 0


class ReleasesTooMuch(MemoryJournal):
    def release(self, below: int, /) -> None:
        super().release(below + 1)


class NeverReleases(MemoryJournal):
    def release(self, below: int, /) -> None:
        """Nothing."""


class WritesWhatFits(MemoryJournal):
    """Refuses a group in the middle, and leaves the first half of it stored."""

    async def append(self, appends: Sequence[Append], /) -> int:
        first = await super().append(appends[:1])
        for append in appends[1:]:
            await super().append([append])
        return first


class KnowsNoLimit(MemoryJournal):
    def _check(self, incoming: int) -> None:
        """There is always room."""


class ProbesBlindly(MemoryJournal):
    async def probe(self) -> None:
        """There is always room."""


class TriesAgain(MemoryJournal):
    """Takes a failed fsync for a passing trouble."""

    async def append(self, appends: Sequence[Append], /) -> int:
        self._failed = False
        return await super().append(appends)


class ErasesTheWholeKey(MemoryJournal):
    async def erase(self, below: Mapping[bytes, int], /) -> int:
        return await super().erase(dict.fromkeys(below, 1 << 60))


class ErasesOneTooFew(MemoryJournal):
    async def erase(self, below: Mapping[bytes, int], /) -> int:
        return await super().erase({key: offset - 1 for key, offset in below.items()})


class KeepsWhatCameInAgain(MemoryJournal):
    async def erase(self, below: Mapping[bytes, int], /) -> int:
        kept = [(one, one.events) for one in self._appends if one.first >= max(below.values(), default=0)]
        await super().erase(below)
        for append, events in kept:
            append.events = events
        return 2


class ErasesByDeleting(MemoryJournal):
    async def erase(self, below: Mapping[bytes, int], /) -> int:
        count = 0
        for append in self._appends:
            kept = [one for one in append.events if one.key not in below]
            count += len(kept) < len(append.events)
            append.events = kept
        return count


class AnotherIdEachTime(MemoryJournal):
    async def open(self) -> JournalTail:
        self.opened = getattr(self, "opened", 0) + 1
        return msgspec.structs.replace(await super().open(), id=f"{self.opened}")


class CommitsLater(SqliteJournal):
    """Leaves the commit to the next append: gone after a crash."""

    def _commit(self, connection: sqlite3.Connection, appends: Sequence[Append]) -> int:
        if connection.in_transaction:
            connection.execute("COMMIT")
        first = super()._commit(connection, appends)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM append WHERE first >= ?", (first,))
        connection.execute("COMMIT")
        return first


class KeepsOldChecksums(SqliteJournal):
    """Rewrites erased rows and forgets their checksums."""

    async def erase(self, below: Mapping[bytes, int], /) -> int:
        def spoil(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE append SET crc = crc + 1")

        rewritten = await super().erase(below)
        await self._writer.run(spoil)
        return rewritten


IN_MEMORY = [
    (AnswersEarly, "what_was_appended_is_on_disk_when_append_returns"),
    (LosesOrder, "a_group_of_appends_is_stored_in_order"),
    (MixesUpThePacked, "events_that_came_packed_are_events_like_others"),
    (CountsAppends, "offsets_grow_without_gaps"),
    (DoesNotCut, "an_append_that_begins_earlier_comes_cut"),
    (CutsAtTheWrongPlace, "an_append_that_begins_earlier_comes_cut"),
    (ReadsPastTheEnd, "reading_past_the_end_gives_nothing"),
    (ReadsEverything, "about_as_many_events_come_as_were_asked_for"),
    (ForgetsTheNewest, "the_next_offset_survives_the_release_of_everything"),
    (ReleasesTooMuch, "release_takes_nothing_at_or_above_its_offset"),
    (NeverReleases, "what_was_released_is_deleted_in_the_background"),
    (WritesWhatFits, "a_refused_append_has_written_nothing"),
    (KnowsNoLimit, "a_full_journal_refuses_before_it_grows_past_its_limit"),
    (ProbesBlindly, "a_probe_that_passes_is_followed_by_an_append_that_passes"),
    (TriesAgain, "after_a_storage_failure_nothing_is_appended_any_more"),
    (ErasesTheWholeKey, "erase_empties_the_events_of_the_key_below_its_offset_and_no_other"),
    (ErasesOneTooFew, "every_key_has_an_offset_of_its_own"),
    (KeepsWhatCameInAgain, "a_replay_is_as_old_as_what_it_carries"),
    (ErasesByDeleting, "offsets_stay_taken_and_whole_after_reopening"),
    (AnotherIdEachTime, "the_next_process_goes_on_where_this_one_ended"),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never happens is not waited for."""
    monkeypatch.setattr("engine.testing.contracts.harness.PROMISE_SECONDS", 0.25)


@pytest.mark.parametrize(("defect", "promise"), IN_MEMORY, ids=lambda value: getattr(value, "__name__", ""))
def test_a_journal_with_a_defect_fails_the_battery(defect: type[MemoryJournal], promise: str, tmp_path: Path) -> None:
    class Broken(MemoryJournals):
        def make(self, directory: Path, max_bytes: int, /) -> MemoryJournal:
            return defect(max_bytes=max_bytes)

    assert promise in broken_promises(Broken(), tmp_path)


@pytest.mark.parametrize(
    ("defect", "promise"),
    [
        (CommitsLater, "what_was_appended_is_on_disk_when_append_returns"),
        (KeepsOldChecksums, "offsets_stay_taken_and_whole_after_reopening"),
    ],
)
def test_a_journal_on_disk_with_a_defect_fails_its_promise(
    defect: type[SqliteJournal], promise: str, tmp_path: Path
) -> None:
    class Broken(SqliteJournals):
        def make(self, directory: Path, max_bytes: int, /) -> SqliteJournal:
            return defect(directory / "journal.db", max_bytes=max_bytes)

    with pytest.raises((AssertionError, StorageFailed)):
        getattr(Broken(), f"test_{promise}")(tmp_path)


# -- state files ----------------------------------------------------------------------------------------------------


class ChangesTransitions(KeptInMemory):
    """Applies something else than it was told."""

    def change(self, transition: Transition) -> Transition:
        raise NotImplementedError

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        await super().settle([self.change(msgspec.structs.replace(one)) for one in transitions], pauses)


class CountsTwice(ChangesTransitions):
    def change(self, transition: Transition) -> Transition:
        transition.counts = {name: 2 * events for name, events in transition.counts.items()}
        return transition


class DropsWhateverCame(ChangesTransitions):
    """Ignores `through`."""

    def change(self, transition: Transition) -> Transition:
        transition.drop = [(key, 1 << 60) for key, _ in transition.drop]
        return transition


class NeverDrops(ChangesTransitions):
    def change(self, transition: Transition) -> Transition:
        transition.drop = []
        return transition


class ForgetsThatItForgot(ChangesTransitions):
    """Deletes a forgotten key, and does not account for it."""

    def change(self, transition: Transition) -> Transition:
        transition.forget = [(key, -1) for key, _ in transition.forget]
        return transition


class OverlooksChanges(ChangesTransitions):
    def change(self, transition: Transition) -> Transition:
        transition.verdicts = [entry for entry in transition.verdicts if entry.outcome]
        return transition


class TakesAChangeForAnOutcome(ChangesTransitions):
    def change(self, transition: Transition) -> Transition:
        transition.verdicts = [
            entry if entry.outcome else msgspec.structs.replace(entry, outcome="changed")
            for entry in transition.verdicts
        ]
        return transition


class KeepsOneLetter(KeptInMemory):
    """A letter replaces the earlier one of its key."""

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        for held in (held for one in transitions for held in one.hold if held.kind != HeldKind.WAITING):
            await self._writer.run(
                lambda connection, key=held.profile.key: connection.execute(  # type: ignore[misc]
                    "DELETE FROM held WHERE key = ? AND kind <> 'waiting'", (key,)
                )
            )
        await super().settle(transitions, pauses)


class ForgetsPauses(KeptInMemory):
    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        if pauses:
            await self._writer.run(lambda connection: connection.execute("DELETE FROM pause"))
        await super().settle(transitions, pauses)


class AccountsForTheLedger(KeptInMemory):
    """Prunes what recovery needs together with the ledger."""

    async def prune(self, now: float, /) -> None:
        await super().prune(now)
        await self._writer.run(lambda connection: connection.execute("DELETE FROM verdicts"))


class IgnoresTheWatermark(KeptInMemory):
    async def accounted(self, consumer: str, /) -> dict[bytes, int]:
        found = await super().accounted(consumer)
        return found or {b"k" * 32: 0}


class AnswersFromTheLedger(KeptInMemory):
    """Does not know what is not folded yet."""

    async def keys(self, consumer: str, keys: Sequence[bytes], /) -> dict[bytes, KeyState]:
        found = await super().keys(consumer, keys)
        return {key: one for key, one in found.items() if one.held is not None or len(found) > 1}


class KeepsTheFirstHeld(KeptInMemory):
    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        changed = []
        for one in transitions:
            known = await self.keys(one.consumer, [held.profile.key for held in one.hold])
            hold = [held for held in one.hold if not self._is_known(held, known)]
            changed.append(msgspec.structs.replace(one, hold=hold))
        await super().settle(changed, pauses)

    def _is_known(self, held: Held, known: dict[bytes, KeyState]) -> bool:
        state = known.get(held.profile.key)
        return held.kind == HeldKind.WAITING and state is not None and state.held is not None


class PagesOverlap(KeptInMemory):
    async def held(self, consumer: str, limit: int, /, after: int = 0) -> list[Held]:
        return await super().held(consumer, limit, after=max(0, after - 1))


class FiltersByOneCondition(KeptInMemory):
    async def letters(self, which: LetterFilter, limit: int, /, after: int = 0) -> list[tuple[str, Held]]:
        if which.reason is not None:
            which = LetterFilter(reason=which.reason)
        return await super().letters(which, limit, after=after)


class PurgesTheRowToo(KeptInMemory):
    async def purge_letters(self, which: LetterFilter, /) -> int:
        purged = await super().purge_letters(which)
        await self._writer.run(lambda connection: connection.execute("DELETE FROM held WHERE state = 'purged'"))
        return purged


class ForgetsItsLetters(KeptInMemory):
    """It keeps verdicts only for the ledger that it has not got."""

    def keeps_verdicts(self, consumer: str, /) -> bool:
        return False


class KeepsTheLedger(KeptInMemory):
    """A consumer that is added again finds the counts of the old one."""

    async def add_consumer(self, state: Any, /) -> None:
        known = [one for one in await self.consumers() if one.name == state.name]
        await super().add_consumer(state)
        await self.settle([Transition(state.name, counts=dict(known[0].counts))] if known else [])


class CountsInOneHour(KeptInMemory):
    """All runs are one."""

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        await super().settle([msgspec.structs.replace(one, at=0.0) for one in transitions], pauses)


class KeepsEveryAudience(KeptInMemory):
    def _apply(self, *arguments: Any) -> list[int]:
        self._audiences = Audiences(1_000)
        return super()._apply(*arguments)


class PrunesTheSums(KeptInMemory):
    async def prune(self, now: float, /) -> None:
        await super().prune(now)
        await self._writer.run(lambda connection: connection.execute("DELETE FROM run WHERE hour = -1"))


class SkipsTheEndOfAPage(KeptInMemory):
    async def outcomes(self, which: OutcomeFilter, after: bytes | None, /) -> tuple[list[LedgerEntry], bytes | None]:
        found, after = await super().outcomes(which, after)
        return (found[:-1] if after else found), after


STATES = [
    (CountsInOneHour, "counts_stand_in_the_run_of_their_hour"),
    (KeepsEveryAudience, "audiences_beyond_the_limit_are_counted_together"),
    (PrunesTheSums, "a_run_that_is_too_old_goes_and_its_sums_stay"),
    (SkipsTheEndOfAPage, "every_last_outcome_is_in_one_page"),
    (CountsTwice, "counts_add_up"),
    (DropsWhateverCame, "drop_deletes_a_waiting_profile_only_up_to_its_offset"),
    (NeverDrops, "drop_deletes_a_waiting_profile_only_up_to_its_offset"),
    (ForgetsThatItForgot, "a_forgotten_key_stays_accounted_for"),
    (OverlooksChanges, "a_change_takes_the_digest_away_and_keeps_what_happened"),
    (TakesAChangeForAnOutcome, "a_change_takes_the_digest_away_and_keeps_what_happened"),
    (KeepsOneLetter, "letters_are_added_beside_each_other"),
    (ForgetsPauses, "pauses_are_merged_into_what_is_stored"),
    (AccountsForTheLedger, "what_recovery_needs_is_kept_whatever_the_limits_say"),
    (IgnoresTheWatermark, "accounted_follows_the_watermark"),
    (AnswersFromTheLedger, "the_later_verdict_replaces_the_earlier_one"),
    (KeepsTheFirstHeld, "a_waiting_profile_replaces_the_keys_earlier_one"),
    (PagesOverlap, "held_profiles_come_in_pages"),
    (FiltersByOneCondition, "every_condition_of_a_filter_has_to_hold"),
    (PurgesTheRowToo, "purged_letters_keep_their_place_and_lose_their_content"),
    (ForgetsItsLetters, "the_verdicts_of_a_consumer_with_letters_are_kept"),
    (KeepsTheLedger, "a_consumer_that_is_added_again_starts_with_an_empty_ledger_and_keeps_its_letters"),
]
MODELLED = (
    *(CountsTwice, DropsWhateverCame, NeverDrops, ForgetsThatItForgot, KeepsOneLetter, KeepsTheFirstHeld),
    *(OverlooksChanges, TakesAChangeForAnOutcome),
)


def battery_of(defect: type[KeptInMemory]) -> StateContract:
    class Broken(MemoryStates):
        def make(self, directory: Path, limits: Limits, /) -> KeptInMemory:
            return defect(None, **limits_of(limits))

    return Broken()


@pytest.mark.parametrize(("defect", "promise"), STATES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_state_file_with_a_defect_fails_its_promise(
    defect: type[KeptInMemory], promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.testing.contracts.harness.PROMISE_SECONDS", 10.0)
    with pytest.raises(AssertionError):
        getattr(battery_of(defect), f"test_{promise}")(tmp_path)


@pytest.mark.parametrize("defect", MODELLED)
def test_the_model_finds_the_defect_too(
    defect: type[KeptInMemory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.testing.contracts.harness.PROMISE_SECONDS", 10.0)
    with pytest.raises(AssertionError):
        battery_of(defect).test_any_sequence_of_transitions_ends_as_the_model_says(tmp_path)


# -- destinations ---------------------------------------------------------------------------------------------------


class OneVerdictForAll(FakeDestination):
    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        reply = await super().send(batch, permit)
        return msgspec.structs.replace(reply, verdicts=reply.verdicts[:1])


class NeverTheSame(FakeDestination):
    def encode(self, profile: Profile, /) -> bytes:
        self.encoded = getattr(self, "encoded", 0) + 1
        return profile.content + b" " * self.encoded


class ShapesByAttempts(FakeDestination):
    def encode(self, profile: Profile, /) -> bytes:
        return profile.content + b" " * profile.attempts


class RestlessFingerprint(FakeDestination):
    @property
    def fingerprint(self) -> bytes:
        return b"%d" % len(self.requests)


class IgnoresThePermit(FakeDestination):
    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        class Anyhow:
            token = ""

            async def use(self) -> None:
                """Send whatever they say."""

        return await super().send(batch, Anyhow())


@pytest.mark.parametrize(
    ("defect", "promise"),
    [
        (OneVerdictForAll, "send_returns_one_verdict_for_each_profile"),
        (NeverTheSame, "encode_is_pure_and_repeatable"),
        (ShapesByAttempts, "what_is_not_content_shapes_no_record"),
        (RestlessFingerprint, "the_fingerprint_is_stable"),
        (IgnoresThePermit, "every_attempt_uses_its_permit_once"),
        (IgnoresThePermit, "a_void_permit_is_let_through_and_the_next_attempt_works"),
    ],
)
def test_a_destination_with_a_defect_fails_its_promise(
    defect: type[FakeDestination], promise: str, tmp_path: Path
) -> None:
    class Broken(DestinationContract):
        def make(self, directory: Path, /) -> AbstractAsyncContextManager[FakeDestination]:
            return self._make()

        @asynccontextmanager
        async def _make(self) -> Any:
            yield defect(profiles_per_request=5)

    assert promise in broken_promises(Broken(), tmp_path)


# -- and those without a defect -------------------------------------------------------------------------------------


@pytest.mark.parametrize("battery", [MemoryJournals, MemoryStates])
def test_what_has_no_defect_passes(
    battery: type[JournalContract] | type[StateContract], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.testing.contracts.harness.PROMISE_SECONDS", 10.0)
    assert broken_promises(battery(), tmp_path) == set()
