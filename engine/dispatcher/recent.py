"""Verdicts that are not durable yet: the state file cannot know them, and may still know what they have replaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from engine.core.codec import newer_entry
from engine.model import NOTHING, LedgerEntry, Outcome
from engine.ports import KeyState, State


class _Written(msgspec.Struct):
    """What one transaction writes, by key. `forgets`: key -> offset: what the state file has of it is from before."""

    entries: dict[bytes, LedgerEntry] = msgspec.field(default_factory=dict)
    forgets: dict[bytes, int] = msgspec.field(default_factory=dict)


class Recent:
    """Of one consumer, transaction by transaction: what becomes durable together is let go together."""

    def __init__(self) -> None:
        self._open = _Written()
        self._on_the_way: deque[_Written] = deque()

    def __len__(self) -> int:
        return len({key for written in (self._open, *self._on_the_way) for key in written.entries})

    def get(self, key: bytes) -> LedgerEntry | None:
        entry = self._open.entries.get(key)
        if entry is None and self._on_the_way:
            return next((one for it in reversed(self._on_the_way) if (one := it.entries.get(key)) is not None), None)
        return entry

    def note(self, entry: LedgerEntry) -> None:
        """A verdict that is to be written. What it leaves open is as it was."""
        known = self.get(entry.key)
        if known is not None:
            entry.confirmed_through = max(known.confirmed_through, entry.confirmed_through)
            entry.consents = entry.consents or known.consents
        self._open.entries[entry.key] = entry

    def note_all(self, entries: Sequence[LedgerEntry]) -> None:
        """As `note`, for verdicts of different keys."""
        by_key = {entry.key: entry for entry in entries}
        if all(written.entries.keys().isdisjoint(by_key) for written in (self._open, *self._on_the_way)):
            self._open.entries.update(by_key)
        else:
            for entry in entries:
                self.note(entry)

    def forget(self, key: bytes, offset: int) -> None:
        """Nothing that was known of the key holds any more."""
        self._open.entries[key] = LedgerEntry(key, Outcome.EXCLUDED, "forgotten", offset)
        self._open.forgets[key] = offset

    def taken(self) -> None:
        """All of it is on its way to the state file; what comes now goes with the next transaction."""
        self._on_the_way.append(self._open)
        self._open = _Written()

    def durable(self) -> None:
        """What was taken first is on disk: the state file answers for its keys again."""
        self._on_the_way.popleft()

    def _forgotten(self, key: bytes) -> int:
        return max(written.forgets.get(key, NOTHING) for written in (self._open, *self._on_the_way))

    async def look_up(self, store: State, consumer: str, keys: Sequence[bytes]) -> dict[bytes, KeyState]:
        """What is stored of these keys, brought up to date.

        Both verdicts from before the question count and those from after it: one that became durable in between may be
        missing in the answer, and is not among the recent ones any more when the answer comes.
        """
        before = self._of(keys)
        forgets = {key: offset for key in before if (offset := self._forgotten(key)) != NOTHING}
        found = await store.keys(consumer, keys)
        for key, entry in {**before, **self._of(keys)}.items():
            forgotten = max(forgets.get(key, NOTHING), self._forgotten(key))
            found[key] = _newer(entry, found.get(key) or KeyState(), forgotten)
        return found

    def _of(self, keys: Sequence[bytes]) -> dict[bytes, LedgerEntry]:
        """The newest of each key that has one."""
        found: dict[bytes, LedgerEntry] = {}
        for written in (*self._on_the_way, self._open):
            entries = written.entries
            if entries:
                found |= {key: entries[key] for key in keys if key in entries}
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
