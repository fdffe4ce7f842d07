"""Nobody leaves without the consent that a destination asks for, whatever else goes on."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.model import Batch, Verdict, VerdictKind
from engine.ports import LetterFilter
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, reject
from engine.testing.lasting import LastingState

LEA = {"email": "lea@example.com", "city": "Lille"}
YES, NO = {"marketing.email": "y"}, {"marketing.email": "n"}
DAY_SECONDS = 86_400.0


class Scene:
    """An engine on a disk in memory, and its one destination."""

    def __init__(self, *, source: dict[str, Any] | None = None, batches: int = 1, **destination: Any) -> None:
        self.journal, self.state = MemoryJournal(), LastingState()
        self.store = FakeDestination(profiles_per_request=batches)
        self.config = Config.from_dict(
            {
                "source": [source or {}],
                "account": [{"rate": {"requests_per_second": 500.0, "burst": 5}}],
                "destination": [{"name": "demo", "consent": [{"required": "marketing.email"}], **destination}],
            }
        )

    def engine(self) -> Engine:
        return Engine(
            self.config,
            destinations={"demo": self.store},
            journal=self.journal,
            state=self.state,
            clock=VirtualClock(),
            random=random.Random(1),
        )

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(record) for request in self.store.requests for record in request.records]


def play(scene: Scene, *acts: Callable[[Engine], Awaitable[None]]) -> None:
    """Each act in a process of its own."""

    async def main() -> None:
        for act in acts:
            async with scene.engine() as engine:
                await act(engine)
                report = await engine.control.audit()
                assert report["ok"], report

    run_virtual(main)


async def settle(engine: Engine, *events: dict[str, Any]) -> None:
    receipt = await engine.submit(events)
    await receipt.settled(timeout=60)


def excluded(engine: Engine) -> dict[str, int]:
    return dict(engine.control.destinations()[0]["excluded"])  # type: ignore[call-overload]


def test_an_opt_out_is_excluded_and_counted() -> None:
    scene = Scene()

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": NO}, {"email": "ana@example.com", "consents": YES})
        assert excluded(engine) == {"consent": 1}
        assert (await engine.lookup(LEA["email"]))["destinations"]["demo"]["reason"] == "consent"  # type: ignore[index]

    play(scene, act)
    assert [it["email"] for it in scene.sent()] == ["ana@example.com"]


def test_it_is_the_merged_profile_that_is_judged() -> None:
    """An opt-out takes with it what came just before it and has not left yet."""
    scene = Scene(batch={"linger_ms": 1_000})

    async def act(engine: Engine) -> None:
        await engine.submit([{**LEA, "consents": YES}])
        await anyio.sleep(0.1)
        await settle(engine, {"email": LEA["email"], "consents": NO})

    play(scene, act)
    assert scene.sent() == []


@pytest.mark.parametrize("absent", ["allow", "deny"])
def test_an_opt_out_holds_for_later_events_that_do_not_speak_of_it(absent: str) -> None:
    """Over a restart too: it stands in the ledger, not in memory."""
    scene = Scene(consent=[{"required": "marketing.email", "absent": absent}])

    async def first(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": NO})

    async def second(engine: Engine) -> None:
        await settle(engine, {**LEA, "city": "Lyon"})
        assert excluded(engine) == {"consent": 2}

    play(scene, first, second)
    assert scene.sent() == []


def test_a_consent_holds_for_later_events_that_do_not_speak_of_it() -> None:
    scene = Scene()

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": YES})
        await settle(engine, {**LEA, "city": "Lyon"})

    play(scene, act)
    assert [it["city"] for it in scene.sent()] == ["Lille", "Lyon"]


def test_whoever_opts_in_again_leaves_again() -> None:
    scene = Scene()

    async def act(engine: Engine) -> None:
        for consents in (YES, NO, YES):
            await settle(engine, {**LEA, "consents": consents})

    play(scene, act)
    assert len(scene.sent()) == 2, "and the second time is not taken for a repetition"


@pytest.mark.parametrize("exits", ["ignore", "flag:optedin"])
def test_a_dead_letter_from_before_an_opt_out_does_not_leave_when_it_is_replayed(exits: str) -> None:
    scene = Scene(exits=exits)

    async def rejected(engine: Engine) -> None:
        scene.store.script.append(Step(reject()))
        await settle(engine, {**LEA, "consents": YES})
        await settle(engine, {"email": LEA["email"], "consents": NO})

    async def replayed(engine: Engine) -> None:
        before = len(scene.store.requests)
        assert (await engine.dead_letters.replay(LetterFilter()))["replayed"] == 1
        await anyio.sleep(5.0)
        later = [record for request in scene.store.requests[before:] for record in request.records]
        assert not any(b"Lille" in record for record in later)

    play(scene, rejected, replayed)
    assert "city" not in scene.store.stored.get(LEA["email"], {})


def test_a_dead_letter_after_an_opt_in_leaves_when_it_is_replayed() -> None:
    scene = Scene()

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": NO})
        scene.store.script.append(Step(reject()))
        await settle(engine, {**LEA, "consents": YES})
        await engine.dead_letters.replay(LetterFilter())
        await anyio.sleep(5.0)

    play(scene, act)
    assert scene.store.stored[LEA["email"]]["city"] == "Lille"


def test_an_opt_out_meets_what_waits_for_another_attempt() -> None:
    scene = Scene()

    async def act(engine: Engine) -> None:
        scene.store.script.append(Step(Verdict(VerdictKind.RETRY, "response_code_5")))
        await engine.submit([{**LEA, "consents": YES}])
        await anyio.sleep(0.05)
        await settle(engine, {"email": LEA["email"], "consents": NO})

    play(scene, act)
    assert len(scene.sent()) == 1, "the attempt from before the opt-out, and none after it"


def test_an_opt_out_meets_the_half_of_a_batch_that_is_split() -> None:
    scene = Scene(batches=2)
    people = [{"email": f"p{n}@example.com", "consents": YES} for n in range(2)]

    async def act(engine: Engine) -> None:
        def answer(batch: Batch) -> Step:
            kind = VerdictKind.SPLIT if len(batch.profiles) > 1 else VerdictKind.OK
            return Step(Verdict(kind), seconds=1.0)

        scene.store.answer = answer
        await engine.submit(people)
        await anyio.sleep(0.5)
        await engine.submit([{"email": it["email"], "consents": NO} for it in people])
        await anyio.sleep(10.0)
        assert excluded(engine) == {"consent": 2}

    play(scene, act)
    assert scene.store.stored == {}


def test_with_a_flag_an_opt_out_leaves_as_the_address_alone() -> None:
    """The flag itself is the destination's to encode; nothing else of the person is handed to it."""
    scene = Scene(exits="flag:optedin")

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": YES})
        await settle(engine, {**LEA, "city": "Lyon", "consents": NO})

    play(scene, act)
    assert scene.sent() == [LEA, {"email": LEA["email"]}]


