"""Per audience the newest qualification counts, also against what was told long ago."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.core.codec import pack_audiences, unpack_audiences
from engine.core.handover import Policy, depends_on_audiences, flag, recall_audiences
from engine.model import Lane, LedgerEntry, Membership, Profile, Trait
from engine.ports import LetterFilter
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, reject
from engine.testing.lasting import LastingState

LEA = "lea@example.com"


class Scene:
    """An engine on a disk in memory; its one destination has the audiences a and b."""

    def __init__(self, **destination: Any) -> None:
        self.journal, self.state, self.store = MemoryJournal(), LastingState(), FakeDestination()
        self.config = Config.from_dict(
            {
                "account": [{"rate": {"requests_per_second": 500.0, "burst": 5}}],
                "destination": [{"name": "demo", "audiences": ["a", "b"], **destination}],
            }
        )

    def play(self, *acts: Callable[[Engine], Awaitable[None]]) -> list[str]:
        """Each act in a process of its own; the cities that were sent."""

        async def main() -> None:
            for act in acts:
                async with Engine(
                    self.config,
                    destinations={"demo": self.store},
                    journal=self.journal,
                    state=self.state,
                    clock=VirtualClock(),
                    random=random.Random(1),
                ) as engine:
                    await act(engine)
                    report = await engine.control.audit()
                    assert report["ok"], report

        run_virtual(main)
        return [json.loads(record).get("city", "") for request in self.store.requests for record in request.records]


def telling(city: str, **audiences: tuple[str, int]) -> Callable[[Engine], Awaitable[None]]:
    """One event and what becomes of it. audience = (status, day of its qualification)."""
    told = {
        name: {"status": status, "lastQualificationTime": f"2026-10-{day:02}T08:00:00Z"}
        for name, (status, day) in audiences.items()
    }

    async def act(engine: Engine) -> None:
        receipt = await engine.submit([{"email": LEA, "city": city, "audiences": told}])
        await receipt.settled(timeout=60)

    return act


def in_one_process(*acts: Callable[[Engine], Awaitable[None]]) -> Callable[[Engine], Awaitable[None]]:
    async def act(engine: Engine) -> None:
        for one in acts:
            await one(engine)

    return act


LATE = [
    telling("first", a=("realized", 1)),
    telling("exit", a=("exited", 3)),
    telling("late", a=("realized", 2)),
    telling("again", a=("realized", 4)),
]


@pytest.mark.parametrize("restarts", [True, False])
def test_a_qualification_from_before_an_exit_that_was_told_changes_nothing(restarts: bool) -> None:
    acts = LATE if restarts else [in_one_process(*LATE)]
    assert Scene().play(*acts) == ["first", "again"]


def test_an_exit_from_before_the_newest_qualification_takes_nobody_out() -> None:
    acts = [telling("first", a=("realized", 3)), telling("second", a=("exited", 2))]
    assert Scene().play(*acts) == ["first", "second"]


def test_on_a_tie_the_later_event_counts() -> None:
    assert Scene().play(telling("first", a=("realized", 1)), telling("second", a=("exited", 1))) == ["first"]


def test_each_audience_is_remembered_though_later_events_name_others() -> None:
    acts = [
        telling("exit", a=("exited", 5)),
        telling("other", b=("realized", 1)),
        telling("late", a=("realized", 4)),
    ]
    assert Scene().play(*acts) == ["other"]


def test_an_event_without_audiences_says_nothing_about_them() -> None:
    acts = [telling("first", a=("realized", 1)), telling("plain"), telling("late", a=("exited", 0 + 1))]
    assert Scene().play(*acts) == ["first"]


def test_what_was_told_outlives_a_dead_letter_and_holds_for_its_replay() -> None:
    scene = Scene()
    scene.store.script.append(Step(reject("http_422")))

    async def replay(engine: Engine) -> None:
        assert (await engine.dead_letters.replay(LetterFilter()))["replayed"] == 1

    assert scene.play(telling("dead", a=("realized", 1)), telling("exit", a=("exited", 2)), replay)[1:] == []


def test_a_forgotten_attendee_has_no_standing() -> None:
    async def forget(engine: Engine) -> None:
        await engine.forget(LEA)

    assert Scene().play(telling("exit", a=("exited", 3)), forget, telling("new", a=("realized", 2))) == ["new"]


def profile(**audiences: Membership) -> Profile:
    return Profile(bytes(32), b'{"email":"a@b.example"}', Trait.EMAIL, Lane.LIVE, 0, 0, 0, 1, 0.0, audiences or None)


def entry(**audiences: Membership) -> LedgerEntry:
    return LedgerEntry(bytes(32), "delivered", "", 7, audiences=pack_audiences(audiences))


def test_the_flag_goes_by_the_newest_standing() -> None:
    policy = Policy(exits="flag:active")
    late = profile(a=Membership(True, 2.0))
    recall_audiences(late, entry(a=Membership(False, 3.0, "A"), b=Membership(True, 9.0)))
    assert flag(late, policy) is False
    assert late.audiences == {"a": Membership(False, 3.0, "A")}
    assert late.standing == {"b": Membership(True, 9.0)}


def test_nothing_is_remembered_where_nothing_depends_on_it() -> None:
    assert not depends_on_audiences(Policy())
    assert not depends_on_audiences(Policy(exits="store"))
    assert depends_on_audiences(Policy(exits="flag:active"))
    assert depends_on_audiences(Policy(audiences=frozenset({"ups/a"})))


def test_what_a_ledger_entry_keeps_is_read_as_it_was_written() -> None:
    told = {"ups/a": Membership(True, 1.5, "A"), "csv/7": Membership(False, 2.0)}
    assert unpack_audiences(pack_audiences(told)) == told
    assert (pack_audiences({}), pack_audiences(None), unpack_audiences(b"")) == (b"", b"", {})
