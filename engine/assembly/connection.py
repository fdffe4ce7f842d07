"""Does the connection to RainFocus work? One step after the other, up to the attendee that somebody names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256

import anyio
import msgspec
from yarl import URL

from engine.adapters.reachability import Step, StepFailed, connect, resolve, timed
from engine.adapters.sessions import proxy_of
from engine.config import AccountConfig, DestinationConfig
from engine.core.handover import SYNTHETIC
from engine.dispatcher import Account
from engine.errors import PermitVoid
from engine.model import NOTHING, Batch, Lane, Profile, Trait, Verdict, VerdictKind
from engine.ports import Clock, Destination, TokenSource

PERMIT_SECONDS = 10.0
STORE_SECONDS = 60.0

Stage = tuple[str, Callable[[], Awaitable[str]], float]


class Tester:
    """Tests one destination, beside whatever the engine is doing. The account's arbiter has to run.

    With an address, that attendee is really written: its e-mail and nothing else, so no field of it changes. The
    request pays from the account's bucket and is bound by its pause, as every other.
    """

    def __init__(
        self,
        account_config: AccountConfig,
        config: DestinationConfig,
        account: Account,
        tokens: TokenSource,
        destination: Destination,
        clock: Clock,
        *,
        fetch: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """`fetch` gets a token, for where no refresher runs; returns "" or what went wrong."""
        self._fetch = fetch
        self._account_config, self._config, self._account = account_config, config, account
        self._tokens, self._destination, self._clock = tokens, destination, clock

    async def run(self, store_email: str | None) -> dict[str, object]:
        stages = [*_reach(self._config.resolved_url(self._account_config)), ("token", self._token, 15.0)]
        if store_email is not None:
            stages.append(("store", lambda: self._store(store_email.strip()), STORE_SECONDS))
        return await _in_turn(stages)

    async def _token(self) -> str:
        if self._tokens.current():
            return "at hand"
        if self._fetch is not None:
            return _fetched(await self._fetch())
        with anyio.move_on_after(PERMIT_SECONDS):
            await self._tokens.valid()
            return "fetched"
        if self._account.pause_seconds() > 0:
            raise StepFailed("the account is paused: RainFocus asked for silence (Retry-After)")
        raise StepFailed(self._tokens.trouble or "no token was granted")

    async def _store(self, email: str) -> str:
        profile = profile_of(email, self._clock.time(), refuse_synthetic=not self._account_config.sandbox)
        batch = Batch([profile], [self._destination.encode(profile)])
        try:
            reply = await self._destination.send(batch, _TestPermit(self._account, self._tokens.current()))
        except PermitVoid:
            raise StepFailed("not sent: no permit (paused, breaker open, at its rate, or stopping)") from None
        if reply.retry_after_seconds is not None:
            self._account.pause(reply.retry_after_seconds)
        return self._concluded(reply.verdicts[0])

    def _concluded(self, verdict: Verdict) -> str:
        if verdict.kind == VerdictKind.OK:
            return f"stored as attendee {verdict.attendee_id}" if verdict.attendee_id else "stored"
        raise StepFailed(f"{verdict.kind}: {verdict.reason} {verdict.excerpt}".rstrip())


def _fetched(trouble: str) -> str:
    if trouble:
        raise StepFailed(trouble)
    return "fetched"


class _TestPermit:
    """See `ports.Permit`: a fresh permit of the account's arbiter, ahead of new batches."""

    def __init__(self, account: Account, token: str) -> None:
        self._account, self.token = account, token

    async def use(self) -> None:
        with anyio.move_on_after(PERMIT_SECONDS) as waiting:
            await self._account.grant_again()
            await self._account.keep_pace()
        if waiting.cancelled_caught or not self._account.may_send(self.token):
            raise PermitVoid
        self._account.leaves()


def profile_of(email: str, now: float, *, refuse_synthetic: bool) -> Profile:
    """An attendee of whom only the address is known. Raises StepFailed when it must not be sent."""
    local, _, domain = email.rpartition("@")
    if not local or not domain or not email.isprintable() or " " in email:
        raise StepFailed("not sent: that is not an e-mail address")
    content = msgspec.json.encode({"email": email})
    if refuse_synthetic and SYNTHETIC in content.lower():
        raise StepFailed("not sent: synthetic addresses never leave for a real attendee store")
    return Profile(
        key=sha256(email.lower().encode()).digest(),
        content=content,
        traits=Trait.EMAIL,
        lane=Lane.LIVE,
        lowest=NOTHING,
        through=NOTHING,
        last=NOTHING,
        events=1,
        oldest_at=now,
    )


async def reach(url: str) -> dict[str, object]:
    """Only that: nothing is sent there. The answer has the shape of `ports.Control.test_destination`."""
    return await _in_turn(_reach(url))


def _reach(address: str) -> list[Stage]:
    url = URL(address, encoded=True)
    proxy = proxy_of(str(url))
    return [
        ("resolve", lambda: resolve(proxy or url), 10.0),
        ("connect", lambda: connect(url, through=proxy), 10.0),
    ]


async def _in_turn(stages: Sequence[Stage]) -> dict[str, object]:
    """One after the other, up to the first that fails: what follows would fail for the same reason."""
    steps: list[Step] = []
    for name, action, seconds in stages:
        steps.append(await timed(name, action(), seconds=seconds))
        if not steps[-1].ok:
            break
    return {"ok": all(step.ok for step in steps), "steps": msgspec.to_builtins(steps)}


__all__ = ["Tester", "reach"]
