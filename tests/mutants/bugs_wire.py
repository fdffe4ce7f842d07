"""Bugs in what leaves, when, and what is made of the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import anyio.lowlevel
from aiohttp import ClientResponse, ClientSession
from bug import bug, swap

from engine.adapters.limiter import AiolimiterBucket
from engine.adapters.oauth import OAuthTokenSource, logger
from engine.adapters.raw_http.transport import RawRoute
from engine.adapters.sessions import AiohttpRoute, CappedResponse
from engine.core import retry_after, verdicts
from engine.core.breaker import Breaker
from engine.core.pace import Pace
from engine.dispatcher import account, attempts
from engine.dispatcher.account import Account
from engine.dispatcher.consumer import Consumer
from engine.model import Verdict, VerdictKind


@bug(2, "tests/core/test_verdicts.py::test_the_table")
def a_200_with_an_error_is_a_success() -> None:
    """RainFocus says "not stored" in a 200, and nobody listens"""

    def verdict(original: Callable[..., Verdict], status: int, *given: Any) -> Verdict:
        return Verdict(VerdictKind.OK) if 200 <= status < 300 else original(status, *given)

    swap(verdicts, "_verdict", verdict)


@bug(5, "tests/adapters/test_limiter.py::test_it_starts_empty")
def the_bucket_begins_full() -> None:
    """every restart is a burst on top of what the process before it has sent"""

    async def emptied(original: Callable[..., Any], bucket: AiolimiterBucket) -> Any:
        limiter = await original(bucket)
        limiter._level = 0.0
        return limiter

    swap(AiolimiterBucket, "_emptied", emptied)


@bug(
    5,
    "tests/dispatcher/test_permits.py::test_a_permit_older_than_20_ms_is_asked_for_again_and_the_rate_holds_at_the_socket",
)
def nobody_looks_at_the_socket() -> None:
    """permits granted one by one are used together"""
    account.PERMIT_LIFE_SECONDS = 3_600.0
    Pace.wait_seconds = lambda pace, now: 0.0  # type: ignore[method-assign,assignment]


@bug(5, "tests/core/test_pace.py::test_no_window_holds_more_than_the_rate_and_a_burst")
def the_pace_is_one_off() -> None:
    """burst + 1 requests meet at the socket"""

    def make(original: Callable[..., None], pace: Pace, rate: float, burst: int, now: float) -> None:
        original(pace, rate, burst, now)
        pace._ahead_seconds += 1 / rate

    swap(Pace, "__init__", make)


@bug(5, "tests/dispatcher/test_permits.py::test_retry_after_silences_every_destination_of_the_account_and_no_other")
def a_retry_after_is_not_heard() -> None:
    """requests leave inside the silence that was asked for"""
    Account.pause = lambda account, seconds: None  # type: ignore[method-assign,assignment]


@bug(5, "tests/dispatcher/test_permits.py::test_a_pause_survives_a_restart")
def a_pause_ends_with_the_process() -> None:
    """a restart breaks the silence"""

    def make(original: Callable[..., None], account: Account, name: str, **named: Any) -> None:
        original(account, name, **named | {"paused_until": 0.0})

    swap(Account, "__init__", make)


@bug(5, "tests/core/test_retry_after.py::test_seconds_and_dates")
def a_retry_after_date_is_taken_for_local_time() -> None:
    """west of Greenwich the silence is hours too short"""

    def local(text: str) -> datetime:
        return parsedate_to_datetime(text).replace(tzinfo=None).astimezone()

    retry_after.parsedate_to_datetime = local  # type: ignore[assignment]
    time.tzset()


@bug(3, "tests/dispatcher/test_whose_fault.py::test_a_failing_destination_does_not_slow_another_one")
def one_breaker_for_all() -> None:
    """one destination's outage stops every other one of its account"""

    def make(original: Callable[..., None], consumer: Consumer, *given: Any, **named: Any) -> None:
        original(consumer, *given, **named)
        consumer.breaker = consumer.account.breaker

    swap(Consumer, "__init__", make)


