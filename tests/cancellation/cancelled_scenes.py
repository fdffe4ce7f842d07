"""Scenes in which one task is cancelled: a disk and stores that outlive the engine, callers, what holds after.

Every scene is one deterministic life of an engine on virtual time. Whoever was cancelled in it, a second engine on the
same disk delivers all that was acknowledged, and the sums come out even.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar

import anyio
import msgspec
from injection import Instrument, Moment, Suspension

from engine import Config, Engine, Receipt
from engine.adapters.memory_journal import MemoryJournal
from engine.assembly.build import Parts
from engine.errors import EngineError, NoSpace
from engine.model import Append, Batch, Kind, Profile, Reply, Verdict, VerdictKind
from engine.ports import LetterFilter, Permit, Transition
from engine.profiles.identity import key_of_address
from engine.testing.clock import VirtualClock
from engine.testing.destination import FakeDestination, Step, ok, reject, retry, unknown
from engine.testing.lasting import LastingState

HOLD_SECONDS = 0.5
STEP_SECONDS = 0.001
LONGEST_SECONDS = 3_600.0
CALLER = "caller:"
ENDING = {"caller:enter", "caller:exit", "caller:kill"}
"""Callers whose cancellation ends the engine: they were about to begin or end it."""


class Disk(MemoryJournal):
    """What is appended becomes durable in the middle of the call. Remembers the newest city of everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.cities: dict[str, str] = {}
        self.no_room_to_erase = 0

    async def append(self, appends: Sequence[Append], /) -> int:
        await anyio.sleep(STEP_SECONDS)
        first = await super().append(appends)
        for event in (event for append in appends for event in append.events):
            fields = msgspec.json.decode(event.content)
            if event.kind == Kind.PROFILE and "email" in fields:
                self.cities[fields["email"]] = fields["city"]
        await anyio.sleep(STEP_SECONDS)
        return first

    async def erase(self, below: Mapping[bytes, int], /) -> int:
        await anyio.sleep(STEP_SECONDS)
        if self.no_room_to_erase:
            self.no_room_to_erase -= 1
            raise NoSpace("busy", "the WAL is being read")
        return await super().erase(below)

    async def probe(self) -> None:
        await anyio.sleep(STEP_SECONDS)
        await super().probe()


class Ledger(LastingState):
    """What is settled is applied in the middle of the call."""

    def __init__(self) -> None:
        super().__init__()
        self.no_room = self.no_room_to_scrub = 0

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        await anyio.sleep(STEP_SECONDS)
        if self.no_room:
            self.no_room -= 1
            raise NoSpace("disk-full", "the disk is full")
        await super().settle(transitions, pauses)
        await anyio.sleep(STEP_SECONDS)

    async def scrub(self) -> None:
        await anyio.sleep(STEP_SECONDS)
        if self.no_room_to_scrub:
            self.no_room_to_scrub -= 1
            raise NoSpace("busy", "the WAL is being read")


class Store(FakeDestination):
    """Answers by the name of the attendee, once each; counts what is open, and whether a city ever goes back."""

    def __init__(self, **options: Any) -> None:
        super().__init__(answer=self._step, **options)
        self.kind, self.open_times, self.connections, self.went_back = "", 0, 0, list[str]()
        self._met: Counter[str] = Counter()
        self.peaceful = False
        self.slow_connections, self.connection_seconds = 0, 0.010

    async def open(self) -> None:
        await anyio.sleep(STEP_SECONDS)
        self.open_times += 1

    async def close(self) -> None:
        self.open_times -= 1
        await anyio.sleep(STEP_SECONDS)

    def encode(self, profile: Profile, /) -> bytes:
        if b"unspeakable" in profile.content:
            raise ValueError("cannot be said")
        return profile.content

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        self.connections += 1
        try:
            if self.slow_connections:
                slowness = min(3, self.slow_connections)
                self.slow_connections -= 1
                await anyio.sleep(self.connection_seconds * slowness)
            return await super().send(batch, permit)
        finally:
            self.connections -= 1

    def _step(self, batch: Batch) -> Step:
        names = [str(msgspec.json.decode(record)["email"]).partition("@")[0] for record in batch.records]
        if self.peaceful:
            return Step()
        for name in names:
            step = self._once(name.rstrip("0123456789"), name, len(names))
            if step is not None:
                return step
        return Step(seconds=STEP_SECONDS)

    def _once(self, kind: str, name: str, size: int) -> Step | None:
        self._met[name] += 1
        if kind == "rejected":
            return Step(reject("response_code_27"))
        if kind == "whole" and size > 1:
            return Step(Verdict(VerdictKind.SPLIT, "response_code_9"))
        if self._met[name] > 1:
            return None
        return {
            "rejectedforgood": Step(reject("response_code_27")),
            "busy": Step(retry()),
            "lost": Step(unknown(), lands=True),
            "refused": Step(Verdict(VerdictKind.AUTH, "http_401")),
            "wait": Step(retry("http_429"), retry_after_seconds=1.5, throttled=True),
            "slow": Step(ok(), seconds=3.0),
        }.get(kind)

    def _store(self, record: bytes) -> None:
        fields = msgspec.json.decode(record)
        known = self.stored.get(fields["email"])
        if known is not None and int(str(known["city"])) > int(fields["city"]):
            self.went_back.append(fields["email"])
        super()._store(record)


