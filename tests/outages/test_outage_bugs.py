"""A test that cannot fail is a defect: each of these bugs is put in on purpose, and an outage test has to find it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import outage
import pytest
import test_outage_connections as connections
import test_outage_hot_keys as hot_keys
import test_outage_ingress as ingress
import test_outage_replies as replies
import test_outage_retry_after as retry_after
import test_outage_storms as storms
from outage import address, event, fault_for, on_virtual_time, virtual_scene

from engine import transport
from engine.adapters import rainfocus, sessions
from engine.adapters.oauth import OAuthTokenSource
from engine.adapters.raw_http import connection
from engine.adapters.raw_http.deadlines import Deadlines
from engine.assembly import engine as assembled
from engine.core import verdicts
from engine.core.breaker import Breaker
from engine.core.coalescer import Coalescer
from engine.core.retry_after import parse
from engine.dispatcher import attempts
from engine.dispatcher.account import Account
from engine.dispatcher.retries import Retries
from engine.model import Lane, Profile, Reply, Verdict, VerdictKind
from engine.profiles.formats import Reader
from engine.sandbox import Fault
from engine.transport import Answer

pytestmark = pytest.mark.seeded

Patch = Callable[[pytest.MonkeyPatch], None]
Outage = Callable[[], object]
BUGS: dict[str, tuple[Patch, Outage]] = {}


def ignore(name: str, value: object) -> None:
    """In place of `record_property`."""


def bug(outage: Callable[..., Any], **fixtures: Any) -> Callable[[Patch], Patch]:
    """`outage`: the test that has to find it, with its parameters."""

    def register(patch: Patch) -> Patch:
        BUGS[patch.__name__] = (patch, lambda: outage(record_property=ignore, **fixtures))
        return patch

    return register


def wrap(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """`wrapper(original, *arguments)` in place of a function or method."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: wrapper(original, *given, **named))


# -- silence, storms, tokens ------------------------------------------------------------------------------------------

SILENCE = {"status": 429, "retry_after": 7, "seconds": None, "window": 7.0}


@bug(retry_after.test_nothing_is_sent_in_the_time_that_was_asked_for_and_all_goes_on_after_it, **SILENCE)
def a_silence_that_was_asked_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "pause", lambda account, seconds: None)


@bug(
    retry_after.test_nothing_is_sent_in_the_time_that_was_asked_for_and_all_goes_on_after_it,
    **{**SILENCE, "retry_after": "date", "seconds": 20.0, "window": 20.0},
)
def a_date_is_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    only_seconds = lambda value, now: parse(value, now) if value.strip().isdigit() else None  # noqa: E731
    monkeypatch.setattr("engine.core.retry_after.parse", only_seconds)


@bug(
    retry_after.test_nothing_is_sent_in_the_time_that_was_asked_for_and_all_goes_on_after_it,
    **{**SILENCE, "retry_after": 86_400, "window": 3_600.0},
)
def a_day_of_silence_is_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.core.retry_after.LONGEST_SECONDS", 1e9)
    monkeypatch.setattr(Account, "pause_seconds", lambda account: max(0.0, account.paused_until - account.clock.time()))


@bug(storms.test_a_storm_of_ten_minutes_is_probed_sparingly_and_over_within_half_a_minute, seeds=[1])
def an_open_breaker_lets_everybody_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaker, "may_send", lambda breaker, now: True)


@bug(storms.test_a_storm_of_ten_minutes_is_probed_sparingly_and_over_within_half_a_minute, seeds=[1])
def whoever_backed_off_from_an_outage_goes_on_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.assembly.build.PROBE_CAP_SECONDS", 300.0)


@bug(storms.test_each_revocation_costs_one_refresh_however_many_requests_are_refused)
def a_late_refusal_discards_the_new_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(original: Callable[..., None], account: Account, token: str) -> None:
        assert account.tokens is not None
        account.tokens.discard(account.tokens.current())

    wrap(monkeypatch, Account, "refused", refused)


@bug(
    storms.test_without_tokens_for_ten_minutes_one_try_is_made_a_step_and_nothing_is_lost,
    fault=Fault(kind="status", status=503, path="token", for_seconds=20.0),
)
def token_requests_do_not_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refresh(original: Callable[..., Any], source: OAuthTokenSource) -> str:
        trouble = await original(source)
        source._not_before = source._clock.monotonic() + 0.2
        return str(trouble)

    wrap(monkeypatch, OAuthTokenSource, "refresh", refresh)


@bug(storms.test_tokens_that_are_revoked_all_the_time_dead_letter_nothing)
def a_refused_token_is_the_fault_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verdicts.STATUS, 401, VerdictKind.REJECT)  # type: ignore[arg-type]


# -- connections ------------------------------------------------------------------------------------------------------


@bug(connections.test_an_idle_connection_closed_while_we_send_is_unknown_and_nothing_is_lost)
def a_connection_that_was_lost_has_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(original: Callable[..., Reply], answer: Answer, profiles: int, *more: Any) -> Reply:
        found = original(answer, profiles, *more)
        return Reply([Verdict(VerdictKind.OK)] * profiles) if answer.sent else found

    wrap(monkeypatch, rainfocus, "failed", failed)


@bug(connections.test_an_answer_cut_off_after_the_write_is_unknown_and_costs_one_duplicate)
def what_may_have_arrived_is_a_plain_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(original: Callable[..., Reply], answer: Answer, *more: Any) -> Reply:
        return original(msgspec.structs.replace(answer, sent=False), *more)

    wrap(monkeypatch, rainfocus, "failed", failed)


