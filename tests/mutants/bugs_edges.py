"""Bugs at the edges: what is taken in, answered, logged and configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bug import bug, swap

from engine.adapters import inflate
from engine.adapters.http_ingress import fast, ingress
from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.turns import Turns
from engine.cli import logs
from engine.config.problems import Reader
from engine.dispatcher import attempts
from engine.dispatcher.books import Books

ATTACKS = "tests/adapters/test_http_attacks.py"


@bug(7, "tests/adapters/test_http_ingress.py::test_a_bad_record_leaves_the_others_alone")
def one_bad_record_refuses_the_batch() -> None:
    """a 400 for all: AEP never sends the good ones again"""

    async def accept(original: Callable[..., Any], one: Any, *given: Any) -> Any:
        answer = await original(one, *given)
        if answer.status == 207:
            raise Problem("unreadable", "one of the records is bad")
        return answer

    swap(ingress.Ingress, "_accept", accept)


@bug(7, "tests/adapters/test_http_ingress.py::test_a_commit_that_is_late_is_answered_in_time_and_goes_on")
def a_late_commit_is_waited_for() -> None:
    """AEP counts the batch as failed after 2 s, whatever is answered then"""
    ingress.ANSWER_SHARE = 1e9


@bug(7, f"{ATTACKS}::test_an_answer_that_is_ready_waits_for_the_one_before_it")
def answers_leave_as_they_come() -> None:
    """a pipelining producer takes the answer to one body for that to another"""

    def settle(original: Callable[..., None], turns: Any, turn: Any, wire: bytes) -> None:
        turns._waiting.remove(turn)
        turns._write(wire)

    swap(Turns, "settle", settle)


@bug(6, f"{ATTACKS}::test_a_body_behind_an_offer_of_another_protocol_is_a_body")
def a_body_behind_an_offer_is_a_request() -> None:
    """one caller's body is executed as a request that nobody sent"""
    fast.length_by_hand = lambda head: 0


@bug(6, f"{ATTACKS}::test_more_around_chunks_than_in_them_is_refused")
def chunks_may_have_anything_around_them() -> None:
    """one connection fills the memory with a trailer"""
    fast.FRAMING_BYTES = 1 << 60


@bug(6, "tests/adapters/test_inflate.py::test_exactly_the_limit_passes_and_one_more_does_not")
def a_bomb_is_unpacked() -> None:
    """some kilobytes fill the memory"""
    swap(inflate, "_members", lambda original, body, make, max_bytes: original(body, make, 1 << 40))


@bug(
    9,
    "tests/cli/test_cli_logs.py::test_an_address_is_masked_wherever_it_stands",
    "tests/cli/test_cli_logs.py::test_messages_extras_and_tracebacks_are_masked",
)
def an_address_is_logged() -> None:
    """e-mail addresses stand in the log"""
    logs.masked = lambda text: text  # type: ignore[assignment]


@bug(9, "tests/dispatcher/test_whose_fault.py::test_what_broke_while_it_was_sent_is_logged_without_the_person")
def what_broke_is_logged_with_the_record() -> None:
    """the text of a destination's exception quotes the profile"""

    async def send(original: Callable[..., Any], consumer: Any, batch: Any, permit: Any) -> Any:
        reply = await original(consumer, batch, permit)
        if reply.destination_fault:
            attempts.logger.error("sending failed: %s", batch.records)
        return reply

    swap(attempts, "_send", send)


@bug(6, "tests/test_config.py::test_every_unknown_key_of_every_table_is_refused_by_its_full_path")
def unknown_keys_are_accepted() -> None:
    """a limit with a typing error in its name is no limit"""

    def report(original: Callable[..., None], reader: Any, key: str, what: str, **named: Any) -> None:
        if not what.startswith("unknown key"):
            original(reader, key, what, **named)

    swap(Reader, "report", report)


@bug(4, "tests/dispatcher/test_whose_fault.py::test_a_rejected_record_leaves_the_others_of_its_batch_alone")
def a_rejected_record_is_not_counted() -> None:
    """the sums no longer come out even"""

    def count(original: Callable[..., str], books: Books, reason: str, events: int) -> str:
        return reason if reason.startswith("dead_lettered") else original(books, reason, events)

    swap(Books, "_count", count)
