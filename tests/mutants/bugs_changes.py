"""Bugs in what is made of changes that RainFocus reports."""

from __future__ import annotations

import msgspec
from bug import bug, swap

import engine.adapters.webhook as webhook
import engine.assembly.forwards as forwards
from engine.dispatcher.books import Books
from engine.dispatcher.changes import Changes
from engine.dispatcher.consumer import Consumer
from engine.model import Kind, LedgerEntry

CHANGES = "tests/dispatcher/test_changes.py"
WAY_BACK = "tests/engine/test_way_back.py"
WEBHOOK = "tests/adapters/test_webhook.py"


@bug(
    4,
    f"{CHANGES}::test_the_same_content_is_sent_again_after_a_change",
    f"{CHANGES}::test_a_change_that_was_accepted_survives_a_crash",
    f"{CHANGES}::test_every_destination_hears_of_it",
    "tests/assembly/test_loop.py::test_what_was_edited_in_rainfocus_is_put_right_by_the_next_unchanged_event",
)
def a_digest_survives_a_change() -> None:
    """What was edited at RainFocus stays for ever, however often a producer says otherwise."""
    Books.changed = lambda books, key, attendee_id, at: None  # type: ignore[method-assign]


@bug(
    4,
    f"{CHANGES}::test_an_attempt_that_was_under_way_leaves_no_digest",
    f"{CHANGES}::test_a_change_that_comes_during_the_look_up_is_not_overlooked",
)
def a_change_during_an_attempt_is_overlooked() -> None:
    """Suppression without certainty: which of the two came first over there nobody knows."""
    Changes.came = lambda changes, key: False  # type: ignore[method-assign]


@bug(1, f"{CHANGES}::test_a_waiting_event_from_before_the_change_is_not_lost_in_a_crash")
def a_change_counts_as_an_outcome() -> None:
    """Recovery takes what still waits for settled."""

    def changed(books: Books, key: bytes, attendee_id: str, *, at: float) -> None:
        books._write(LedgerEntry(key, "excluded", "changed", 10**6, at=at, attendee_id=attendee_id))

    Books.changed = changed  # type: ignore[method-assign]


@bug(4, f"{CHANGES}::test_a_destination_that_reads_certain_sources_hears_of_every_change")
def changes_are_left_to_those_that_read_every_source() -> None:
    """A destination with `sources` never hears that its attendees were changed."""

    def take(original, consumer, append, *given):  # type: ignore[no-untyped-def]
        if any(event.kind == Kind.CHANGE for event in append.events) and consumer.policy.sources is not None:
            append = msgspec.structs.replace(append, source="rainfocus")
        original(consumer, append, *given)

    swap(Consumer, "take", take)


@bug(2, f"{WAY_BACK}::test_every_event_is_forwarded_in_order_and_none_goes_to_rainfocus")
def the_newest_change_replaces_the_others() -> None:
    """As if changes were states: what led to the newest one is lost."""
    forwards.join_changes = lambda older, newer: (newer, 0)


@bug(2, f"{WAY_BACK}::test_a_dead_letter_is_forwarded_when_it_is_replayed_whatever_came_since")
def a_replayed_change_is_overtaken() -> None:
    """As if changes were states: an event that was refused once is never passed on."""
    original = forwards._policy
    forwards._policy = lambda whole, config: msgspec.structs.replace(original(whole, config), every_event=False)


@bug(
    2,
    f"{WEBHOOK}::test_the_receiver_can_verify_it_with_either_secret",
    "tests/assembly/test_loop.py::test_the_change_reaches_whoever_wants_to_know_signed",
)
def the_body_is_not_what_was_signed() -> None:
    """A receiver that verifies refuses everything."""
    original = webhook.signed_headers
    webhook.signed_headers = lambda keys, id, timestamp, body: original(keys, id, timestamp, body + b"\n")
