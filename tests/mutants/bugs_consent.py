"""Bugs in consent and in erasure: somebody who said no is sent, or somebody who was forgotten is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bug import bug, swap

from engine.adapters.sqlite.journal import SqliteJournal
from engine.adapters.sqlite.state import SqliteState
from engine.config import checks
from engine.core import codec, consent, fold
from engine.dispatcher import attempts
from engine.dispatcher.books import Books
from engine.dispatcher.consumer import Consumer
from engine.dispatcher.recent import Recent
from engine.model import Profile

WITHDRAWN = "tests/engine/test_consent_withdrawn.py"
ERASED = "tests/assembly/test_erasure_proof.py"


@bug(9, f"{WITHDRAWN}::test_an_opt_out_holds_for_later_events_that_do_not_speak_of_it")
def an_opt_out_lasts_one_event() -> None:
    """the next event that does not speak of consent is sent"""
    attempts.recall = lambda profile, entry: None  # type: ignore[assignment]


@bug(9, f"{WITHDRAWN}::test_a_dead_letter_from_before_an_opt_out_does_not_leave_when_it_is_replayed")
def a_replay_brings_its_own_consent() -> None:
    """a dead letter from before the opt-out is sent after it"""

    def complete(original: Callable[..., None], consumer: Consumer, profile: Profile, stored: Any) -> None:
        word = next((part.consents for part in profile.under or () if part.consents), None)
        original(consumer, profile, stored)
        profile.consents = word or profile.consents

    swap(attempts, "_complete", complete)


@bug(9, f"{WITHDRAWN}::test_an_opt_out_meets_the_half_of_a_batch_that_is_split")
def a_split_does_not_listen() -> None:
    """half a batch is sent again with somebody in it who has said no meanwhile"""
    Consumer.is_withdrawn = lambda consumer, key: consumer.coalescer.is_forgotten(key)  # type: ignore[method-assign]


@bug(9, f"{WITHDRAWN}::test_with_a_flag_an_opt_out_leaves_as_the_address_alone")
def an_opt_out_takes_its_fields_along() -> None:
    """the flag says no, and all that is known of the person leaves beside it"""
    attempts.reduced = lambda profile, policy: profile  # type: ignore[assignment]


@bug(9, "tests/core/test_consent.py::test_what_holds_for_a_channel")
def a_channel_overrides_any() -> None:
    """whoever has refused everything is written to all the same"""
    consent.NO = "never"


@bug(9, "tests/core/test_consent.py::test_per_path_the_last_word_wins_and_silence_changes_nothing")
def the_first_word_wins() -> None:
    """nobody can withdraw a consent"""
    swap(fold, "fold_consents", lambda original, older, newer: original(newer, older))


@bug(9, "tests/dispatcher/test_recent.py::test_nothing_from_before_a_forget_is_known_while_that_is_being_written")
def a_forget_leaves_what_was_said() -> None:
    """somebody who was erased and comes back at once is still known"""

    def forget(original: Callable[..., None], recent: Recent, key: bytes, offset: int) -> None:
        original(recent, key, offset)
        recent._open.forgets.clear()

    swap(Recent, "forget", forget)


@bug(9, "tests/core/test_codec.py::test_a_hash_that_only_speaks_of_consent_is_emptied_as_well")
def erasing_overlooks_consents() -> None:
    """what a person who was erased has said about consent stays in the journal"""
    codec._holds_something = lambda event: event.content != b"{}" or bool(event.audiences)  # type: ignore[assignment]


@bug(9, f"{ERASED}::test_a_forget_leaves_no_byte_of_the_person_in_any_file")
def the_journal_is_not_erased() -> None:
    """the state file forgets, and the journal still holds every event"""

    async def erase(original: Callable[..., Any], journal: SqliteJournal, below: Any) -> int:
        return 0

    swap(SqliteJournal, "erase", erase)


@bug(9, f"{ERASED}::test_a_forget_leaves_no_byte_of_the_person_in_any_file")
def the_log_of_the_state_file_keeps_the_person() -> None:
    """rows are deleted, and stand in the WAL as before"""

    async def scrub(original: Callable[..., Any], state: SqliteState) -> None:
        return None

    swap(SqliteState, "scrub", scrub)


@bug(9, f"{ERASED}::test_a_forget_leaves_no_byte_of_the_person_in_any_file")
def dead_letters_survive_a_forget() -> None:
    """what could not be delivered of a person who was erased is kept for ninety days"""

    def forgotten(original: Callable[..., None], books: Books, key: bytes, offset: int, held: Any) -> None:
        original(books, key, offset, held)
        books.open.forget = []

    swap(Books, "forgotten", forgotten)


@bug(9, "tests/test_governance.py::test_a_policy_in_force_refuses_the_activation_and_shows_the_way")
def policies_are_not_enforced() -> None:
    """data that a contract forbids to hand on is handed on"""
    checks.check_governance = lambda config, reader: None  # type: ignore[assignment]
