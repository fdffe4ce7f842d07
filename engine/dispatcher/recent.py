"""Verdicts that are not durable yet: the state file cannot know them, and may still know what they have replaced."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.core.codec import newer_entry
from engine.model import NOTHING, LedgerEntry, Outcome
from engine.ports import KeyState, State, Transition


class Recent:
    """Of one consumer, by key."""

    def __init__(self) -> None:
        self._entries: dict[bytes, LedgerEntry] = {}
        self._forgets: dict[bytes, int] = {}  # key -> offset: what the state file has of it is from before

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> LedgerEntry | None:
        return self._entries.get(key)

    def note(self, entry: LedgerEntry) -> None:
        """A verdict that is to be written. What it leaves open is as it was."""
        known = self._entries.get(entry.key)
        if known is not None:
            entry.confirmed_through = max(known.confirmed_through, entry.confirmed_through)
            entry.consents = entry.consents or known.consents
        self._entries[entry.key] = entry

    def forget(self, key: bytes, offset: int) -> None:
        """Nothing that was known of the key holds any more."""
        self._entries[key] = LedgerEntry(key, Outcome.EXCLUDED, "forgotten", offset)
        self._forgets[key] = offset

    def durable(self, transition: Transition) -> None:
        """The transition is on disk: the state file answers for its keys again."""
        for entry in transition.verdicts:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
        for key, offset in transition.forget:
            if self._forgets.get(key) == offset:
                del self._forgets[key]
            known = self._entries.get(key)
            if known is not None and known.settled_through == offset:
                del self._entries[key]

    async def look_up(self, store: State, consumer: str, keys: Sequence[bytes]) -> dict[bytes, KeyState]:
        """What is stored of these keys, brought up to date.

        Both verdicts from before the question count and those from after it: one that became durable in between may be
        missing in the answer, and is not among the recent ones any more when the answer comes.
        """
        before = {key: entry for key in keys if (entry := self._entries.get(key)) is not None}
        forgets = self._forgets.copy() if self._forgets else self._forgets
        found = await store.keys(consumer, keys)
        for key in keys:
            entry = self._entries.get(key) or before.get(key)
            if entry is not None:
                stored = found.get(key) or KeyState()
                forgotten = max(forgets.get(key, NOTHING), self._forgets.get(key, NOTHING))
                found[key] = _newer(entry, stored, forgotten)
        return found


def _newer(entry: LedgerEntry, stored: KeyState, forgotten: int) -> KeyState:
    known = stored.entry
    if known is None or known.settled_through < forgotten:
        known = entry
    if not entry.outcome:  # a change alone: the rest of what is known is stored
        return KeyState(newer_entry(stored.entry, entry), stored.held)
    newest = known if known.settled_through > entry.settled_through else entry
    held = stored.held if stored.held and stored.held.profile.last > newest.settled_through else None
    confirmed = max(entry.confirmed_through, known.confirmed_through)
    consents = newest.consents or known.consents or entry.consents
    return KeyState(msgspec.structs.replace(newest, confirmed_through=confirmed, consents=consents), held)
