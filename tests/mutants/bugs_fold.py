"""Bugs in the fold, in the slots, and in what counts as done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bug import bug, swap

from engine.core import fold, handover, lanes
from engine.core.coalescer import Coalescer
from engine.dispatcher import attempts, blame
from engine.dispatcher.consumer import Consumer
from engine.dispatcher.holding import Holding
from engine.model import Append, Lane, Membership, Profile, Verdict, VerdictKind
from engine.pipeline.reader import Reader


@bug(2, "tests/core/test_fold.py::test_per_field_the_last_event_that_carries_it_wins")
def merge_the_wrong_way_round() -> None:
    """the older event's fields win"""

    def fold_content(original: Callable[..., None], profile: Profile, content: bytes, *given: Any) -> None:
        *others, merge = given
        original(profile, content, *others, lambda older, newer: merge(newer, older))

    swap(fold, "_fold_content", fold_content)


@bug(2, "tests/core/test_fold.py::test_per_audience_the_newest_qualification_wins")
def the_older_qualification_of_an_audience_wins() -> None:
    """somebody who left an audience is put back into it"""

    def newest(older: Membership, newer: Membership) -> Membership:
        return older if older.qualified_at <= newer.qualified_at else newer

    def fold_audiences(older: Any, newer: Any) -> Any:
        both = {name: newest(older[name], newer[name]) for name in (older or {}).keys() & (newer or {}).keys()}
        return (older or {}) | (newer or {}) | both or None

    fold.fold_audiences = fold_audiences


@bug(2, "tests/core/test_coalescer.py::test_what_comes_while_a_key_is_leased_waits_behind_it_and_wins")
def two_leases_of_a_key() -> None:
    """two requests of one person race, and the older one may arrive last"""

    def may_go(coalescer: Coalescer, profile: Profile, lane: Lane) -> bool:
        return profile.lane == lane and coalescer._waiting.get(profile.key) is profile

    def add_all(original: Callable[..., int], coalescer: Coalescer, *given: Any, **named: Any) -> int:
        leased, coalescer._leased = coalescer._leased, {}
        taken = original(coalescer, *given, **named)
        coalescer._leased = leased
        return taken

    Coalescer._may_go = may_go  # type: ignore[method-assign]
    swap(Coalescer, "add_all", add_all)


@bug(4, "tests/core/test_fold.py::test_a_held_copy_of_what_is_already_merged_in_is_not_folded_again")
def a_held_copy_is_folded_in_twice() -> None:
    """its events are counted twice"""

    def fold_held(original: Callable[..., int], profile: Profile, *given: Any) -> int:
        profile.held_through = -1
        return original(profile, *given)

    swap(fold, "fold_held", fold_held)


@bug(2, "tests/engine/test_engine.py::test_a_replay_does_not_overwrite_a_newer_state")
def a_replay_overwrites_a_newer_state() -> None:
    """a dead letter handed in again wins over what was delivered since"""
    handover.overtaken = lambda part, confirmed_through: False  # type: ignore[assignment]


@bug(2, "tests/dispatcher/test_outcomes.py::test_suppression_needs_certainty")
def suppress_after_an_unknown_outcome() -> None:
    """the state that may have been overwritten by a lost request is taken for stored"""

    def record(original: Callable[..., Any], consumer: Consumer, profile: Profile, stored: Any) -> Any:
        profile.certain = True
        return original(consumer, profile, stored)

    swap(attempts, "_record", record)


@bug(3, "tests/core/test_lanes.py::test_every_lane_that_is_not_empty_gets_a_tenth_and_the_best_gets_the_rest")
def backfill_starves_live() -> None:
    """a CSV of a million rows goes before what people do now"""
    swap(lanes.LaneChooser, "next", lambda original, chooser, is_ready: next(filter(is_ready, reversed(Lane)), None))


@bug(3, "tests/core/test_lanes.py::test_every_lane_that_is_not_empty_gets_a_tenth_and_the_best_gets_the_rest")
def live_starves_backfill() -> None:
    """under a binding limit a backfill never ends"""
    swap(lanes.LaneChooser, "next", lambda original, chooser, is_ready: next(filter(is_ready, Lane), None))


