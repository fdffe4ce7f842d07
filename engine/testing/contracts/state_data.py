"""What the battery of `ports.State` settles, and short questions about it."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.model import NOTHING, Held, HeldKind, LedgerEntry, Outcome
from engine.ports import ConsumerState, KeyState, State, Transition
from engine.testing.contracts.harness import key_of, profile

NOW = 1_700_000_000.0


class Limits(msgspec.Struct, frozen=True):
    """Retention limits; the defaults are far away."""

    ledger_days: int = 10_000
    ledger_keys: int = 1_000_000
    letter_days: int = 10_000
    run_days: int = 10_000
    run_audiences: int = 250


def consumer_state(name: str = "plain", start: int = 0) -> ConsumerState:
    return ConsumerState(name, f"identity of {name}", start, start, start, clean=True)


def verdict(name: str, through: int, confirmed: int = NOTHING, **more: Any) -> LedgerEntry:
    """The last outcome of the key of `name`: delivered, and settled through the offset `through`."""
    fields = {"outcome": Outcome.DELIVERED.value, "reason": "", "at": NOW, **more}
    return LedgerEntry(key_of(name), settled_through=through, confirmed_through=confirmed, **fields)


def change(name: str, attendee_id: str = "", at: float = NOW) -> LedgerEntry:
    """The destination says that the attendee of `name` was changed there."""
    return LedgerEntry(key_of(name), "", "", NOTHING, at=at, attendee_id=attendee_id)


def waiting(name: str, last: int, *, events: int = 1) -> Held:
    return Held(HeldKind.WAITING, profile(name, last, events=events), NOW, "straggler")


def letter(name: str, last: int, kind: HeldKind = HeldKind.DEAD, **more: Any) -> Held:
    fields = {"at": NOW, "reason": "response_code_103", "excerpt": "no such event", **more}
    return Held(kind, profile(name, last), **fields)


async def settle(state: State, consumer: str = "plain", **fields: Any) -> None:
    """One transition in a transaction of its own."""
    await state.settle([Transition(consumer, **fields)])


async def consumer_of(state: State, name: str = "plain") -> ConsumerState:
    (found,) = [one for one in await state.consumers() if one.name == name]
    return found


async def key_state(state: State, name: str, consumer: str = "plain") -> KeyState:
    """What is stored of one key; nothing is an empty answer."""
    return (await state.keys(consumer, [key_of(name)])).get(key_of(name), KeyState())


async def entry_of(state: State, name: str, consumer: str = "plain") -> LedgerEntry:
    entry = (await key_state(state, name, consumer)).entry
    assert entry is not None, f"nothing is known of {name!r}"
    return entry
