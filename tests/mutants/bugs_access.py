"""Bugs in who may do what."""

from __future__ import annotations

from typing import Any

from bug import bug, swap

from engine.adapters.api_keys import clients, tokens
from engine.adapters.http_ingress import access, denials, token_endpoint
from engine.profiles.mapping import Mapper
from engine.service import admin, handlers

TOKENS = "tests/adapters/test_client_tokens.py"
ENDPOINT = "tests/adapters/test_token_endpoint.py"
PERMISSIONS = "tests/service/test_permissions.py"


@bug(
    9,
    f"{TOKENS}::test_a_token_with_any_byte_changed_is_none",
    f"{TOKENS}::test_the_claims_of_one_token_do_not_go_with_the_signature_of_another",
)
def signatures_are_not_compared() -> None:
    """anybody writes a token of his own"""
    swap(tokens.Signed, "is_signed_by", lambda original, signed, key: True)


@bug(9, f"{TOKENS}::test_a_token_with_any_byte_changed_is_none")
def signatures_are_compared_as_bytes() -> None:
    """a token has several spellings, so whoever keeps a list of stolen ones misses some"""

    def is_signed_by(original: Any, signed: Any, key: bytes) -> bool:
        claims = tokens.make(signed.claims, key).rpartition(".")
        return bool(claims[2] == signed.signature)

    swap(tokens.Signed, "is_signed_by", is_signed_by)


@bug(9, f"{TOKENS}::test_a_token_ends_after_its_time_and_a_short_grace", f"{ENDPOINT}::test_as_aep_does_it")
def tokens_never_end() -> None:
    """a token that was seen once is good for ever"""
    swap(clients.Clients, "_is_over", lambda original, one, claims, client: False)


@bug(
    9,
    f"{TOKENS}::test_a_client_that_is_removed_or_changed_takes_its_tokens_along",
    f"{TOKENS}::test_two_secrets_overlap_and_each_ends_with_its_own_tokens",
)
def tokens_outlive_their_secret() -> None:
    """a secret is replaced because it was stolen, and what the thief got for it goes on working"""
    swap(clients, "key_for", lambda original, signing_key, client_id, secret: original(signing_key, client_id, b""))


@bug(
    9,
    f"{TOKENS}::test_scopes_can_be_narrowed_and_never_widened",
    f"{ENDPOINT}::test_a_narrowed_token_may_do_no_more_than_it_asked_for",
)
def a_narrowed_token_is_whole() -> None:
    """a token for reading writes"""
    swap(clients, "_narrowed", lambda original, client, scopes: client.key)


@bug(9, f"{TOKENS}::test_an_unknown_client_is_compared_with_as_much_as_a_known_one")
def an_unknown_client_is_refused_faster() -> None:
    """ids can be told by the time"""
    swap(clients, "_matching", lambda original, known, presented: original(known, presented) if known else None)


@bug(
    9,
    f"{TOKENS}::test_too_many_wrong_secrets_are_told_to_wait_and_a_right_one_is_still_taken",
    f"{ENDPOINT}::test_guesses_are_slowed_down_and_the_owner_is_not_locked_out",
)
def guessing_is_free() -> None:
    """as many secrets can be tried as the machine compares"""
    swap(clients.Clients, "_wrong_once_more", lambda original, one, client_id: 0.0)


@bug(9, f"{ENDPOINT}::test_neither_secret_nor_token_is_logged")
def tokens_are_logged() -> None:
    """whoever reads the log calls in the client's name"""

    def granted(original: Any, grant: Any) -> Any:
        token_endpoint.logger.info("a token was issued: %s", grant.token)
        return original(grant)

    swap(token_endpoint, "_granted", granted)


@bug(9, f"{PERMISSIONS}::test_every_scope_opens_exactly_its_addresses")
def scopes_are_not_looked_at() -> None:
    """a producer's key erases people"""
    swap(access.Access, "require", lambda original, one, head, scope: one.caller(head))


@bug(
    9,
    f"{PERMISSIONS}::test_a_limited_caller_sees_its_destinations_and_no_other",
    f"{PERMISSIONS}::test_a_limited_caller_acts_on_its_destinations_and_no_other",
    f"{PERMISSIONS}::test_dead_letters_are_those_of_the_limited_callers_destination",
)
def a_limited_caller_sees_everything() -> None:
    """a key for one destination pauses another"""
    swap(handlers.Handlers, "_seen", lambda original, one, request: one._control())


@bug(9, f"{PERMISSIONS}::test_what_concerns_every_destination_is_refused_to_a_limited_caller")
def a_limited_caller_may_ask_about_all() -> None:
    """a key for one destination copies the data of all"""

    def admit(original: Any, operation: Any, head: Any, access: Any) -> None:
        access.require(head, operation.scope) if operation.scope else access.require_local(head)

    swap(admin, "_admit", admit)


@bug(6, f"{PERMISSIONS}::test_a_flood_of_denials_is_counted_whole_and_logged_in_part")
def every_denial_is_logged() -> None:
    """whoever may not, fills the disk with saying so"""
    swap(denials.Denials, "_may_log", lambda original, one, reason: True)


@bug(
    9,
    "tests/engine/test_what_may_leave.py::test_only_the_fields_of_the_destination_leave_it",
    "tests/engine/test_what_may_leave.py::test_a_replay_sends_only_the_fields_that_may_leave_by_then",
    "tests/engine/test_what_may_leave.py::test_what_waited_over_a_restart_is_narrowed_too",
)
def every_field_leaves() -> None:
    """what a destination must not have is sent to it"""
    swap(Mapper, "__init__", lambda original, one, **named: original(one, **named | {"fields": ("*",)}))