@bug(6, "tests/dispatcher/test_release.py::test_a_full_buffer_leaves_events_in_the_journal_and_loses_none")
def drop_on_a_full_buffer() -> None:
    """what does not fit into memory is stepped over"""

    def offer(original: Callable[..., None], reader: Reader, append: Append) -> None:
        consumer = reader.consumer
        if consumer.position == append.first and not consumer.recovering and consumer.room() < len(append.events):
            consumer.books.skip(append.first, append.first + len(append.events))
            consumer.position = append.first + len(append.events)
        original(reader, append)

    swap(Reader, "offer", offer)


@bug(4, "tests/dispatcher/test_whose_fault.py::test_when_no_more_dead_letters_fit_profiles_wait")
def dead_letters_are_dropped_at_their_limit() -> None:
    """a rejected record disappears without a trace"""

    def bury(original: Callable[..., None], consumer: Consumer, profile: Profile, verdict: Verdict) -> None:
        if consumer.letters_full():
            consumer.coalescer.settle(profile.key)
        else:
            original(consumer, profile, verdict)

    swap(attempts, "_bury", bury)


@bug(4, "tests/dispatcher/test_outcomes.py::test_one_bad_record_is_found_and_the_others_are_delivered_in_few_requests")
def one_bad_record_dead_letters_its_batch() -> None:
    """99 good profiles end where the bad one belongs"""

    async def conclude(original: Callable[..., Any], consumer: Consumer, batch: Any, reply: Any, kinds: Any) -> None:
        for place, verdict in enumerate(reply.verdicts):
            if verdict.kind == VerdictKind.SPLIT:
                reply.verdicts[place] = Verdict(VerdictKind.REJECT, verdict.reason)
        await original(consumer, batch, reply, [verdict.kind for verdict in reply.verdicts])

    swap(attempts, "_conclude", conclude)


@bug(4, "tests/dispatcher/test_whose_fault.py::test_an_outage_of_hours_dead_letters_nothing")
def attempts_count_during_an_outage() -> None:
    """a destination that is down for an hour dead-letters everything that waited"""
    blame.Blame.opened = lambda one: None  # type: ignore[method-assign,assignment]


@bug(4, "tests/dispatcher/test_whose_fault.py::test_nobody_ages_while_the_destination_is_paused")
def age_runs_while_nothing_can_be_sent() -> None:
    """whatever waits out a pause is expired at its end"""
    Consumer.note_still = lambda consumer: None  # type: ignore[method-assign,assignment]


@bug(9, "tests/engine/test_engine.py::test_a_dead_letter_is_not_replayed_once_its_forget_was_accepted")
def a_replay_outlives_a_forget() -> None:
    """a person who was erased is sent again"""
    Consumer.is_forgotten = lambda consumer, *given: False  # type: ignore[method-assign,assignment]


@bug(
    9, "tests/dispatcher/test_outcomes.py::test_a_forget_in_the_middle_of_a_split_sends_nothing_of_the_person_any_more"
)
def a_split_sends_whom_a_forget_has_met() -> None:
    """half a batch is sent again with a person in it who was to be forgotten"""
    Coalescer.is_forgotten = lambda coalescer, key: False  # type: ignore[method-assign,assignment]


@bug(4, "tests/core/test_coalescer_disk.py::test_what_came_behind_a_lease_is_not_in_the_copy_that_was_taken_before")
def a_copy_stands_for_what_came_after_it() -> None:
    """the watermark passes an event that is on no disk but the journal's, from which it is then deleted"""

    def held(original: Callable[..., None], coalescer: Coalescer, key: bytes, last: int) -> None:
        if key in coalescer._holding:
            coalescer._holding[key] = (coalescer._holding[key][0], -1)
        original(coalescer, key, last)

    swap(Coalescer, "held", held)


@bug(2, "tests/dispatcher/test_release.py::test_a_copy_of_a_predecessor_is_sent_never_suppressed")
def a_copy_of_a_predecessor_is_certain() -> None:
    """what an earlier process may have sent since is taken for known"""
    Holding._is_of_this_process = lambda holding, held: True  # type: ignore[method-assign,assignment]