class Tokens:
    """A token source that needs a moment for each."""

    trouble = ""

    def __init__(self) -> None:
        self._valid, self._wanted, self._there, self._number = "", anyio.Event(), anyio.Event(), 0

    def current(self) -> str:
        return self._valid

    async def valid(self) -> str:
        self._wanted.set()
        while not self._valid:
            await self._there.wait()
        return self._valid

    def discard(self, token: str, /) -> None:
        if token == self._valid:
            self._valid, self._there = "", anyio.Event()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            await anyio.sleep(STEP_SECONDS)
            self._wanted, self._number = anyio.Event(), self._number + 1
            self._valid = f"token-{self._number}"
            self._there.set()

    async def close(self) -> None:
        """Nothing to close."""


class WithTokens(Engine):
    """Its account has a token source, although its destinations bring none."""

    async def _serve(self, parts: Parts) -> None:
        for account in parts.accounts:
            account.tokens = Tokens()
        await super()._serve(parts)


class Scene:
    """One life of an engine with callers around it. Subclasses say what happens in `play`."""

    settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, target: Suspension | None = None, moment: Moment = Moment.PENDING) -> None:
        self.instrument = Instrument(target, moment)
        self.disk, self.state = Disk(), Ledger()
        self.stores = {"plain": Store(), "listing": Store(profiles_per_request=10)}
        self.acknowledged: dict[str, str] = {}
        self.forgotten: set[str] = set()
        self.ends: dict[str, BaseException | None] = {}
        self._city = 0

    def engine(self) -> Engine:
        base: dict[str, Any] = {
            "journal": {"kind": "memory"},
            "engine": {"drain_timeout_seconds": 12},
            "account": [{"name": "a", "rate": {"requests_per_second": 200.0, "burst": 4, "max_concurrency": 6}}],
            "destination": [
                {
                    "name": name,
                    "batch": {"linger_ms": 5, "max_profiles": 10},
                    "retry": {"base_ms": 50, "unknown_hold_seconds": HOLD_SECONDS},
                }
                for name in self.stores
            ],
        }
        return WithTokens(
            Config.from_dict(base | dict(self.settings)),
            destinations=self.stores,
            journal=self.disk,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(1),
        )

    async def play(self, engine: Engine) -> None:
        raise NotImplementedError

    async def before(self) -> None:
        """What happened before; nobody is cancelled in it."""

    # -- callers --------------------------------------------------------------------------------------------------

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine, name=CALLER + name)
        task.add_done_callback(lambda it: it.cancelled() or it.exception())  # nobody may wait for it any more
        return task

    async def call(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What it returns; None when it was cancelled, or told by an EngineError that it cannot be."""
        return await self.end_of(self.start(name, coroutine))

    async def end_of(self, task: asyncio.Task[Any]) -> Any:
        await asyncio.wait({task})
        if task.cancelled():
            assert task is self.instrument.victim, f"{task.get_name()} was cancelled with somebody else"
            return None
        error = task.exception()
        assert error is None or isinstance(error, EngineError), repr(error)
        return None if error else task.result()

    def event(self, name: str) -> dict[str, str]:
        self._city += 1
        return {"email": f"{name}@example.com", "city": str(self._city)}

    async def submit(self, engine: Engine, *names: str, lane: str = "live") -> Any:
        """A receipt, if it was acknowledged."""
        return await self.end_of(self.submitting(engine, *names, lane=lane))

    def submitting(self, engine: Engine, *names: str, lane: str = "live") -> asyncio.Task[Any]:
        events = [self.event(name) for name in names]

        def note(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and task.exception() is None:
                self.acknowledged |= {event["email"]: event["city"] for event in events}

        task = self.start("submit", engine.submit(events, lane=lane))
        task.add_done_callback(note)
        return task

    async def together(self, *tasks: asyncio.Task[Any]) -> list[Any]:
        return [await self.end_of(task) for task in tasks]

    async def forget(self, engine: Engine, name: str) -> None:
        self.forgotten.add(f"{name}@example.com")
        await self.call("forget", engine.forget(f"{name}@example.com"))

    async def prove(self, engine: Engine, name: str) -> None:
        """Wait for the newest order in the journal to be carried out, and search."""
        parts = engine._parts
        if parts is not None:
            email, newest = f"{name}@example.com", parts.pipeline.commit.next_offset - 1
            coroutine = parts.control.traces(key_of_address(email), [email], offset=newest, wait_seconds=3.0)
            await self.call("traces", coroutine)

    # -- the life, and what comes after it ---------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it. Raises AssertionError for what does not hold."""
        async with asyncio.timeout(LONGEST_SECONDS):
            await self.before()
        self.instrument.install()
        async with asyncio.timeout(LONGEST_SECONDS):
            await self._host(self.engine())
        self.instrument.remove()
        await self._nothing_left()
        await self._aftermath()

    async def _host(self, engine: Engine) -> None:
        """As `async with` has it: no body and no exit where nothing was entered."""
        if await self.call("enter", engine.__aenter__()) is None:
            return
        await self.play(engine)
        await self._look_at(engine)
        await self.call("exit", engine.__aexit__(None, None, None))
        target = self.instrument.target
        never_began = target is not None and target.number == 0
        await (engine.kill() if never_began else engine.drained())  # an exit that never began ends nothing

    async def _look_at(self, engine: Engine) -> None:
        """Cancelling a caller stops nobody else; an engine that lost a task of its own says so."""
        victim = self.instrument.victim
        of_a_caller = victim is None or (victim.get_name().startswith(CALLER) and victim.get_name() not in ENDING)
        ended = engine._task is not None and engine._task.done()
        if of_a_caller:
            assert not ended, "cancelling a caller has ended the engine"
            await self._settled(engine)
            report = await self.call("audit", engine.control.audit())
            assert report is None or report["ok"], report
        elif ended and not engine._task.cancelled():
            error = engine._task.exception()
            assert isinstance(error, EngineError), f"it ended by {error!r}"

    async def _settled(self, engine: Engine) -> None:
        task, parts = engine._task, engine._running()
        assert task is not None
        for consumer in parts.consumers:  # whoever was to resume it may have been cut off
            consumer.set_paused(False)
        while any(one["counts"]["pending"] for one in engine.control.destinations()):  # type: ignore[index]
            if task.done():
                return
            await anyio.sleep(0.5)
        await anyio.sleep(1.0)  # the last attempts come to their ends
        assert [account.in_flight for account in parts.accounts] == [0], "a permit is left"
        assert [consumer.coalescer.leased for consumer in parts.consumers] == [0, 0], "a lease is left"

    async def _nothing_left(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        host = asyncio.current_task()
        assert host is not None
        assert not host.cancelling(), "the host was cancelled"
        for name, store in self.stores.items():
            assert (store.open_times, store.connections) == (0, 0), f"something of {name} is still open"

    async def _aftermath(self) -> None:
        """The next process, without trouble."""
        self.disk.fail.clear()
        self.disk.no_room_to_erase = self.state.no_room = self.state.no_room_to_scrub = 0
        for store in self.stores.values():
            store.peaceful = True
        async with asyncio.timeout(LONGEST_SECONDS), self.engine() as engine:
            await engine.recovered()
            for name in self.stores:
                await engine.resume(name)
            await self._settled(engine)
            await engine.dead_letters.replay(LetterFilter())
            await self._settled(engine)
            report = await engine.control.audit()
            assert report["ok"], report
        self._compare()

    def _compare(self) -> None:
        for email, city in self.acknowledged.items():
            assert int(self.disk.cities[email]) >= int(city), f"{email} was acknowledged and is not durable"
        for name, store in self.stores.items():
            assert store.went_back == []
            assert store.most_in_flight_of_a_key <= 1
            found = {email: str(fields["city"]) for email, fields in store.stored.items()}
            for email, city in self.disk.cities.items():
                known = email in self.forgotten or email.startswith(("unspeakable", "rejectedforgood"))
                assert known or found.get(email) == city, (name, email)


SCENES: dict[str, Callable[..., Scene]] = {}


def scene(kind: type[Scene]) -> type[Scene]:
    SCENES[kind.__name__] = kind
    return kind


@scene
class AWorkingDay(Scene):
    """Everything that callers do, and every verdict that a destination gives."""

    async def play(self, engine: Engine) -> None:
        self.start("stopped", engine.stopped())
        await self.call("recovered", engine.recovered())
        receipt = await self.submit(engine, "a", "b", "busy", "lost", "rejected", "unspeakable")
        await self.together(
            self.submitting(engine, "a", "c", "refused"),
            self.submitting(engine, *(f"whole{n}" for n in range(6))),
            self.submitting(engine, "b", "rejected", "wait"),
        )
        if receipt is not None:
            await self.call("settled", _patient(receipt))
        await self.submit(engine, *(f"quick{n}" for n in range(6)))
        await anyio.sleep(0.03)
        await self.call("pause", engine.pause("plain"))  # writes down what has just been delivered
        await self.submit(engine, "a", "b", "d", "rejected")
        await self.forget(engine, "d")
        await anyio.sleep(0.3)
        await self.call("resume", engine.resume("plain"))
        await self.forget(engine, "lost")
        await anyio.sleep(3.0)
        await self._operate(engine)
        slow = self.submitting(engine, "slow", "a")
        await anyio.sleep(0.1)
        await self.forget(engine, "slow")
        await self.prove(engine, "slow")
        await self.together(slow)
        await anyio.sleep(5.0)
        await self.submit(engine, "slowly", "e")

    async def _operate(self, engine: Engine) -> None:
        if engine._task is None or engine._task.done():
            return
        await self.call("replay", engine.dead_letters.replay(LetterFilter()))
        await self.submit(engine, "rejected", "a")
        await self.call("lookup", engine.lookup("a@example.com"))
        await self.call("letters", engine.dead_letters.letters(LetterFilter(), 10))
        await self.call("audit", engine.control.audit())
        await anyio.sleep(2.0)
        await self.submit(engine, "rejectedforgood")
        await anyio.sleep(0.5)
        await self.call(
            "purge", engine.dead_letters.purge(LetterFilter(key=key_of_address("rejectedforgood@example.com")))
        )


async def _patient(receipt: Receipt) -> None:
    try:
        await receipt.settled(timeout=60)
    except TimeoutError:
        return


@scene
class NoRoom(Scene):
    """Journal and state file without room, and an order to expire the oldest."""

    settings: ClassVar = {"journal": {"kind": "memory", "on_full": "expire"}}

    async def play(self, engine: Engine) -> None:
        await self.submit(engine, "a", "b", "g", "h", "i", "j")  # enough for a part of the ledger, which is asked later
        await anyio.sleep(0.3)
        await self.call("pause", engine.pause("listing"))
        await self.submit(engine, *(f"p{n}" for n in range(12)))
        self.disk.fail.extend([NoSpace("journal-full", "full"), NoSpace("disk-full", "full")])
        await self.together(self.submitting(engine, "a"), self.submitting(engine, "c"))
        await anyio.sleep(3.0)
        await self.submit(engine, "c", "d")
        await anyio.sleep(3.0)
        self.state.no_room, self.state.no_room_to_scrub, self.disk.no_room_to_erase = 2, 1, 1
        await self.submit(engine, "a", "e")
        await self.call("pause", engine.pause("plain"))
        await anyio.sleep(4.0)
        await self.forget(engine, "e")
        await self.call("resume", engine.resume("plain"))
        await self.call("resume", engine.resume("listing"))
        await anyio.sleep(8.0)
        await self.submit(engine, "f")


@scene
class Overflow(Scene):
    """More backfill than there is room for, and profiles that hold the watermark back."""

    settings: ClassVar = {"buffer": {"max_profiles": 40}}

    async def play(self, engine: Engine) -> None:
        await self.call("pause", engine.pause("plain"))
        batches = [[f"old{n}" for n in range(begin, begin + 20)] for begin in range(0, 60, 20)]
        await self.together(*(self.submitting(engine, *batch, lane="backfill") for batch in batches))
        await self.submit(engine, *(f"old{n}" for n in range(6)))
        await anyio.sleep(1.0)
        await self.forget(engine, "old7")
        for begin in range(0, 40, 10):
            await self.submit(engine, *(f"new{n}" for n in range(begin, begin + 10)))
            await anyio.sleep(0.2)
        await self.call("resume", engine.resume("plain"))
        await anyio.sleep(5.0)
        await self.submit(engine, "old1", "last")


@scene
class AfterACrash(Scene):
    """The second life: it recovers what a first one left behind."""

    settings: ClassVar = {"buffer": {"max_profiles": 40}}

    async def before(self) -> None:
        engine = await self.engine().__aenter__()
        await self.submit(engine, "a", "b", "rejected", "busy")
        await anyio.sleep(1.0)
        await engine.pause("listing")
        await self.submit(engine, *(f"old{n}" for n in range(30)), lane="backfill")
        await self.submit(engine, *(f"new{n}" for n in range(10)))
        await self.submit(engine, "slow", "a")
        await engine.dead_letters.replay(LetterFilter())
        await self.forget(engine, "old3")
        await anyio.sleep(0.2)
        await engine.kill()

    async def play(self, engine: Engine) -> None:
        await self.call("recovered", engine.recovered())
        await self.submit(engine, "a", "c")
        await self.call("resume", engine.resume("listing"))
        await anyio.sleep(3.0)


@scene
class AtItsRate(Scene):
    """Connections that open slowly, so that permits grow old, at a rate that binds; ended in the middle of it."""

    settings: ClassVar = {
        "account": [{"name": "a", "rate": {"requests_per_second": 20.0, "burst": 2, "max_concurrency": 4}}],
    }

    async def play(self, engine: Engine) -> None:
        self.start("drained", engine.drained())
        for store in self.stores.values():
            store.slow_connections = 6
        await self.together(*(self.submitting(engine, f"p{n}", f"q{n}") for n in range(8)))
        await anyio.sleep(0.4)
        await self.submit(engine, "busy", "p1", "lost")
        await anyio.sleep(0.2)


@scene
class Bunched(Scene):
    """Permits that were granted one by one and come to the socket together."""

    settings: ClassVar = {
        "account": [{"name": "a", "rate": {"requests_per_second": 200.0, "burst": 2, "max_concurrency": 8}}],
    }

    async def play(self, engine: Engine) -> None:
        store = self.stores["plain"]
        store.slow_connections, store.connection_seconds = 3, 0.006
        await self.submit(engine, *(f"p{n}" for n in range(20)))


@scene
class Leaving(Scene):
    """An end with commits, requests and a forget under way."""

    async def play(self, engine: Engine) -> None:
        await self.submit(engine, "slow", "lost", "a", "b")
        await anyio.sleep(0.1)
        await self.forget(engine, "a")
        self.last = self.submitting(engine, "c", "d")
        await asyncio.sleep(0)

    async def _look_at(self, engine: Engine) -> None:
        """It is on its way out."""


@scene
class Killed(Scene):
    """Stopped at once, in the middle of everything."""

    async def play(self, engine: Engine) -> None:
        await self.together(*(self.submitting(engine, f"p{n}", f"q{n}") for n in range(4)))
        last = self.submitting(engine, "slow", "lost")
        await anyio.sleep(0.02)
        await self.call("kill", engine.kill())
        await self.together(last)

    async def _look_at(self, engine: Engine) -> None:
        """It is gone."""
