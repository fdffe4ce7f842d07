"""What is known of a key while the state file does not know it yet."""

from __future__ import annotations

from collections.abc import Sequence

from engine.dispatcher.recent import Recent
from engine.model import NOTHING, LedgerEntry
from engine.ports import KeyState

KEY = bytes(32)


class Stored:
    """A state file with one entry."""

    def __init__(self, entry: LedgerEntry | None) -> None:
        self.entry = entry

    async def keys(self, consumer: str, keys: Sequence[bytes], /) -> dict[bytes, KeyState]:
        return {} if self.entry is None else {KEY: KeyState(self.entry)}


async def look_up(recent: Recent, stored: LedgerEntry | None) -> LedgerEntry:
    found = await recent.look_up(Stored(stored), "demo", [KEY])  # type: ignore[arg-type]
    entry = found[KEY].entry
    assert entry is not None
    return entry


def entry(through: int, confirmed: int = NOTHING, consents: bytes = b"") -> LedgerEntry:
    return LedgerEntry(KEY, "delivered", "", through, confirmed, consents=consents)


async def test_what_a_verdict_leaves_open_is_as_the_file_has_it() -> None:
    recent = Recent()
    recent.note(entry(5))
    found = await look_up(recent, entry(3, 3, b"said"))
    assert (found.settled_through, found.confirmed_through, found.consents) == (5, 3, b"said")


async def test_the_last_verdict_stands_with_what_those_before_it_said() -> None:
    recent = Recent()
    recent.note(entry(3, 3, b"said"))
    recent.note(entry(5))
    found = await look_up(recent, None)
    assert (found.settled_through, found.confirmed_through, found.consents) == (5, 3, b"said")


async def test_nothing_from_before_a_forget_is_known_while_that_is_being_written() -> None:
    """The state file still has it all; whoever comes back meanwhile is somebody new."""
    recent = Recent()
    recent.note(entry(3, 3, b"said"))
    recent.forget(KEY, 4)
    assert (await look_up(recent, entry(2, 2, b"said"))).consents == b""
    recent.note(entry(6))
    found = await look_up(recent, entry(2, 2, b"said"))
    assert (found.settled_through, found.confirmed_through, found.consents) == (6, NOTHING, b"")


async def test_a_forget_that_became_durable_during_the_question_counts_too() -> None:
    recent = Recent()
    recent.forget(KEY, 4)
    recent.note(entry(6))
    recent.taken()

    class Slow(Stored):
        async def keys(self, consumer: str, keys: Sequence[bytes], /) -> dict[bytes, KeyState]:
            answer = await super().keys(consumer, keys)
            recent.durable()
            return answer

    found = await recent.look_up(Slow(entry(2, 2, b"said")), "demo", [KEY])  # type: ignore[arg-type]
    assert found[KEY].entry is not None
    assert found[KEY].entry.consents == b""


async def test_once_it_is_durable_the_file_answers_alone() -> None:
    recent = Recent()
    mine = entry(5)
    recent.note(mine)
    recent.taken()
    recent.durable()
    stored = entry(5, 5, b"said")
    assert await look_up(recent, stored) is stored
