"""One arbiter an account: who may send the next request, and when.

A permit is the right to send one request now. The arbiter waits for everything a request needs, in the order in which
it lasts: work that is due, no pause, closed breakers, a free place in the window, a valid token, and only then room in
the bucket; then it lets a destination take its batch. It is the only one that ever asks the bucket, so no waiter can
overtake another. The bucket spaces what is granted; `Pace` has the last word at the socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from engine.core.breaker import Breaker
from engine.core.lanes import WeightedRoundRobin
from engine.core.pace import Pace
from engine.core.window import Window
from engine.dispatcher.workers import Workers
from engine.errors import PermitVoid
from engine.metrics import AccountMetrics
from engine.ports import Bucket, Clock, TokenSource

logger = logging.getLogger("engine.dispatcher")

LONGEST_PAUSE_SECONDS = 3600.0
SHORTEST_SLEEP_SECONDS = 0.001
"""uvloop makes a shorter timer a turn of the loop: waiting would be spinning."""

PERMIT_LIFE_SECONDS = 0.020
"""A permit that was not used for so long is void: what it allowed would otherwise bunch up at the socket."""


class Sender(Protocol):
    """What the arbiter needs to know of a destination."""

    name: str
    weight: int

    def due(self, now: float, /) -> bool:
        """Is there a batch that should leave now, and may it?"""

    def due_at(self, now: float, /) -> float | None:
        """When `due` may turn true by time alone."""

    def may_send(self) -> bool:
        """False when a permit that is not used yet must not be used any more."""

    def note_still(self) -> None:
        """`Account.still` may have changed."""

    def lease_next(self) -> object:
        """Take what goes under one permit; None when there is nothing after all. No await between this and the look
        that found it due: a second permit must not be granted for the same profiles."""

    def attempt(self, permit: AccountPermit, leased: Any, /) -> Awaitable[None]:
        """Send it. `leased` is what `lease_next` gave."""


class AccountPermit:
    """See `ports.Permit`."""

    __slots__ = ("_account", "_granted_at", "_sender", "token", "used")

    def __init__(self, account: Account, sender: Sender, token: str, granted_at: float) -> None:
        self._account, self._sender, self._granted_at = account, sender, granted_at
        self.token = token
        self.used = False

    async def use(self) -> None:
        account = self._account
        if account.clock.monotonic() - self._granted_at > PERMIT_LIFE_SECONDS:
            self.used = True  # void, not given back
            self._granted_at = await account.grant_again()
        if not account.has_room():
            await account.keep_pace()
        if not account.may_send(self.token) or not self._sender.may_send():
            raise PermitVoid
        self.used = True
        account.leaves()

    @property
    def sender(self) -> str:
        return self._sender.name

    @property
    def granted_at(self) -> float:
        return self._granted_at


Work = tuple[Sender, AccountPermit, Any]


class Account:
    """The token, the bucket, the window and the Retry-After pause that its destinations share."""

    def __init__(
        self,
        name: str,
        *,
        bucket: Bucket,
        window: Window,
        breaker: Breaker,
        tokens: TokenSource | None,
        clock: Clock,
        metrics: AccountMetrics,
        pace: Pace | None = None,
        paused_until: float = 0.0,
        store_pause: Callable[[str, float], None],
    ) -> None:
        self.name = name
        self.bucket, self.window, self.breaker, self.tokens = bucket, window, breaker, tokens
        self.clock, self.metrics, self._pace = clock, metrics, pace
        self.paused_until = paused_until  # epoch seconds, as it is stored
        # The wall clock may be set: it only tells what was left of a pause when this process began.
        self._silent_until = clock.monotonic() + min(LONGEST_PAUSE_SECONDS, max(0.0, paused_until - clock.time()))
        self.draining = False
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._store_pause = store_pause
        self._senders: list[Sender] = []
        self._slots: Counter[str] = Counter()  # requests in flight, by destination
        self._turns = WeightedRoundRobin()
        self._wake = asyncio.Event()
        self._again: deque[asyncio.Future[float]] = deque()
        self._workers = Workers[Work](lambda work: work[0].attempt(work[1], work[2]))
        self._spare_at = float("-inf")
        self._refused = 0
        self._tokenless = False

    def __repr__(self) -> str:
        return f"<Account {self.name} [in flight {self.in_flight} of {self.window.limit}]>"

    def add(self, sender: Sender) -> None:
        self._senders.append(sender)
        self._turns.add(sender.name, sender.weight)

    def wake(self) -> None:
        """Something may have changed: look again who can send."""
        self._wake.set()

    # -- what happened --------------------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """The destination asked for silence: nothing of this account is sent until it is over, restarts included."""
        until = self.clock.monotonic() + seconds
        if until > self._silent_until:
            self._silent_until, self.paused_until = until, self.clock.time() + seconds
            logger.warning("account %s: silent for %.1f s, as it was asked to (Retry-After)", self.name, seconds)
            self._store_pause(self.name, self.paused_until)
            self._void()
            self.wake()

    def pause_seconds(self) -> float:
        """How much of the pause is left. A stored pause never exceeds an hour, whatever the clock did meanwhile."""
        return max(0.0, self._silent_until - self.clock.monotonic())

    def refused(self, token: str) -> None:
        """A token was refused (401). The second one in a row that nobody had accepted opens the account's breaker:
        the client is wrong, not the token."""
        if self.tokens is not None and token != self.tokens.current():
            return
        if self.tokens is not None:
            self.tokens.discard(token)
        self._refused += 1
        if self._refused > 1 or self.tokens is None:
            self.breaker.trip("unauthorized", self.clock.monotonic())
            self._tell()

    def accepted(self) -> None:
        """A request was answered with this account's token taken for good."""
        self._refused = 0
        if self.breaker.state != "closed":
            self.breaker.success(self.clock.monotonic())
            self._tell()

    @property
    def still(self) -> bool:
        """Is there nothing that any of its destinations could send, and not by the fault of a profile?"""
        return self._tokenless or self.breaker.state != "closed"

    def _tell(self) -> None:
        for sender in self._senders:
            sender.note_still()

    def held_up(self, now: float) -> bool:
        """Is there a reason why nothing of this account is sent: a pause, its breaker, no token, or the end? A probe
        that is due is no reason."""
        trouble = self.tokens is not None and bool(self.tokens.trouble)
        return self.draining or trouble or self.pause_seconds() > 0 or not self.breaker.may_send(now)

    def done(self, permit: AccountPermit) -> None:
        """The attempt is over. A permit that was not used stays good for the next one while it is young."""
        self.in_flight -= 1
        self._slots[permit.sender] -= 1
        if not permit.used:
            self._spare_at = max(self._spare_at, permit.granted_at)
        if self.in_flight == 0:
            self.idle.set()
        self.wake()

    # -- permits --------------------------------------------------------------------------------------------------

    def may_send(self, token: str) -> bool:
        """May a granted permit still be used?"""
        if self.breaker.state == "open" or (self.paused_until and self.pause_seconds() > 0):
            return False
        return self.tokens is None or token == self.tokens.current()

    async def grant_again(self) -> float:
        """A fresh permit for a request whose own was too old: ahead of new batches. Returns when it was granted.

        Raises PermitVoid when none can be had soon (a pause, no token, the end): whoever asks holds a lease."""
        tokenless = self.tokens is not None and not self.tokens.current()
        if self.draining or tokenless or self.pause_seconds() > 0:
            raise PermitVoid
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._again.append(future)
        self.wake()
        return await future

    def has_room(self) -> bool:
        """May one more request leave now? Permits that were granted one by one are not used one by one."""
        return self._pace is None or not self._pace.wait_seconds(self.clock.monotonic())

    async def keep_pace(self) -> None:
        """Wait until one more request may leave."""
        # It turns 0 by time alone: there is nothing to wait for.
        while self._pace is not None and (wait := self._pace.wait_seconds(self.clock.monotonic())):  # noqa: ASYNC110
            await anyio.sleep(max(SHORTEST_SLEEP_SECONDS, wait))

    def leaves(self) -> None:
        """A request's first byte is handed to the socket now; no await between `keep_pace` and this."""
        if self._pace is not None:
            self._pace.note(self.clock.monotonic())

    async def run(self, tasks: TaskGroup) -> None:
        """Grant permits until cancelled; every attempt is a task of `tasks`."""
        while True:
            self._wake.clear()
            now = self.clock.monotonic()
            due = self._due(now)
            if not due:
                await self._until_due()
            token = self.tokens.current() if self.tokens is not None else ""
            if not token and self.tokens is not None:
                token = await self._token(self.tokens)
            now = await self._room()
            if self._again and self._serve_again(now):
                continue
            if not due or self._wake.is_set():  # it may be another's turn by now, or nobody's
                due = self._due(now)
            sender = self._chosen(due)
            leased = sender.lease_next() if sender is not None else None
            if sender is None or leased is None:
                self._spare_at = now
                continue
            self.in_flight += 1
            self._slots[sender.name] += 1
            self.idle.clear()
            self._workers.start(tasks, (sender, AccountPermit(self, sender, token, now), leased))

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            wait = self._wait_seconds(self.clock.monotonic())
            if wait is None:
                await self._wake.wait()
            elif wait == 0.0:
                return
            else:
                with anyio.move_on_after(wait):
                    await self._wake.wait()

    def _wait_seconds(self, now: float) -> float | None:
        """0 when somebody can send now; else how long nothing can change by itself (None: until woken)."""
        pause = self.pause_seconds() if self.paused_until else 0.0
        if self._again:
            return pause
        if self.draining or self.in_flight >= self.window.limit:
            return None
        if not self.breaker.may_send(now):
            return _until(self.breaker.next_probe_at, now)
        senders = self._with_slots()
        if any(sender.due(now) for sender in senders):
            return pause
        times = [at for sender in senders if (at := sender.due_at(now)) is not None]
        return _until(min(times), now) if times else None

    def _due(self, now: float) -> list[Sender]:
        """Who can send now."""
        if self.draining or self.in_flight >= self.window.limit or not self.breaker.may_send(now):
            return []
        if self.paused_until and self.pause_seconds() > 0:
            return []
        return [sender for sender in self._with_slots() if sender.due(now)]

    def _with_slots(self) -> list[Sender]:
        """Who may have one more request in flight. A destination that has none may always; one that has some leaves a
        slot for every other one that has none, up to half of the window, so that it does not take them all if it hangs.
        """
        if len(self._senders) == 1:
            return self._senders
        limit = self.window.limit
        without = sum(not self._slots[sender.name] for sender in self._senders)
        if limit - self.in_flight > min(without, limit // 2):
            return self._senders
        return [sender for sender in self._senders if not self._slots[sender.name]]

    async def _token(self, tokens: TokenSource) -> str:
        self._void()
        self._tokenless = True
        self._tell()
        token = await tokens.valid()
        self._tokenless = False
        self._tell()
        self.wake()
        return token

    async def _room(self) -> float:
        """Take a permit that was not used, or one from the bucket; returns when that was."""
        asked_at = self.clock.monotonic()
        if asked_at - self._spare_at <= PERMIT_LIFE_SECONDS:
            self._spare_at = float("-inf")
            return asked_at
        await self.bucket.take()
        now = self.clock.monotonic()
        self.metrics.rate_wait(now - asked_at)
        return now

    def drain(self) -> None:
        """No new permit from now on; `idle` is set once nothing is in flight."""
        self.draining = True
        self._void()
        self.wake()

    def _void(self) -> None:
        for future in self._again:
            if not future.done():
                future.set_exception(PermitVoid())
                future.exception()  # read here: whoever asked may have been cancelled meanwhile
        self._again.clear()

    def _serve_again(self, now: float) -> bool:
        while self._again:
            future = self._again.popleft()
            if not future.done():
                future.set_result(now)
                return True
        return False

    def _chosen(self, due: list[Sender]) -> Sender | None:
        if len(due) <= 1:
            return due[0] if due else None
        name = self._turns.next([sender.name for sender in due])
        return next(sender for sender in due if sender.name == name)


def _until(at: float | None, now: float) -> float | None:
    return None if at is None else max(0.001, at - now)
