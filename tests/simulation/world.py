"""A world for one engine: a disk and attendee stores that outlive it, an oracle that is never killed, and faults.

Everything runs on virtual time from one seed, so that a failing seed replays.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

import anyio
import msgspec

from engine.adapters.memory_journal import MemoryJournal
from engine.assembly import Engine
from engine.config import Config
from engine.errors import EngineError
from engine.model import Append, Batch, Kind, Reply, Verdict, VerdictKind
from engine.ports import LetterFilter, Permit
from engine.testing.clock import VirtualClock
from engine.testing.destination import FakeDestination
from engine.testing.lasting import LastingState

HOLD_SECONDS = 2.0
RATE, BURST = 100.0, 4
CONFIG = {
    "journal": {"kind": "memory"},
    "source": [{"mapping": {"version": "version"}}],
    "account": [{"name": "a", "rate": {"requests_per_second": RATE, "burst": BURST, "max_concurrency": 16}}],
    "destination": [
        {
            "name": name,
            "batch": {"max_profiles": 20},
            "retry": {"base_ms": 50, "cap_ms": 2_000, "unknown_hold_seconds": HOLD_SECONDS, "max_attempts": 1_000},
        }
        for name in ("plain", "listing")
    ],
}


class Disk(MemoryJournal):
    """Remembers everything that was ever made durable, in order, and what that means for every attendee."""

    def __init__(self) -> None:
        super().__init__(commit_seconds=0.002)
        self.history: list[Append] = []
        self.versions: dict[str, list[int]] = {}  # e-mail -> the versions it went through …
        self.states: dict[str, list[dict[str, object]]] = {}  # … and its state after each
        self.committing = False

    async def append(self, appends: Sequence[Append], /) -> int:
        self.committing = True
        try:
            first = await super().append(appends)
        finally:
            self.committing = False
        self.history += appends
        for append in appends:
            for event in append.events:
                fields = msgspec.json.decode(event.content)
                if event.kind == Kind.PROFILE and "email" in fields:
                    self._remember(fields)
        return first

    def _remember(self, fields: dict[str, object]) -> None:
        email = str(fields["email"])
        states = self.states.setdefault(email, [{}])
        states.append(states[-1] | fields)
        self.versions.setdefault(email, []).append(int(str(fields.get("version", 0))))

    def state(self, email: str, version: int) -> dict[str, object]:
        """The fold of its events up to this version."""
        return self.states[email][bisect_right(self.versions[email], version)]

    def final(self) -> dict[str, dict[str, object]]:
        return {email: states[-1] for email, states in self.states.items()}

    def holds(self, version: int) -> bool:
        return any(version in versions for versions in self.versions.values())


class Wire:
    """What the other side sees of one account: when requests leave, and whether any does in a time of silence."""

    def __init__(self) -> None:
        self.life = 0  # which process is running
        self.left_at: list[float] = []
        self.broke_silence = 0
        self._silence: tuple[int, float] = (0, 0.0)

    def leaves(self) -> None:
        now = anyio.current_time()
        self.left_at.append(now)
        life, until = self._silence
        self.broke_silence += life == self.life and now < until

    def ask_for_silence(self, seconds: float) -> None:
        """Of this process: one that is killed before it has written the pause down cannot know of it."""
        self._silence = (self.life, anyio.current_time() + seconds)

    def most_over(self, rate: float, burst: int) -> float:
        """By how many requests some window of up to 100 of them exceeds rate × window + burst."""
        at = self.left_at
        return max(
            (
                j - i + 1 - (rate * (at[j] - at[i]) + burst)
                for i in range(len(at))
                for j in range(i, min(i + 100, len(at)))
            ),
            default=0.0,
        )


class AttendeeStore(FakeDestination):
    """An attendee store that fails as real ones do. `version` (a field of most records) must never go back."""

    def __init__(self, random: random.Random, world: World, *, profiles_per_request: int = 1) -> None:
        super().__init__(profiles_per_request=profiles_per_request)
        self._random, self._world, self._wire = random, world, world.wire
        self.faulty = True
        self.rejects = 0.0
        self.rejected: set[str] = set()
        self.regressions: list[tuple[str, int, int]] = []
        self.torn: list[tuple[str, dict[str, object], dict[str, object]]] = []
        self.seen: Counter[str] = Counter()

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        await anyio.sleep(self._random.choice([0.0, 0.0, 0.0, 0.019, 0.05]))  # a connection is opened
        await permit.use()
        self._wire.leaves()
        with self.travelling(batch):
            return await self._reply(batch)

    async def _reply(self, batch: Batch) -> Reply:
        choice = self._random.random() if self.faulty else 1.0
        if choice < 0.37 or not self.rejects:
            await self._travel(batch, lands=choice >= 0.25)
        else:
            await anyio.sleep(0.01)
        if choice < 0.10:
            self.seen["refused"] += 1
            return self._answer(batch, VerdictKind.RETRY, "http_503")
        if choice < 0.25:
            self.seen["lost on the way"] += 1
            self._maybe_land_late(batch)
            return self._answer(batch, VerdictKind.UNKNOWN, "reset")
        if choice < 0.35:
            self.seen["reply lost"] += 1
            return self._answer(batch, VerdictKind.UNKNOWN, "timeout")
        if choice < 0.37:
            self.seen["pause"] += 1
            self._wire.ask_for_silence(1.5)
            reply = self._answer(batch, VerdictKind.RETRY, "http_429")
            return msgspec.structs.replace(reply, retry_after_seconds=1.5, throttled=True)
        return self._judge(batch)

    def _judge(self, batch: Batch) -> Reply:
        verdicts = []
        for record in batch.records:
            fields = msgspec.json.decode(record)
            if self.faulty and self._random.random() < self.rejects:
                self.seen["rejected"] += 1
                self.rejected.add(fields["email"])
                verdicts.append(Verdict(VerdictKind.REJECT, "response_code_27"))
                continue
            self.seen["ok"] += 1
            verdicts.append(Verdict(VerdictKind.OK))
            if self.rejects:
                self._land_one(record)
        return Reply(verdicts, status=200)

    async def _travel(self, batch: Batch, *, lands: bool) -> None:
        """A request that is cut off on its way may still arrive, but not later than the hold allows."""
        on_the_way = self._random.uniform(0.0, 0.05)
        try:
            await anyio.sleep(on_the_way)
        except asyncio.CancelledError:
            self.seen["cut off"] += 1
            self._maybe_land_late(batch)
            raise
        if lands:
            self._land(batch)

    def _maybe_land_late(self, batch: Batch) -> None:
        if self._random.random() < 0.5:
            self.seen["landed late"] += 1
            delay = self._random.uniform(0.0, HOLD_SECONDS * 0.9)
            asyncio.get_running_loop().call_later(delay, self._land, batch)

    def _land(self, batch: Batch) -> None:
        for record in batch.records:
            self._land_one(record)

    def _land_one(self, record: bytes) -> None:
        fields = msgspec.json.decode(record)
        known = int(str(self.stored.get(fields["email"], {}).get("version", "-1")))
        version = int(fields.get("version", known))
        if version < known:
            self.regressions.append((fields["email"], known, version))
        self._store(record)
        self._compare(fields["email"], version)

    def _compare(self, email: str, version: int) -> None:
        """Whenever a state arrives, everything older has arrived before it or with it."""
        if version >= 0 and email not in self.rejected | self._world.forgotten:
            stored, expected = self.stored[email], self._world.disk.state(email, version)
            if stored != expected:
                self.torn.append((email, stored.copy(), expected))

    def _answer(self, batch: Batch, kind: VerdictKind, reason: str) -> Reply:
        fault = kind in (VerdictKind.RETRY, VerdictKind.UNKNOWN)
        return Reply([Verdict(kind, reason)] * len(batch.profiles), status=200, destination_fault=fault)


class World:
    """`rejects`: how often a record is rejected; None leaves it to the seed."""

    def __init__(self, seed: int, rejects: float | None = None) -> None:
        self.random = random.Random(seed)
        room = self.random.choice([40, 100, 2_000])
        self.wire, self.disk, self.state = Wire(), Disk(), LastingState()
        self.stores = {
            "plain": AttendeeStore(random.Random(seed + 1), self),
            "listing": AttendeeStore(random.Random(seed + 2), self, profiles_per_request=50),
        }
        self.config = Config.from_dict({**CONFIG, "buffer": {"max_profiles": room}})
        self.forgets = self.random.choice([0.0, 0.05])
        for store in self.stores.values():
            store.rejects = self.random.choice([0.0, 0.0, 0.1]) if rejects is None else rejects
        self.lanes = self.random.choice([["live"], ["live", "live", "backfill"]])
        self.forgotten: set[str] = set()
        self.version = 0
        self.acknowledged: set[int] = set()
        self.seen: Counter[str] = Counter()

    def engine(self) -> Engine:
        self.wire.life += 1
        return Engine(
            self.config,
            destinations=self.stores,
            journal=self.disk,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(self.random.random()),
        )

    def events(self, count: int, people: int) -> list[dict[str, str]]:
        made = []
        for _ in range(count):
            self.version += 1
            event = {"email": f"p{self.random.randrange(people)}@example.com", "version": str(self.version)}
            event[self.random.choice(["city", "zip", "phone", "jobtitle"])] = str(self.version)
            made.append(event)
        if self.random.random() < 0.3:  # states that come again as they were: only these can ever be suppressed
            made.append({"email": f"flip{self.random.randrange(3)}@example.com", "city": self.random.choice("AB")})
        return made

    async def produce(self, engine: Engine, requests: int, people: int) -> None:
        for _ in range(requests):
            await anyio.sleep(self.random.expovariate(50.0))
            events = self.events(self.random.randint(1, 30), people)
            try:
                await engine.submit(events, lane=self.random.choice(self.lanes))
                self.acknowledged.update(int(event["version"]) for event in events if "version" in event)
                if self.random.random() < 0.05:
                    replay = await engine.dead_letters.replay(LetterFilter())
                    self.seen["replayed"] += int(str(replay["replayed"]))
                if self.random.random() < self.forgets:
                    self.forgotten.add(events[0]["email"])
                    self.seen["forgotten"] += 1
                    await engine.forget(events[0]["email"])
            except EngineError:
                self.seen["refused"] += 1
                continue

    async def live(self, seconds: float, requests: int, people: int) -> None:
        """One process: works for a while, and is killed."""
        engine = self.engine()
        await engine.__aenter__()
        async with anyio.create_task_group() as producers:
            producers.start_soon(self.produce, engine, requests, people)
            await self._until_the_end(seconds)
            if self.random.random() < 0.25:
                self.seen["stopped"] += 1
                await engine.__aexit__()
            else:
                await engine.kill()
                self.seen["killed"] += 1
            self._look(engine)

    async def _until_the_end(self, seconds: float) -> None:
        """Most moments are quiet ones. To cut something off, it has to be under way: to the disk, or to a store."""
        moment = self.random.choice(["any", "any", "store", "disk"])
        await anyio.sleep(min(seconds, 0.3) if moment == "disk" else seconds)
        with anyio.move_on_after(0.0 if moment == "any" else 3.0):
            while not (self.disk.committing if moment == "disk" else self._travelling()):  # noqa: ASYNC110
                await anyio.sleep(0.001)

    def _travelling(self) -> bool:
        return any(store.in_flight for store in self.stores.values())

    def _look(self, engine: Engine) -> None:
        for one in engine.control.destinations():
            self.seen["held"] += int(str(one["held"]))
            self.seen["suppressed"] += int(one["counts"]["suppressed"])  # type: ignore[index]

    async def finish(self) -> Engine:
        """The last process: no faults any more, until everything has an outcome."""
        for store in self.stores.values():
            store.faulty = False
        engine = self.engine()
        await engine.__aenter__()
        with anyio.fail_after(3_600):
            while any(one["counts"]["pending"] for one in engine.control.destinations()):  # noqa: ASYNC110
                await anyio.sleep(1.0)
        return engine