@bug(3, "tests/core/test_breaker.py::test_five_failures_in_a_row_over_three_keys_open_it")
def the_breaker_never_opens() -> None:
    """an outage is hammered at the full rate, and its attempts count"""
    Breaker.failure = lambda breaker, *given, **named: None  # type: ignore[method-assign,assignment]


@bug(5, "tests/dispatcher/test_whose_fault.py::test_an_open_breaker_lets_one_probe_go_in_each_step")
def an_open_breaker_lets_everybody_probe() -> None:
    """a destination that comes back is met by everything at once"""
    Breaker.may_send = lambda breaker, now: True  # type: ignore[method-assign,assignment]
    Consumer.may_send = lambda consumer: True  # type: ignore[method-assign,assignment]


@bug(3, "tests/adapters/test_oauth.py::test_however_many_wait_one_request_is_made")
def every_worker_fetches_a_token_of_its_own() -> None:
    """a thousand waiting requests ask for a thousand tokens"""

    async def valid(source: OAuthTokenSource) -> str:
        await source.refresh()
        return source.current()

    OAuthTokenSource.valid = valid  # type: ignore[method-assign]


@bug(3, "tests/adapters/test_oauth.py::test_only_the_current_token_can_be_discarded")
def whatever_was_refused_discards_the_token() -> None:
    """the late 401 of an old token throws away the new one"""
    swap(OAuthTokenSource, "discard", lambda original, source, token: original(source, source._token))


@bug(3, "tests/dispatcher/test_permits.py::test_a_late_refusal_of_an_old_token_leaves_the_new_one_alone")
def a_late_refusal_counts_against_the_new_token() -> None:
    """two late 401s open the breaker of a healthy account"""

    def refused(original: Callable[..., None], account: Account, token: str) -> None:
        original(account, account.tokens.current() if account.tokens is not None else token)

    swap(Account, "refused", refused)


@bug(9, "tests/adapters/test_rainfocus.py::test_a_redirect_is_not_followed")
def a_redirect_is_followed() -> None:
    """token and profile go to wherever a reply points"""

    async def post(original: Callable[..., Any], session: ClientSession, url: Any, **named: Any) -> Any:
        return await original(session, url, **named | {"allow_redirects": True})

    swap(ClientSession, "post", post)


@bug(6, "tests/adapters/test_rainfocus.py::test_a_huge_reply_is_cut_and_its_connection_closed")
def a_reply_may_weigh_what_it_likes() -> None:
    """one reply fills the memory"""
    CappedResponse.read = ClientResponse.read  # type: ignore[method-assign]


@bug(5, "tests/adapters/test_rainfocus.py::test_the_permit_is_used_between_the_open_connection_and_the_first_byte")
def the_permit_is_used_before_the_connection_is_open() -> None:
    """slow connections turn an even stream of permits into a burst of first bytes"""

    class Used:
        def __init__(self, token: str) -> None:
            self.token = token

        async def use(self) -> None:
            await anyio.lowlevel.checkpoint()

    async def post(original: Callable[..., Any], route: Any, body: bytes, headers: Any, permit: Any) -> Any:
        await permit.use()
        return await original(route, body, headers, Used(permit.token))

    swap(AiohttpRoute, "post", post)
    swap(RawRoute, "post", post)


@bug(
    2,
    "tests/dispatcher/test_outcomes.py::test_after_an_unknown_outcome_the_key_is_held_until_the_request_can_no_longer_arrive",
)
def no_hold_after_an_unknown_outcome() -> None:
    """the retry overtakes the request that timed out, which then lands on top of it"""

    async def at_once(consumer: Consumer, unknown: Any) -> None:
        for profile, verdict in unknown:
            attempts._retry(consumer, profile, verdict)

    attempts._outlive = at_once


@bug(9, "tests/adapters/test_oauth.py::test_no_token_is_ever_logged")
def a_token_is_logged() -> None:
    """whoever reads the log can write attendees"""

    def concluded(original: Callable[..., str], source: OAuthTokenSource, *given: Any) -> str:
        trouble = original(source, *given)
        logger.warning("token %s fetched", source._token)
        return trouble

    swap(OAuthTokenSource, "_concluded", concluded)