def test_the_times_of_events_decide_for_sources_that_go_by_them() -> None:
    scene = Scene(source={"order": "timestamp"})

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": NO, "timestamp": 2_000_000_000})
        await settle(engine, {**LEA, "consents": YES, "timestamp": 1_900_000_000})
        assert excluded(engine) == {"consent": 2}

    play(scene, act)
    assert scene.sent() == []


def test_a_hash_alone_can_opt_out_whom_an_address_names_later() -> None:
    from engine.profiles.identity import key_of

    scene = Scene()

    async def act(engine: Engine) -> None:
        await settle(engine, {"email_lc_sha256": key_of(LEA["email"]).hex(), "consents": NO})
        assert excluded(engine) == {"no_email": 1}
        await settle(engine, LEA)

    play(scene, act)
    assert scene.sent() == []


def test_what_was_said_outlives_the_retention_of_the_ledger() -> None:
    scene = Scene(consent=[{"required": "marketing.email", "absent": "allow"}])

    async def first(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": NO}, {"email": "ana@example.com"})
        await scene.state.prune(VirtualClock().time() + 200 * DAY_SECONDS)

    async def second(engine: Engine) -> None:
        ana = (await engine.lookup("ana@example.com"))["destinations"]["demo"]  # type: ignore[index]
        assert ana["state"] == "unknown", "retention was at work"
        await settle(engine, LEA)

    play(scene, first, second)
    assert [it["email"] for it in scene.sent()] == ["ana@example.com"]


@pytest.mark.parametrize("wait", [0.0, 0.01, 0.2, 5.0])
def test_a_forget_forgets_what_was_said(wait: float) -> None:
    """Whoever comes back is judged as somebody new, also while the forget is being written down."""
    scene = Scene(consent=[{"required": "marketing.email", "absent": "allow"}])

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": NO})
        await engine.forget(LEA["email"])
        await anyio.sleep(wait)
        await settle(engine, {**LEA, "city": "Lyon"})
        found = (await engine.lookup(LEA["email"]))["destinations"]["demo"]  # type: ignore[index]
        assert (found["outcome"], found["consents"]) == ("delivered", {})

    play(scene, act)
    assert [it["city"] for it in scene.sent()] == ["Lyon"]


def test_what_was_said_can_be_looked_up() -> None:
    scene = Scene()

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": {"marketing": {"any": {"val": "p"}, "email": {"val": "y"}}}})
        found = (await engine.lookup(LEA["email"]))["destinations"]["demo"]  # type: ignore[index]
        assert found["consents"] == {"marketing.any": "p", "marketing.email": "y"}

    play(scene, act)


def test_where_nobody_asks_nothing_is_stored() -> None:
    scene = Scene(consent=[])

    async def act(engine: Engine) -> None:
        await settle(engine, {**LEA, "consents": NO})
        found = (await engine.lookup(LEA["email"]))["destinations"]["demo"]  # type: ignore[index]
        assert found["consents"] == {}

    play(scene, act)
    assert scene.sent() == [LEA]


def said(events: Iterable[str]) -> list[dict[str, Any]]:
    return [{**LEA, "consents": {"marketing.email": value}} for value in events]


@pytest.mark.parametrize("seed", range(40))
def test_however_events_crashes_and_failures_fall_nobody_leaves_after_the_last_refusal(seed: int) -> None:
    """An independent count: once the last word is n, no record that is handed over later may hold a field."""
    chance = random.Random(seed)
    scene = Scene(batches=chance.choice([1, 3]), exits=chance.choice(["ignore", "store", "flag:optedin"]))

    def answer(batch: Batch) -> Step:
        kind = chance.choice([VerdictKind.OK, VerdictKind.RETRY, VerdictKind.REJECT, VerdictKind.UNKNOWN])
        return Step(Verdict(kind, "x"), seconds=chance.choice([0.0, 0.3]))

    scene.store.answer = answer

    async def main() -> None:
        refused_at: dict[str, int] = {}
        for _ in range(3):
            engine = scene.engine()
            await engine.__aenter__()
            for _ in range(6):
                email, word = f"p{chance.randrange(3)}@example.com", chance.choice(["y", "n", None])
                event = {"email": email, "city": "Lille"} | ({"consents": {"marketing.email": word}} if word else {})
                await engine.submit([event])
                if word is not None:
                    refused_at.pop(email, None)
                if word == "n":
                    await anyio.sleep(0.0)
                    refused_at[email] = len(scene.store.requests)
                await anyio.sleep(chance.choice([0.0, 0.1, 1.0]))
                if chance.random() < 0.3:
                    await engine.dead_letters.replay(LetterFilter())
            await (engine.kill() if chance.random() < 0.5 else engine.__aexit__())
        scene.store.answer = None
        async with scene.engine() as engine:
            await engine.dead_letters.replay(LetterFilter())
            await anyio.sleep(60.0)
            report = await engine.control.audit()
            assert report["ok"], report
        for email, after in refused_at.items():
            later = [json.loads(it) for request in scene.store.requests[after:] for it in request.records]
            assert not [it for it in later if it["email"] == email and "city" in it], (seed, email)

    run_virtual(main)
