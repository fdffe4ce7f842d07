"""One run: producers, operators and an attendee store around an engine that is killed, stopped and started again.

Everything is drawn from `Knobs.seed` and happens on virtual time, so that a run can be had again, exactly. The engine
is the real one, whole: pipeline, dispatcher, OAuth client, RainFocus client, state file. Simulated are the journal's
storage (`disk`), the other side of the wire (`store`) and the people (here). What has to come of it: `facts`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from unittest import mock

import anyio
import msgspec
from disk import Disk, DiskJournal, DiskState, key_of
from facts import EDITED, Facts, Fields
from files import PATCHES, Files, FilesJournal, FilesState, SegmentsJournal
from knobs import Knobs
from receiver import Receiver
from store import LISTING, PLAIN, OtherSide, Session
from wires import TracedPool, Wires

from engine.adapters.raw_http import transport
from engine.assembly import Engine, outward
from engine.config import Config
from engine.dispatcher import consumer, holding
from engine.errors import EngineError, Stopped
from engine.model import Append, Event, Kind
from engine.ports import LetterFilter
from engine.testing.clock import VirtualClock, VirtualLoop

FIELDS = ("city", "zip", "phone", "jobtitle")
SETTLED_SOON_SECONDS = 0.3
"""Within this time, beyond twice what a settling transaction takes, a process has written down what it was told."""
END_SECONDS = 7_200.0
"""Without faults everything has its outcome within this time."""

HOOK = {"name": "hook", "url": "https://hook.example", "secret": "QUJD" * 8}

LONGEST: dict[str, Callable[[Knobs], float]] = {
    "commit": lambda knobs: knobs.commit_seconds,
    "settle": lambda knobs: knobs.settle_seconds,
    "store": lambda knobs: knobs.way_seconds,
}
"""About what each takes at most: it is cut off within this time after it has begun."""

SMALL_STEPS = {
    (holding, "STRAGGLER_SPAN_EVENTS"): 60,
    (holding, "STRAGGLERS"): 20,
    (holding, "STRAGGLERS_EVERY_SECONDS"): 0.1,
    (consumer, "READ_AHEAD_EVENTS"): 200,
}
"""What takes 100,000 events in earnest has to happen in a few hundred here."""


def config_of(knobs: Knobs) -> Config:
    destination = {
        "batch": {"max_profiles": min(knobs.batch_profiles, knobs.buffer_profiles), "linger_ms": knobs.linger_ms},
        "suppress": {"enabled": knobs.suppress},
        "retry": {
            "base_ms": knobs.base_ms,
            "cap_ms": 2_000,
            "timeout_seconds": knobs.timeout_seconds,
            "unknown_hold_seconds": knobs.hold_seconds,
            "max_attempts": knobs.max_attempts,
        },
    }
    again = {name: value for name, value in destination["retry"].items() if name != "max_attempts"}
    rate = {"requests_per_second": knobs.rate, "burst": knobs.burst, "max_concurrency": knobs.concurrency}
    return Config.from_dict(
        {
            "journal": {"kind": "memory"},
            "buffer": {"max_profiles": knobs.buffer_profiles},
            "ledger": {"enabled": knobs.ledger},
            "dead_letters": {"max_count": knobs.max_letters},
            "source": [{"mapping": {"version": "version"}}],
            "account": [{"name": "a", "rate": rate, "transport": knobs.transport}],
            "destination": [
                {**destination, "name": "plain", "event_code": PLAIN},
                {**destination, "name": "listing", "event_code": LISTING, "encoding": "array"},
            ],
            "forward": [{**HOOK, "rate": rate, "retry": again | {"max_attempts": 1_000}}] if knobs.edits else [],
        }
    )


class Life:
    """One process."""

    def __init__(
        self, engine: Engine, journal: DiskJournal | FilesJournal | SegmentsJournal, state: DiskState | FilesState
    ) -> None:
        self.engine, self.journal, self.state = engine, journal, state
        # Profiles in memory when last looked at. Recovery may take in more than the share; it only drains then.
        self.most = dict.fromkeys(("plain", "listing", "hook"), 10**9)


class World:
    def __init__(self, knobs: Knobs) -> None:
        self.knobs, self.facts = knobs, Facts()
        self.disk = Files(knobs, self.facts) if knobs.storage == "files" else Disk(knobs, self.facts)
        self.other_side = OtherSide(knobs, self.facts)
        self.config = config_of(knobs)
        self.random = random.Random(f"world {knobs.seed}")
        self.versions = [0] * knobs.producers
        self.said: list[Fields] = []
        self.producers = [random.Random(f"producer {number} {knobs.seed}") for number in range(knobs.producers)]
        self.operator = random.Random(f"operator {knobs.seed}")
        self.planner = random.Random(f"planner {knobs.seed}")
        self.changes = 0
        self.unreported: list[Event] = []  # RainFocus reports a change until that is accepted, in order

    # -- processes ------------------------------------------------------------------------------------------------

    def boot(self) -> Life:
        self.facts.life += 1
        process = object()
        journal, state = self.disk.boot(process)
        self.other_side.boot(process)
        hook = Receiver(
            self.knobs, self.facts, lambda: self.other_side.process is process, lambda: self.other_side.faulty
        )
        engine = Engine(
            self.config,
            destinations={"hook": hook} if self.knobs.edits else {},
            journal=journal,
            state=state,
            clock=VirtualClock(),
            random=random.Random(f"engine {self.knobs.seed} {self.facts.life}"),
        )
        return Life(engine, journal, state)

    async def live(self) -> None:
        """One process works for a while, and dies of what the seed says."""
        life = self.boot()
        if not await self._started(life):
            return
        async with anyio.create_task_group() as people:
            for number in range(self.knobs.producers):
                people.start_soon(self._produce, life, number)
            people.start_soon(self._operate, life)
            if self.knobs.edits:
                people.start_soon(self._plan, life)
            await self._until_the_end(life)
            if self.random.random() < self.knobs.stops:
                self.facts.seen["stopped"] += 1
                self._look(life)
                await life.engine.__aexit__()
            await self._die(life)
            people.cancel_scope.cancel()

    async def _started(self, life: Life) -> bool:
        try:
            await life.engine.__aenter__()
        except EngineError as error:
            self.facts.seen["could not start"] += 1
            if not self.disk.has_failed():
                self.facts.broken("starts again", f"{type(error).__name__} {error}")
            await self._die(life)
            await anyio.sleep(1.0)
            return False
        return True

    async def _die(self, life: Life) -> None:
        """From here on nothing that it does reaches the disk; what is on the wire may still arrive."""
        if not (self.disk.failed or self.disk.full_until > 0):  # else nothing could be written down
            self.facts.pauses_are_durable(SETTLED_SOON_SECONDS + 2 * self.knobs.settle_seconds)
        self.disk.cut_power()
        self.other_side.process = None
        await life.engine.kill()
        await life.state.die()
        self.disk.next_life()

    async def _until_the_end(self, life: Life) -> None:
        seconds = self.random.uniform(0.0, self.knobs.life_seconds)
        if self.knobs.moment == "turn":
            await self._turns(int(10 ** self.random.uniform(0.5, 3.6)), life)
        else:
            await self._failed_within(life, seconds)
        if self.knobs.moment in ("store", "commit", "settle"):
            with anyio.move_on_after(3.0):
                await self.facts.until_begins(self.knobs.moment)
                await anyio.sleep(self.random.uniform(0.0, LONGEST[self.knobs.moment](self.knobs)))
        self.facts.seen[f"ended in mid-{self.knobs.moment}"] += 1

    async def _turns(self, turns: int, life: Life) -> None:
        """Let the loop turn so often, then end it at that very step."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        reached = asyncio.Event()

        def reach() -> None:
            if self.knobs.stops == 0.0:
                self.disk.cut_power()
            reached.set()

        loop.after_turns(turns, reach)
        with anyio.move_on_after(30.0):
            await reached.wait()
        loop.after_turns(-1, reach)

    async def _failed_within(self, life: Life, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await life.engine.drained()
            self.facts.seen["failed"] += 1

    # -- people ---------------------------------------------------------------------------------------------------

    async def _produce(self, life: Life, number: int) -> None:
        source, knobs = self.producers[number], self.knobs
        for _ in range(knobs.requests):
            await anyio.sleep(source.expovariate(1 / knobs.pause_seconds))
            events = [self._event(source, number) for _ in range(source.randint(1, knobs.events))]
            lane = "backfill" if source.random() < knobs.backfill else "live"
            patience = 0.01 if source.random() < knobs.impatience else 60.0
            if not await self._submit(life, events, lane, patience) and source.random() < 0.5:
                self.facts.seen["sent again"] += 1
                again = [{**event, "version": self._version(number)} for event in events if "version" in event]
                await self._submit(life, again, lane, 60.0)
            self._look(life)

    def _version(self, number: int) -> str:
        self.versions[number] += 1
        return str(self.versions[number])

    def _event(self, source: random.Random, number: int) -> Fields:
        if source.random() < self.knobs.repeats:
            return {"email": f"flip{number}@example.com", "city": source.choice("AB")}
        version = self._version(number)
        email = f"p{number}-{source.randrange(self.knobs.people)}@example.com"
        return {"email": email, "version": version, source.choice(FIELDS): version}

    async def _submit(self, life: Life, events: list[Fields], lane: str, patience: float) -> bool:
        try:
            with anyio.fail_after(patience):
                await life.engine.submit(events, lane=lane)
        except TimeoutError:
            self.facts.seen["impatient"] += 1
            return False
        except EngineError as error:
            self.facts.seen["stopped at the door" if isinstance(error, Stopped) else "refused at the door"] += 1
            return False
        self.facts.acknowledged.update((one["email"], int(one["version"])) for one in events if "version" in one)
        return True

    async def _operate(self, life: Life) -> None:
        """What operators do, each thing now and then."""
        knobs = self.knobs
        deeds: list[tuple[float, Callable[[Life], Any]]] = [
            (knobs.forgets, self._forget),
            (knobs.replays, self._replay),
            (knobs.purges, self._purge),
            (knobs.pauses, self._pause),
            (knobs.audits, self._audit),
        ]
        for _ in range(knobs.requests):
            await anyio.sleep(self.operator.expovariate(1 / max(0.05, knobs.pause_seconds)))
            for chance, deed in deeds:
                if self.operator.random() < chance:
                    with suppress(EngineError):
                        await deed(life)

    async def _forget(self, life: Life) -> None:
        if self.facts.people:
            self.facts.seen["forgotten"] += 1
            await life.engine.forget(self.operator.choice(list(self.facts.people)))

    async def _replay(self, life: Life) -> None:
        self.facts.seen["replayed"] += int(str((await life.engine.dead_letters.replay(LetterFilter()))["replayed"]))

    async def _purge(self, life: Life) -> None:
        self.facts.seen["purged"] += int(str((await life.engine.dead_letters.purge(LetterFilter()))["purged"]))

    async def _pause(self, life: Life) -> None:
        name = self.operator.choice(["plain", "listing"])
        await life.engine.pause(name)
        await anyio.sleep(self.operator.uniform(0.0, 1.0))
        await life.engine.resume(name)

    async def _audit(self, life: Life) -> None:
        await self._check_audit(life)

    async def _check_audit(self, life: Life) -> None:
        report = await life.engine.control.audit()
        self.facts.seen["audited"] += 1
        if not report["ok"]:
            self.facts.broken("conservation", str(report["problems"]))

    async def _plan(self, life: Life) -> None:
        """People who work in RainFocus itself edit attendees there, now and then."""
        knobs = self.knobs
        for _ in range(knobs.requests):
            await anyio.sleep(self.planner.expovariate(1 / max(0.05, knobs.pause_seconds)))
            if self.planner.random() < knobs.edits:
                self._edit()
            with suppress(EngineError):
                await self._report(life)

    def _edit(self) -> None:
        """Those of whom the same is said again and again: only they could be suppressed."""
        known = sorted(email for email in self.facts.people if email.startswith("flip"))
        if not known:
            return
        email = self.planner.choice(known)
        for stored in self.other_side.stored.values():
            if email in stored:
                stored[email]["city"] = EDITED
        self.changes += 1
        content = msgspec.json.encode([{"id": f"c{self.changes}", "record": {"attendee": {"email": email}}}])
        self.unreported.append(Event(key_of(email), content, kind=Kind.CHANGE, attendee_id="a1"))
        self.facts.seen["edited"] += 1

    async def _report(self, life: Life) -> None:
        while self.unreported:
            await life.engine.intake.accept(Append([self.unreported[0]], ""))
            self.unreported.pop(0)

    def _look(self, life: Life) -> None:
        """At what can be seen at any moment: the sums are even, and memory is bounded."""
        parts = life.engine._parts
        for one in parts.consumers if parts is not None else ():
            if residual := one.residual(parts.pipeline.commit.next_offset):
                self.facts.broken("conservation", f"{one.name}: residual {residual}")
            many = len(one.coalescer)
            if many > max(one.policy.max_profiles, life.most[one.name]) and not one.recovering:
                self.facts.broken("bounded", f"{one.name}: {many} profiles in memory")
            life.most[one.name] = life.most[one.name] if one.recovering else many
            self.facts.seen["held"] += one.books.held_profiles
            self.facts.seen["suppressed"] += one.books.counts.get("suppressed", 0)
            self.facts.seen["breaker open"] += one.breaker.state == "open"
            self.facts.seen["bisected"] += len(one.halves)

    # -- the end --------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """No fault and nobody who interferes any more: everything has to get its outcome."""
        self.disk.faulty = self.other_side.faulty = False
        life = self.boot()
        await life.engine.__aenter__()
        for name in ("plain", "listing"):
            await life.engine.resume(name)
        while self.unreported:
            with suppress(EngineError):  # a small journal may be full still
                await self._report(life)
            await anyio.sleep(0.5)
        await self._until_settled(life)
        await self._check_audit(life)
        self._look(life)
        await life.engine.__aexit__()
        if life.engine._task is not None and life.engine._task.exception() is not None:
            self.facts.broken("ends well", repr(life.engine._task.exception()))
        self._judge()

    async def _until_settled(self, life: Life) -> None:
        try:
            with anyio.fail_after(END_SECONDS):
                # The watermark also waits for what was forgotten to be erased.
                while any(_is_behind(one, life) for one in life.engine.control.destinations()):  # noqa: ASYNC110
                    await anyio.sleep(1.0)
        except TimeoutError:
            self.facts.broken("liveness", f"events are pending after {END_SECONDS:.0f} s without a fault")

    def _judge(self) -> None:
        facts = self.facts
        facts.check_acknowledged()
        facts.check_forwarded()
        facts.check_rate(self.knobs.rate, self.knobs.burst)
        for event, stored in self.other_side.stored.items():
            for email, person in facts.people.items():
                if wrong := person.may_hold(event, stored.get(email, {})):
                    facts.broken("every attendee ends in its fold", f"{event} {email}: {wrong}")
        self._judge_forgotten()

    def _judge_forgotten(self) -> None:
        """What the journal still holds of a forgotten person came after the forget."""
        forgotten = {key_of(email): one.forgotten_below for email, one in self.facts.people.items()}
        left = [event for event in self.disk.left() if event.content != b"{}"]
        for key, below in forgotten.items():
            mine = sum(event.key == key and event.kind == 0 for event in left)
            if below and mine > self.facts.people[self.facts.emails[key]].profiles_from(below):
                self.facts.broken("forgotten means erased", f"{mine} events of {self.facts.emails[key]} are left")


def _is_behind(destination: dict[str, Any], life: Life) -> bool:
    assert life.engine._parts is not None
    behind = life.engine._parts.pipeline.commit.next_offset - destination["watermark"]
    return bool(destination["counts"]["pending"] or behind)


# -- running it -------------------------------------------------------------------------------------------------------


class SteppedLoop(VirtualLoop):
    """Calls somebody after a number of its turns: between any two steps of the program."""

    def __init__(self) -> None:
        super().__init__()
        self._left, self._call = -1, lambda: None

    def after_turns(self, turns: int, call: Callable[[], None]) -> None:
        self._left, self._call = turns, call

    def _run_once(self) -> None:
        if self._left > 0:
            self._left -= 1
            if not self._left:
                self._call()
        super()._run_once()  # type: ignore[misc]


@contextmanager
def _arranged(world: World) -> Iterator[None]:
    """The engine's sessions lead to the world's other side, and small numbers make big things happen."""
    patches = [mock.patch.object(owner, name, value) for (owner, name), value in SMALL_STEPS.items()]
    patches.append(mock.patch.object(outward, "open_session", return_value=Session(world.other_side)))
    patches.append(mock.patch.object(outward, "RawTransport", lambda connections: Wires(world.other_side, connections)))
    patches.append(mock.patch.object(transport, "Pool", TracedPool))
    patches += [make() for make in PATCHES]
    logger = logging.getLogger("engine")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield
    finally:
        logger.setLevel(level)


def run(knobs: Knobs) -> Facts:
    """One run, from the first process to the judgement. Whatever the engine raises is a violation too."""
    world = World(knobs)

    async def main() -> None:
        for _ in range(knobs.lives):
            await world.live()
        await world.finish()

    try:
        with _arranged(world), asyncio.Runner(loop_factory=SteppedLoop) as runner:
            runner.run(main())
    except Exception as error:
        world.facts.broken(f"no {type(error).__name__}", str(error))
    finally:
        world.disk.close()
    return world.facts