NEVER_ANSWERS = {"trouble": {"kind": "timeout"}, "concurrency": 4}


@bug(connections.test_attendees_that_hang_do_not_slow_the_others, **NEVER_ANSWERS)
def a_request_may_take_as_long_as_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deadlines, "watch", lambda deadlines, one, deadline: None)


@on_virtual_time
async def first_in_the_queue(record_property: Callable[[str, object], None], kind: str) -> None:
    """Sixteen that always fail, and two hundred others who want to be delivered in five minutes."""
    async with virtual_scene({"latency_ms": 20}, account=[{"rate": {"max_concurrency": 1}}]) as scene:
        scene.faults(*[fault_for(person, kind) for person in range(16)])
        await scene.submit(*[event(person) for person in range(216)])
        await asyncio.sleep(400.0)
        assert {address(person) for person in range(16, 216)} <= set(scene.stored())


@pytest.mark.parametrize("kind", ["html_500", "timeout"])
def test_records_that_always_fail_do_not_stop_the_others(record_property, kind: str) -> None:
    first_in_the_queue(record_property=record_property, kind=kind)


@bug(first_in_the_queue, kind="html_500")
def a_probe_goes_with_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    def least_tried(coalescer: Coalescer) -> list[Profile]:
        return coalescer.lease_oldest(Lane.LIVE, 1, 1 << 20)

    monkeypatch.setattr(Coalescer, "lease_least_tried", least_tried)


@bug(first_in_the_queue, kind="timeout")
def those_that_hang_may_take_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Retries, "have_their_share", lambda retries: False)


# -- replies ----------------------------------------------------------------------------------------------------------


@bug(replies.test_each_record_gets_the_verdict_of_its_own_reply, fault={"kind": "error_code"}, reason="x")
def any_two_hundred_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_kind", lambda status, *given: VerdictKind.OK)


@bug(replies.test_exactly_the_poison_of_a_list_is_dead_lettered_within_the_calls_of_a_bisection, count=1, seeds=[0])
def one_bad_record_rejects_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_undivided", lambda verdict, profiles: verdict)


@bug(replies.test_exactly_the_poison_of_a_list_is_dead_lettered_within_the_calls_of_a_bisection, count=1, seeds=[0])
def a_list_is_split_into_single_records(monkeypatch: pytest.MonkeyPatch) -> None:
    async def conclude(original: Callable[..., Any], consumer: Any, batch: Any, reply: Reply) -> None:
        await original(consumer, batch, reply)
        halves = list(consumer.halves)
        consumer.halves.clear()
        consumer.halves.extend([profile] for half in halves for profile in half)

    wrap(monkeypatch, attempts, "_conclude", conclude)


@bug(replies.test_a_reply_of_a_hundred_megabytes_is_cut_at_one, kind="huge", path="store")
def replies_are_read_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (sessions, connection, transport):
        monkeypatch.setattr(reader, "REPLY_BYTES", 1 << 40)


@bug(replies.test_a_reply_of_a_hundred_megabytes_is_cut_at_one, kind="bomb", path="store")
def what_is_packed_is_unpacked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (sessions, connection):
        monkeypatch.setattr(reader, "unpacked", unpacked_whole)


def unpacked_whole(body: bytes, encoding: str) -> bytes:
    return zlib.decompress(body, zlib.MAX_WBITS | 32) if encoding else body


@bug(replies.test_a_redirect_is_never_followed_and_dead_letters_nothing, status=307, path="store")
def redirects_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def request(original: Callable[..., Any], *given: Any, **named: Any) -> Any:
        return original(*given, **{**named, "allow_redirects": True})

    monkeypatch.setattr(outage, "TRANSPORT", "aiohttp")  # the other one knows nothing of redirects

    wrap(monkeypatch, aiohttp.ClientSession, "_request", request)


@bug(replies.test_a_redirect_is_never_followed_and_dead_letters_nothing, status=302, path="token")
def redirects_of_the_token_endpoint_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    redirects_are_followed(monkeypatch)


# -- ingress and keys -------------------------------------------------------------------------------------------------

FUZZ = ingress.test_whatever_is_thrown_at_the_ingress_good_lines_are_kept_and_nothing_breaks


@bug(FUZZ, requests=100, front="fast")
def bodies_unpack_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(monkeypatch, assembled, "inflate", lambda original, body, encoding, most: original(body, encoding, 1 << 40))


@bug(FUZZ, requests=100, front="fast")
def the_last_good_line_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(original: Callable[..., Any], reader: Reader, body: bytes, media_type: str) -> Any:
        parsed = original(reader, body, media_type)
        del parsed.events[1:-1][-1:]
        if len(parsed.events) > 1:
            parsed.events[-1] = parsed.events[0]
        return parsed

    wrap(monkeypatch, Reader, "read", read)


@bug(hot_keys.test_a_single_key_is_called_once_a_window_and_ends_right)
def the_oldest_state_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.assembly.build.merge_contents", lambda older, newer: (older, 1))


@bug(hot_keys.test_a_hot_key_that_waits_out_an_outage_carries_no_more_than_one_that_does_not)
def receipts_are_never_tidied(monkeypatch: pytest.MonkeyPatch) -> None:
    hot_keys.limit_receipts(monkeypatch)
    monkeypatch.setattr("engine.core.receipts.TIDY_EVERY", 1 << 40)


# -- are they found? --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.process) for name in BUGS])
def test_the_outages_find_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, outage = BUGS[name]
    patch(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError)):
        go_through(outage)


def go_through(outage: Outage) -> None:
    found = outage()
    if asyncio.iscoroutine(found):
        asyncio.run(found)
