"""The `Intake` port: from whoever hands in events to the commit stage, and the receipts that answer for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import anyio

from engine.callbacks import future_of
from engine.core.receipts import ReceiptId, Tracker, read_id, receipt_id
from engine.errors import Overloaded, Stopped
from engine.model import Append
from engine.pipeline import Pipeline
from engine.pipeline.commit import Told

DRAINING_RETRY_SECONDS = 5.0


class EngineIntake:
    """See `ports.Intake`. `journal_id` makes receipts of another journal recognisable."""

    def __init__(self, pipeline: Pipeline, journal_id: str) -> None:
        self._pipeline, self.journal_id = pipeline, journal_id
        self._waiting: set[asyncio.Event] = set()
        self._ended: Stopped | None = None

    def end(self, reason: Stopped) -> None:
        """Nothing settles any more: tell whoever waits for it."""
        self._ended = reason
        for waiting in self._waiting:
            waiting.set()

    def refusal(self) -> Overloaded | None:
        commit = self._pipeline.commit
        if commit.closed is not None:
            return Overloaded("draining", "the engine is stopping; another one will answer", DRAINING_RETRY_SECONDS)
        return commit.refusal()

    async def accept(self, append: Append, /, *, owner: str = "") -> str:
        """As `hand_in`, for who can wait; an append without events has the id ""."""
        return await future_of(partial(self.hand_in, append, owner=owner)) if append.events else ""

    def hand_in(self, append: Append, told: Callable[[str | Exception], None], /, *, owner: str = "") -> None:
        count = len(append.events)

        def acknowledged(first: int | Exception) -> None:
            told(first if isinstance(first, Exception) else receipt_id(self.journal_id, owner, first, count))

        self.begin(append, acknowledged)

    def begin(self, append: Append, told: Told, /) -> None:
        """As `hand_in`, for who needs the first offset alone."""
        self._pipeline.hand_in(append, told)

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None:
        known = self._read(id, owner)
        if known is None:
            return None
        tracker = self._tracker(known)
        if tracker is None or tracker.lost:
            return {"id": id, "state": self._state_by_watermark(known), "destinations": None}
        return {"id": id, "state": "settled" if tracker.settled else "pending", "destinations": tracker.report()}

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool:
        known = self._read(id, owner)
        if known is None:
            return False
        tracker = self._tracker(known)
        if tracker is None:
            return self._state_by_watermark(known) == "settled"
        await self._wait(tracker, timeout_seconds)
        if self._ended is not None and not tracker.settled:
            raise self._ended
        return tracker.settled or (tracker.lost and self._state_by_watermark(known) == "settled")

    async def _wait(self, tracker: Tracker, timeout_seconds: float) -> None:
        done = asyncio.Event()
        tracker.when_settled(done.set)
        if self._ended is not None:
            return
        self._waiting.add(done)
        try:
            with anyio.move_on_after(timeout_seconds):
                await done.wait()
        finally:
            self._waiting.discard(done)

    def _read(self, id: str, owner: str) -> ReceiptId | None:
        known = read_id(id)
        if known is None or not known.belongs_to(self.journal_id, owner):
            return None
        in_journal = known.first >= 0 and known.first + known.count <= self._pipeline.commit.next_offset
        return known if in_journal else None

    def _tracker(self, id: ReceiptId) -> Tracker | None:
        tracker = self._pipeline.receipts.get(id.first)
        return tracker if tracker is not None and tracker.events == id.count else None

    def _state_by_watermark(self, id: ReceiptId) -> str:
        """Below every watermark all of it is settled or durably held."""
        end = id.first + id.count
        return "settled" if all(consumer.watermark >= end for consumer in self._pipeline.consumers) else "pending"


class Closed:
    """The intake of an engine that does not run."""

    journal_id = ""

    def __init__(self, error: Stopped) -> None:
        self._error = error

    def end(self, reason: Stopped) -> None:
        """Nobody waits here."""

    def refusal(self) -> Overloaded | None:
        return Overloaded("draining", str(self._error), DRAINING_RETRY_SECONDS)

    async def accept(self, append: Append, /, *, owner: str = "") -> str:
        raise self._error

    def hand_in(self, append: Append, told: Callable[[str | Exception], None], /, *, owner: str = "") -> None:
        raise self._error

    def begin(self, append: Append, told: Told, /) -> None:
        raise self._error

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None:
        return None

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool:
        raise self._error
